"""`make gpu` in its dry form: every item is done on a CPU, without what a bare machine lacks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import venv
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, clean_environment, python
from packaging.requirements import Requirement

sys.path.insert(0, str(ROOT))
from benchmarks.gpu import __main__ as program
from benchmarks.gpu import processes, speed
from benchmarks.gpu.part import Part, line

# What docs/gpu.md says it needs, with what the tests marked gpu need.
NEEDED = (
    "torch", "torchvision", "numpy", "scipy", "hydra-core", "omegaconf", "rich", "pytest",
    "hypothesis",
)  # fmt: skip

NOT_THERE = (
    "wandb", "polars", "timm", "sklearn", "matplotlib", "lightning", "submitit",
)  # fmt: skip


def items(file: Path) -> dict[str, Any]:
    part = json.loads(file.read_text())
    assert part["dry"] is True
    return {item["item"]: item for item in part["items"]}


@pytest.mark.slow
def test_check_and_speed_are_done_without_what_a_bare_machine_lacks(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from benchmarks.gpu.__main__ import one_part\n"
        f"sys.modules |= dict.fromkeys({NOT_THERE!r})\n"  # None: importing one fails
        f"out = Path({str(tmp_path)!r})\n"
        "sys.exit(any([one_part(name, out, dry=True) for name in ('check', 'speed')]))"
    )
    done = python(ROOT, "-c", code, PYTHONPATH=f"{ROOT / 'src'}:{ROOT}").good()
    checked, fast = items(tmp_path / "check.json"), items(tmp_path / "speed.json")
    for name, item in (checked | fast).items():
        assert item["state"] == "done", name
        assert line(item) in done.stdout
    assert sum("ok" in item for item in checked.values()) >= 8
    assert all(item["images/s"] > 0 for item in fast.values() if "images/s" in item)


def bare_python(folder: Path) -> Path:
    """A Python with the packages in NEEDED and what these require: links to those of this one."""
    packages, names, left = folder / "packages", set[str](), [*NEEDED]
    packages.mkdir()
    while left:
        name = left.pop()
        if name in names:
            continue
        names.add(name)
        for requirement in map(Requirement, metadata.requires(name) or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                left.append(requirement.name)
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(str(distribution.locate_file(top)))
    venv.create(folder / "venv", symlinks=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n")
    return folder / "venv" / "bin" / "python"


@pytest.mark.slow
def test_a_bare_machine_does_it_all_and_finds_the_tests_marked_gpu(tmp_path: Path) -> None:
    bare, out = bare_python(tmp_path), tmp_path / "out"
    code = f"import importlib.util as u; print([n for n in {NOT_THERE} if u.find_spec(n)])"
    there = subprocess.run([bare, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == "[]"
    done = subprocess.run(
        ["make", "gpu", f"PYTHON={bare}", f"ARGS=dry out={out}"], cwd=ROOT, text=True,
        env=clean_environment(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name in program.MINUTES:
        for item in items(out / f"{name}.json").values():
            assert item["state"] == "done", item
    collected = items(out / "check.json")["tests marked gpu, found"]
    number = re.search(r"^(\d+)/?\d* tests collected", collected["tail"], re.MULTILINE)
    assert int(number.group(1)) >= 150
    real = items(out / "real.json")
    assert real["killed and continued"]["epochs at the kill"] >= 1
    assert real["2 runs of a sweep"]["runs"] == 2


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow
@pytest.mark.parametrize("waits", [True, False])
def test_nothing_survives_a_program_out_of_time_or_ended(tmp_path: Path, waits: bool) -> None:
    """A grandchild in a session of its own, too."""
    code = (
        "import pathlib, subprocess, sys, time\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "child = subprocess.Popen(sleep, start_new_session=True)\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid))\n"
        "print('begun', flush=True)\n"
        f"time.sleep({600 * waits})\n"
    )
    file = tmp_path / "pid"
    command = [sys.executable, "-c", code, str(file)]
    if waits:
        with pytest.raises(subprocess.TimeoutExpired) as late:
            processes.run(command, 20)
        assert "begun" in str(late.value.output)
    else:
        assert processes.run(command, 120, capture=False).returncode == 0
    until = time.monotonic() + 60
    while alive(int(file.read_text())) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(int(file.read_text()))
    assert processes.MARK not in os.environ


def test_a_run_is_judged_by_a_bare_loop(tmp_path: Path) -> None:
    part = Part("made", tmp_path, seconds=100, dry=False)
    states = [speed.judged({"images/s": rate}, {"images/s": 100.0}, part) for rate in (90.0, 70.0)]
    assert [result["ok"] for result in states] == [True, False]
    assert "ok" not in speed.judged({"images/s": 1.0}, {"state": "failed"}, part)


def test_what_fails_or_has_no_time_is_written_and_the_next_is_done(tmp_path: Path) -> None:
    part = Part("made", tmp_path, seconds=100, dry=True)

    def fail() -> dict[str, Any]:
        raise ValueError("no such kernel\nof many lines")

    part.item("raises", fail)
    part.item("is not ok", lambda: {"ok": False})
    part.item("has no time", lambda: {}, least=101)
    part.item("is done", lambda: {"images/s": 12345.678})
    states = [item["state"] for item in items(tmp_path / "made.json").values()]
    assert states == ["failed", "failed", "not run", "done"]
    assert part.items[0]["why"] == "ValueError: no such kernel"
    assert line(part.items[3]).endswith("images/s 1.235e+04")


def test_words_that_mean_nothing_and_a_machine_without_a_gpu_are_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert program.main(["speedy"]) == 2
    assert capsys.readouterr().out.startswith("error: speedy: it must be one of dry, check")
    assert program.main(["check"]) == 2
    assert "make gpu ARGS=dry" in capsys.readouterr().out
