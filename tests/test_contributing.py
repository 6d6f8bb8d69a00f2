"""CONTRIBUTING.md, followed: what it says to write is written, what it says to add is added."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, clean_environment, records, run_folder

SHORT = ("epochs=3", "noise.batches=2", "noise.batch_size=4", "batch_size=8", "tracking=none")


def section(title: str) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def follow(text: str, tree: Path) -> list[str]:
    """Carry a section out in a copy of the tree; return the files that it touched."""
    touched = []
    for kind, block in re.findall(r"```(python|yaml)\n(.*?)```", text, re.DOTALL):
        first, _, body = textwrap.dedent(block).partition("\n")
        file = first.removeprefix("# ")
        touched.append(file)
        if kind == "yaml":
            (tree / file).write_text(body)
        else:
            content = (tree / file).read_text()
            registry = re.search(r"^[A-Z]+: dict\[str, .*\] = \{$", content, re.MULTILINE)
            assert registry, f"{file} has a registry"
            start = registry.start()
            (tree / file).write_text(f"{content[:start]}{body}\n\n{content[start:]}")
    for entry, name, file in re.findall(r"`([^`]+)` in `(\w+)`\s+\(`([^`]+)`\)", text):
        touched.append(file)
        content = (tree / file).read_text()
        pattern = rf"^(class {name}:\n.*?|{name}: dict.*?)(?=^\}}|\n\n\n)"
        found = re.search(pattern, content, re.MULTILINE | re.DOTALL)
        assert found, f"{file} has {name}"
        end = found.end()
        line = f"\n    {entry}" if found[0].startswith("class") else f"    {entry}\n"
        (tree / file).write_text(content[:end] + line + content[end:])
    return touched


def run(tree: Path, place: Path, *typed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(tree / "src" / "train.py"), *typed], cwd=place, text=True,
        env=clean_environment(PYTHONPATH=str(tree / "src")), capture_output=True, check=False,
    )  # fmt: skip


def copied(place: Path) -> Path:
    for part in ("src", "conf", "launch"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, place / "tree" / part, symlinks=True, ignore=ignored)
    return place / "tree"


def name_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[0]


def test_a_schedule_a_data_set_and_a_model_are_added_as_written(tmp_path: Path) -> None:
    tree = copied(tmp_path)
    plain = name_of(run(tree, tmp_path, "dry_run=true"))
    assert follow(section("Add a schedule"), tree) == [
        "src/igo/method/profiles.py", "conf/schedule/logarithmic.yaml",
        "src/igo/method/profiles.py",
    ]  # fmt: skip
    assert set(follow(section("Add a data set"), tree)) == {
        "src/igo/data/readers.py", "conf/dataset/stripes.yaml",
    }  # fmt: skip
    assert set(follow(section("Add a model"), tree)) == {
        "src/igo/train/models.py", "conf/model/tiny.yaml",
    }  # fmt: skip
    assert name_of(run(tree, tmp_path, "dry_run=true")) == plain, "no run has another name"

    own = ("schedule=logarithmic", "dataset=stripes", "model=tiny", *SHORT)
    missing = run(tree, tmp_path, *own)
    assert missing.returncode == 2
    assert "data/stripes.npz is missing (data_dir=data does not exist)" in missing.stderr
    (tmp_path / "data").mkdir()
    upright = np.tile(np.array([0, 255], dtype=np.uint8), (60, 6, 3))[..., None]
    images = np.where(np.arange(60)[:, None, None, None] % 2, upright, upright.swapaxes(1, 2))
    labels = np.arange(60) % 2
    np.savez(tmp_path / "data" / "stripes.npz", x=images[:48], y=labels[:48],
             test_x=images[48:], test_y=labels[48:])  # fmt: skip
    done = run(tree, tmp_path, *own)
    assert done.returncode == 0, done.stderr
    rows = records(run_folder(tmp_path))
    noise = [row["delta_m"] / rows[0]["delta_m"] for row in rows]
    assert noise == pytest.approx([1 / (1 + np.log(m)) for m in (1, 2, 3)], rel=1e-9)
    assert run_folder(tmp_path).name.startswith("stripes-tiny-logarithmic-")
    refused = run(tree, tmp_path, *own, "schedule.steep=-1")
    assert "schedule.steep=-1" in refused.stderr
    assert refused.returncode == 2
    text = run(tree, tmp_path, "--help").stdout
    assert all(word in text for word in ("the larger, the faster", "Stripes, upright", "  tiny "))


def test_an_optimizer_is_added_as_written(tmp_path: Path) -> None:
    """One Python file and one YAML, through training, table and report."""
    tree = copied(tmp_path)
    plain = name_of(run(tree, tmp_path, "dry_run=true"))
    file = "src/igo/config/optimizers.py"
    assert follow(section("Add an optimizer"), tree) == [file, "conf/optimizer/adagrad.yaml", file]
    assert name_of(run(tree, tmp_path, "dry_run=true")) == plain, "no run has another name"
    own = ("-m", "optimizer=adagrad", "optimizer.initial_sum=0.1,0.5", "model.width=4",
           "dataset.samples=96", "hydra.launcher.parallel=1", *SHORT)  # fmt: skip
    done = run(tree, tmp_path, *own)
    assert done.returncode == 0, done.stderr
    folders = [path.parent for path in (tmp_path / "runs").glob("*/config.yaml")]
    assert len({folder.name for folder in folders}) == 2
    for row in records(folders[0]):
        assert row["delta_m"] is None
        assert row["eta_m"] <= 0.01
    refused = run(tree, tmp_path, "optimizer=adagrad", "optimizer.initial_sum=-1")
    assert "optimizer.initial_sum=-1.0 is not allowed: it must be 0 or more" in refused.stderr
    assert "what the sum of squares begins with" in run(tree, tmp_path, "--help").stdout

    def analysed(command: str, *typed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "igo", command, f"runs={tmp_path / 'runs'}", *typed],
            cwd=tmp_path, env=clean_environment(PYTHONPATH=str(tree / "src")),
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    for shown in (analysed("table"), analysed("report", f"output={tmp_path / 'report'}")):
        assert shown.returncode == 0, shown.stderr
        assert "initial sum" in shown.stdout
    page = (tmp_path / "report" / "index.html").read_text()
    assert "no δ is known for optimizer=adagrad" in page
