"""CONTRIBUTING.md, followed: one run has all that its six recipes add, and table and report."""

from __future__ import annotations

import csv
import re
import shutil
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Ended, python, records

RECIPES = {  # what each touches
    "schedule": {"src/igo/method/profiles.py", "conf/schedule/logarithmic.yaml"},
    "data set": {"src/igo/data/readers.py", "conf/dataset/stripes.yaml"},
    "model": {"src/igo/train/models.py", "conf/model/tiny.yaml"},
    "optimizer": {"src/igo/config/optimizers.py", "conf/optimizer/adagrad.yaml"},
    "logger": {
        "src/igo/runs/lines.py", "src/igo/config/schema.py", "conf/tracking/lines.yaml",
    },
    "launcher": {"src/hydra_plugins/igo_inline.py", "conf/hydra/launcher/inline.yaml"},
}  # fmt: skip
OWN = ("schedule=logarithmic", "dataset=stripes", "model=tiny", "optimizer=adagrad",
       "tracking=lines", "epochs=3", "batch_size=8", "noise.batches=2")  # fmt: skip


def follow(recipe: str, tree: Path) -> set[str]:
    """Carry a section out in a copy of the tree; return the files that it touched."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    sections = re.split(r"^## ", text, flags=re.M)
    section = next(part for part in sections if re.match(f"Add an? {recipe}", part))
    touched = set()
    for block in re.findall(r"```(?:python|yaml)\n(.*?)```", section, re.DOTALL):
        first, _, body = textwrap.dedent(block).partition("\n")
        file = tree / first.removeprefix("# ")
        touched.add(first.removeprefix("# "))
        if file.exists():  # before its registry
            content = file.read_text()
            start = re.search(r"^[A-Z]+: dict\[str, .*\] = \{$", content, re.M).start()  # type: ignore[union-attr]
            body = f"{content[:start]}{body}\n\n{content[start:]}"
        file.write_text(body)
    for entry, name, place in re.findall(r"`([^`]+)` in `(\w+)`\s+\(`([^`]+)`\)", section):
        touched.add(place)
        opening = rf"^({name}: dict.*)$"
        content = (tree / place).read_text()
        (tree / place).write_text(re.sub(opening, rf"\1\n    {entry}", content, flags=re.M))
    return touched


@dataclass(frozen=True)
class Followed:
    """The tree with all that was added, a sweep of two runs there, its table and its report."""

    place: Path
    run: Callable[..., Ended]
    touched: dict[str, set[str]]
    plain: tuple[str, str]  # a run of what was there, named before and after
    sweep: Ended
    table: Ended
    report: Ended

    @property
    def folder(self) -> Path:
        return min((self.place / "runs").glob("stripes-tiny-logarithmic-*"))


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    place = tmp_path_factory.mktemp("followed")
    for part in ("src", "conf", "launch"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, place / "tree" / part, symlinks=True, ignore=ignored)

    def run(*typed: str) -> Ended:
        return python(place, "-m", "igo", *typed, PYTHONPATH=str(place / "tree" / "src"))

    before = run("train", "dry_run=true").stdout.splitlines()[0]
    touched = {name: follow(name, place / "tree") for name in RECIPES}
    plain = before, run("train", "dry_run=true").stdout.splitlines()[0]
    (place / "data").mkdir()
    upright = np.tile(np.array([0, 255], dtype=np.uint8), (60, 6, 3))[..., None]
    images = np.where(np.arange(60)[:, None, None, None] % 2, upright, upright.swapaxes(1, 2))
    labels = np.arange(60) % 2
    np.savez(place / "data" / "stripes.npz", x=images[:48], y=labels[:48],
             test_x=images[48:], test_y=labels[48:])  # fmt: skip
    sweep = run("train", "-m", *OWN, "optimizer.initial_sum=0.1,0.5", "hydra/launcher=inline")
    report = run("report", "runs=runs", "output=report")
    return Followed(place, run, touched, plain, sweep, run("table", "runs=runs"), report)


def test_no_run_has_another_name(followed: Followed) -> None:
    assert followed.plain[0] == followed.plain[1]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_touches_one_python_file_or_two_and_a_yaml(
    recipe: str, followed: Followed
) -> None:
    assert followed.touched[recipe] == RECIPES[recipe]


def test_all_that_was_added_trains_is_tabled_and_reported(followed: Followed) -> None:
    followed.report.good()
    assert "2 finished" in followed.sweep.good().stdout  # by the launcher
    page = (followed.place / "report" / "index.html").read_text()
    for word in ("stripes", "tiny", "adagrad", "logarithmic", "initial sum"):
        assert word in followed.table.good().stdout
        assert word in page
    assert "no δ is known for optimizer=adagrad" in page


def test_the_schedule_is_the_closed_form_and_the_rate_its_own(followed: Followed) -> None:
    with (followed.folder / "plan.csv").open() as file:
        noise = [float(row["phi_m"]) for row in csv.DictReader(file)]
    assert noise == pytest.approx([1 / (1 + np.log(m)) for m in (1, 2, 3)], rel=1e-9)
    rows = records(followed.folder)
    assert all(row["delta_m"] is None and row["eta_m"] <= 0.01 for row in rows)
    lines = [f"{row['epoch']} {row['train/loss']}" for row in rows]  # of the logger
    assert (followed.folder / "lines.txt").read_text().splitlines() == lines


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("schedule.steep=-1", "schedule.steep=-1.0 is not allowed: it must be above 0"),
        ("optimizer.initial_sum=-1", "optimizer.initial_sum=-1.0 is not allowed: it must be 0"),
        ("data_dir=none", "none/stripes.npz is missing (data_dir=none does not exist)"),
    ],
)
def test_what_was_added_is_checked(typed: str, message: str, followed: Followed) -> None:
    ended = followed.run("train", *OWN, typed)
    assert message in ended.stderr
    assert ended.returncode == 2


def test_help_explains_all(followed: Followed) -> None:
    text = followed.run("train", "--help").stdout
    words = ("the larger, the faster", "Stripes, upright", "  tiny ", "text file in it")
    for word in (*words, "what the sum of squares begins with", "one after another: an example"):
        assert word in text
