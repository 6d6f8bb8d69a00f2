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
from forked import Death, Ended
from harness import assert_same, outcome, start, undisturbed

pytestmark = pytest.mark.faults

Record = Callable[[str, object], None]
Damage = Callable[[Path, Path], None]  # of a file; the same file of another run
FILES = {
    "checkpoint": ("checkpoint.pt",),
    "checkpoint before": ("previous-checkpoint.pt",),
    "both checkpoints": ("checkpoint.pt", "previous-checkpoint.pt"),
    "configuration": ("config.yaml",),
    "plan": ("plan.csv",),
    "metrics": ("metrics.jsonl",),
    "status": ("status.json",),
    "everything": (
        "checkpoint.pt", "previous-checkpoint.pt", "config.yaml", "plan.csv", "metrics.jsonl",
        "status.json",
    ),
}  # fmt: skip


def truncated(file: Path, _: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def empty(file: Path, _: Path) -> None:
    file.write_bytes(b"")


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


DAMAGES: tuple[Damage, ...] = (truncated, empty, flipped, foreign, missing)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run that was killed after epoch 3 of 4, one that is finished, and another finished one."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("killed", "finished", "foreign")}
    ended = start(folders["killed"], "sgd", Death("igo.runs.checkpoint.save", 3, "after"))
    assert ended.returncode == -signal.SIGKILL
    start(folders["finished"], "sgd").good()
    start(folders["foreign"], "adamw").good()
    return folders


def copies(places: dict[str, Path], state: str, place: Path) -> Iterator[tuple[str, str]]:
    """Damage a copy of a run, in one way after the other, in the same place.

    Yields:
        The kind of damage and the file.
    """
    for damage in DAMAGES:
        for what, names in FILES.items():
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(places[state], place)
            folder = run_folder(place)
            for name in names:
                damage(folder / name, run_folder(places["foreign"]) / name)
            yield damage.__name__, what


def assert_mended(ended: Ended, place: Path, what: str) -> None:
    """It ended well with the same bits, and said what it passed over, one line each."""
    assert ended.returncode == 0, ended
    assert_same(outcome(place), undisturbed("sgd"))
    for line in ended.stderr.splitlines():
        assert line.startswith("warning: "), (what, line)


def test_a_killed_run_with_damaged_files_goes_on_to_the_same_end(
    places: dict[str, Path], tmp_path: Path, record_property: Record
) -> None:
    """What is there is used, what is not is made again: the checkpoints are what costs epochs."""
    count = 0
    for damage, what in copies(places, "killed", tmp_path / "run"):
        ended = start(tmp_path / "run", "sgd")
        if what == "metrics":  # the checkpoint's epochs have no record any more
            assert "metrics.jsonl is damaged or missing" in ended.error()
            continue
        assert_mended(ended, tmp_path / "run", f"{damage} {what}")
        after = {"checkpoint": 2, "both checkpoints": 0, "everything": 0}.get(what, 3)
        assert (f"continuing after epoch {after} of 4" in ended.stdout) == bool(after), what
        newest = "damaged" if damage != "foreign" else "of another run"
        if what in ("checkpoint", "both checkpoints", "everything") and damage != "missing":
            assert newest in ended.stderr
        if not after and damage != "missing":
            assert "no whole checkpoint is left: the run starts over" in ended.stderr
        if after == 3:
            assert ended.stderr == ""
        count += 1
    record_property("damaged file of a killed run", count)


def test_damaged_then_killed_at_any_rename_it_goes_on_from_the_one_before(
    places: dict[str, Path], tmp_path: Path, record_property: Record
) -> None:
    """The damaged checkpoint never takes the place of the whole one."""
    for call in range(1, 60):
        place = tmp_path / str(call)
        shutil.copytree(places["killed"], place)
        flipped(run_folder(place) / "checkpoint.pt", Path())
        ended = start(place, "sgd", Death("pathlib.Path.replace", call, "after"))
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
        ended = start(place, "sgd")
        assert re.search("continuing after epoch|finished before", ended.stdout), ended
        assert_mended(ended, place, f"rename {call}")
    assert call > 5
    record_property("damaged checkpoint, then SIGKILL at a rename", call - 1)


def content(place: Path, name: str) -> bytes | None:
    """What is in a file of the one run in a place, if it is there."""
    return next((file.read_bytes() for file in (place / "runs").glob(f"*/{name}")), None)


def test_a_finished_run_with_damaged_files_is_whole_again(
    places: dict[str, Path], tmp_path: Path, record_property: Record
) -> None:
    """Its configuration, plan and records are byte for byte those that it wrote.

    A damaged checkpoint is no reason to train again: what wants its parameters refuses it.
    """
    count, place = 0, tmp_path / "run"
    kept = ("config.yaml", "plan.csv", "metrics.jsonl")
    source = run_folder(places["finished"])
    for damage, what in copies(places, "finished", place):
        changed = [name for name in kept if content(place, name) != (source / name).read_bytes()]
        ended = start(place, "sgd")
        if "checkpoint" in what:
            assert (ended.returncode, ended.stderr) == (0, ""), what
            assert "finished before" in ended.stdout
            assert records(run_folder(place)) == undisturbed("sgd").records
        else:
            assert_mended(ended, place, f"{damage} {what}")
        trained = what in ("everything", "metrics")  # again, from the start
        for name in kept:
            same = (run_folder(place) / name).read_bytes() == (source / name).read_bytes()
            moved = name == "config.yaml"  # which says where the runs are
            assert same or moved or trained, (damage, what, name)
        for name in changed if not trained else ():  # another run's plan may be the same
            assert f"{name} is damaged or missing: it is written again" in ended.stderr
        assert start(place, "sgd").stderr == "", "it is mended for good"
        count += 1
    record_property("damaged file of a finished run", count)
