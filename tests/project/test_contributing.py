"""CONTRIBUTING.md, followed: one run has all that its recipes add, and the table."""

import csv
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Ended, python, records

RECIPES = ("schedule", "data set", "logger", "launcher")
OWN = (
    "schedule=logarithmic",
    "dataset=stripes",
    "model.width=4",
    "tracking=lines",
    "epochs=3",
    "batch_size=8",
    "noise.batches=2",
)


def follow(recipe: str, tree: Path) -> None:
    """Carry a section out in a copy of the tree."""
    sections = re.split(r"^## ", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.M)
    section = next(part for part in sections if re.match(f"Add an? {recipe}", part))
    for block in re.findall(r"```(?:python|yaml)\n(.*?)```", section, re.DOTALL):
        path_line, _, body = textwrap.dedent(block).partition("\n")
        file = tree / path_line.removeprefix("# ")
        if file.exists():  # The block goes before the registry of the file.
            content = file.read_text()
            start = re.search(r"^[A-Z]+: dict\[str, .*\] = \{$", content, re.M).start()  # type: ignore[union-attr]
            body = f"{content[:start]}{body}\n\n{content[start:]}"
        file.write_text(body)
    for entry, name, place in re.findall(r"`([^`]+)` in `(\w+)`\s+\(`([^`]+)`\)", section):
        opening = rf"^({name}: dict.*)$"
        content = (tree / place).read_text()
        (tree / place).write_text(re.sub(opening, rf"\1\n    {entry}", content, flags=re.M))


@pytest.mark.slow
def test_all_that_is_added_trains_and_is_tabled(tmp_path: Path) -> None:
    for part in ("src", "conf", "launch"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, tmp_path / "tree" / part, symlinks=True, ignore=ignored)

    def run(*words: str) -> Ended:
        return python(tmp_path, "-m", "igo", *words, PYTHONPATH=str(tmp_path / "tree" / "src"))

    name = run("train", "dry_run=true").good().stdout.splitlines()[0]
    for recipe in RECIPES:
        follow(recipe, tmp_path / "tree")
    # What is added changes no other run.
    assert run("train", "dry_run=true").good().stdout.splitlines()[0] == name

    (tmp_path / "data").mkdir()
    upright = np.tile(np.array([0, 255], dtype=np.uint8), (60, 6, 3))[..., None]
    images = np.where(np.arange(60)[:, None, None, None] % 2, upright, upright.swapaxes(1, 2))
    labels = np.arange(60) % 2
    np.savez(
        "data/stripes.npz", x=images[:48], y=labels[:48], test_x=images[48:], test_y=labels[48:]
    )
    sweep = run("train", "-m", *OWN, "schedule.a=1", "seed=0,1", "hydra/launcher=inline")
    assert "2 finished" in sweep.good().stdout
    table = run("table", "runs=runs").good().stdout
    assert "stripes" in table
    assert "logarithmic" in table

    folder = min((tmp_path / "runs").glob("stripes-resnet8-logarithmic-*"))
    with (folder / "plan.csv").open() as file:
        noise = [float(row["phi_m"]) for row in csv.DictReader(file)]
    assert noise == pytest.approx([1 / (1 + np.log(m)) for m in (1, 2, 3)], rel=1e-9)
    lines = [f"{row['epoch']} {row['train/loss']}" for row in records(folder)]
    assert (folder / "lines.txt").read_text().splitlines() == lines

    # The annotation of the function has a range, and its YAML a comment.
    line = run("train", *OWN, "schedule.a=-1").error()
    assert line.startswith("error: schedule.a=-1.0 is not allowed: ")
    assert "the larger, the faster" in run("train", "--help=schedule").stdout


def test_words_beside_a_target_are_refused(tmp_path: Path) -> None:
    """make would train first, with other settings than were meant."""
    words = ["make", "-C", str(ROOT), "train", "epochs", "5", "PYTHON=false", f"VENV={tmp_path}"]
    process = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout.count("false")) == (2, 0)
    assert "epochs is no target" in process.stderr
    assert "make train epochs=5" in process.stderr
