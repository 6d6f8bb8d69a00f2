"""Files of a run that are truncated, empty, changed by a bit or of another run."""

import itertools
import random
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import records, run_folder
from forked import Death
from resumed import assert_same, outcome, start, undisturbed

pytestmark = pytest.mark.faults

Damage = Callable[[Path, Path], None]  # of a file; the same file of another run
KEPT = ("config.yaml", "plan.csv", "metrics.jsonl", "status.json")
NAMED = {name: name for name in ("checkpoint.pt", *KEPT)} | {"records": "(status|metrics).jsonl?"}
NAMED["status.json"] = "(status.json|config.yaml)"  # another run's has another seal
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


@pytest.mark.parametrize("state", ["killed", "finished"])
def test_a_run_with_damaged_files_ends_as_undisturbed_or_is_refused(
    state: str, places: dict[str, Path], tmp_path: Path
) -> None:
    """What is missing is made again. Damage, and settings and records that are lost, are one line.

    A damaged checkpoint of a finished run is no reason to train again. Without its status the run
    is not known to have finished, and its last epoch is found in the checkpoint.
    """
    place = tmp_path / "run"
    for damage, (what, names) in itertools.product(DAMAGES, FILES.items()):
        if damage is flipped and "status.json" in names:
            continue  # it may change a letter
        if state == "killed" and "metrics.jsonl" in names and damage in (flipped, foreign):
            continue  # the records of a finished run are sealed
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(places[state], place)
        folder = run_folder(place)
        for name in names:
            damage(folder / name, run_folder(places["foreign"]) / name)
        before = content(place)
        ended = start(place, "sgd")
        refused = {"killed": ("checkpoint.pt", "status.json"), "finished": KEPT}[state]
        lost = what in ("metrics.jsonl", "records")
        if lost or (what in refused and (damage is not missing or what == "config.yaml")):
            said = rf"{NAMED[what]} (is (damaged|of another)|cannot be read)"
            assert re.search(said, ended.error()), (damage, what)
            assert content(place) == before
            continue
        assert ended.returncode == 0, (damage, what, ended)
        assert records(folder) == undisturbed("sgd").records
        gone = what == "status.json"  # data, plan and code cannot be compared
        assert bool(ended.stderr) == gone, (damage, what, ended)
        if state == "killed":
            assert ("continuing after epoch 3 of 4" in ended.stdout) == (what != "checkpoint.pt")
        if state == "killed" or gone:
            assert_same(outcome(place), undisturbed("sgd"))
        else:
            assert "finished before" in ended.stdout
