"""`make gpu` in its dry form: every item is done on a CPU, without what a bare machine lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, clean_environment

sys.path.insert(0, str(ROOT))
from benchmarks.gpu import __main__ as program
from benchmarks.gpu.part import Part, line

NOT_THERE = ("wandb", "polars", "cma", "timm", "sklearn", "matplotlib", "lightning")


def items(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_text())
    assert found["dry"] is True
    return {one["item"]: one for one in found["items"]}


def test_check_and_speed_are_done_without_what_a_bare_machine_lacks(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from benchmarks.gpu.__main__ import one_part\n"
        f"sys.modules |= dict.fromkeys({NOT_THERE!r})\n"  # None: importing one fails
        f"out = Path({str(tmp_path)!r})\n"
        "sys.exit(any([one_part(name, out, dry=True) for name in ('check', 'speed')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
        env=clean_environment(PYTHONPATH=f"{ROOT / 'src'}:{ROOT}"), timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    checked, fast = items(tmp_path / "check.json"), items(tmp_path / "speed.json")
    for name, one in (checked | fast).items():
        assert one["state"] == "done", name
        assert line(one) in done.stdout
    assert sum("ok" in one for one in checked.values()) >= 8
    assert all(one["images/s"] > 0 for one in fast.values() if "images/s" in one)


@pytest.mark.slow
def test_a_run_is_killed_and_continued(tmp_path: Path) -> None:
    program.one_part("real", tmp_path, dry=True)
    (one,) = items(tmp_path / "real.json").values()
    assert one["state"] == "done", one
    assert one["ok"] is True
    assert one["epochs at the kill"] >= 1


def test_what_fails_or_has_no_time_is_written_and_the_next_is_done(tmp_path: Path) -> None:
    part = Part("made", tmp_path, seconds=100, dry=True)

    def fail() -> dict[str, Any]:
        raise ValueError("no such kernel\nof many lines")

    part.item("raises", fail)
    part.item("is not ok", lambda: {"ok": False})
    part.item("has no time", lambda: {}, least=101)
    part.item("is done", lambda: {"images/s": 12345.678})
    states = [one["state"] for one in items(tmp_path / "made.json").values()]
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
