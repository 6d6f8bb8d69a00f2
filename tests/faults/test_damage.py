"""Files of a run that are truncated, empty, changed by a bit or of another run."""

from __future__ import annotations

import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import records, run_folder
from forked import Death
from resumed import assert_same, outcome, start, undisturbed

pytestmark = pytest.mark.faults

Damage = Callable[[Path, Path], None]  # of a file; the same file of another run
KEPT = ("config.yaml", "plan.csv", "metrics.jsonl", "status.json")
NAMED = {name: name for name in ("checkpoint.pt", *KEPT)} | {"records": "(status|metrics).jsonl?"}
FILES = {**{name: (name,) for name in ("checkpoint.pt", *KEPT)}, "records": KEPT}


def truncated(file: Path, _: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def flipped(file: Path, _: Path) -> None:
    """One bit, somewhere."""
    content = bytearray(file.read_bytes())
    place = random.Random(file.name).randrange(len(content))
    content[place] ^= 1 << place % 8
    file.write_bytes(content)


def foreign(file: Path, other: Path) -> None:
    shutil.copyfile(other, file)


def missing(file: Path, _: Path) -> None:
    file.unlink()


DAMAGES: tuple[Damage, ...] = (truncated, flipped, foreign, missing)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run that was killed after epoch 3 of 4, one that is finished, and another finished one."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("killed", "finished", "foreign")}
    ended = start(folders["killed"], "sgd", Death("igo.runs.checkpoint.save", 3, "after"))
    assert ended.returncode == -signal.SIGKILL
    start(folders["finished"], "sgd").good()
    start(folders["foreign"], "adamw").good()
    return folders


def content(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.glob("runs/digits-*/*")}


def copies(places: dict[str, Path], state: str, place: Path) -> Iterator[tuple[str, str]]:
    """Damage a copy of a run, in one way after the other, in the same place.

    Yields:
        The kind of damage and the file.
    """
    for damage in DAMAGES:
        for what, names in FILES.items():
            if damage is flipped and "status.json" in names:
                continue  # it may change a letter
            if state == "killed" and "metrics.jsonl" in names and damage in (flipped, foreign):
                continue  # the records of a finished run are sealed
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(places[state], place)
            folder = run_folder(place)
            for name in names:
                damage(folder / name, run_folder(places["foreign"]) / name)
            yield damage.__name__, what


def test_a_killed_run_with_damaged_files_goes_on_to_the_same_end_or_is_refused(
    places: dict[str, Path], tmp_path: Path
) -> None:
    """What is there is used, what is missing is made again. Lost epochs and damage are one line."""
    place = tmp_path / "run"
    for damage, what in copies(places, "killed", place):
        before = content(place)
        ended = start(place, "sgd")
        lost = what in ("metrics.jsonl", "records")
        if lost or (what in ("checkpoint.pt", "status.json") and damage != "missing"):
            assert re.search(rf"{NAMED[what]} is (damaged|of another)", ended.error()), damage
            assert content(place) == before
            continue
        assert ended.returncode == 0, (damage, what, ended)
        assert_same(outcome(place), undisturbed("sgd"))
        assert ("continuing after epoch 3 of 4" in ended.stdout) == (what != "checkpoint.pt")
        assert bool(ended.stderr) == (what == "status.json"), (damage, what, ended)


def test_a_finished_run_with_damaged_files_is_whole_or_refused(
    places: dict[str, Path], tmp_path: Path
) -> None:
    """A damaged checkpoint is no reason to train again: what wants its parameters refuses it.

    Missing records are one line, and the rest stays as it is. Without its status the run is not
    known to have finished, and its last epoch is found in the checkpoint.
    """
    place = tmp_path / "run"
    for damage, what in copies(places, "finished", place):
        before = content(place)
        ended = start(place, "sgd")
        lost = what in ("metrics.jsonl", "records")
        if lost or (what == "status.json" and damage != "missing"):
            assert re.search(rf"{NAMED[what]} (is|cannot be read)", ended.error()), damage
            assert content(place) == before
        elif what != "status.json":
            assert (ended.returncode, ended.stderr) == (0, ""), what
            assert "finished before" in ended.stdout
            (folder,) = place.glob("runs/digits-*")
            assert records(folder) == undisturbed("sgd").records
        else:
            ended.good()
            assert_same(outcome(place), undisturbed("sgd"))
