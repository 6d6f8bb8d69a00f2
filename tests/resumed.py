"""Runs that are disturbed and continued, held against runs that nothing disturbed."""

import atexit
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from conftest import TINY, Ended, assert_equal, records, run_folder, status
from data_files import write_images
from forked import Death, finished, forge
from wandb_server import history

from igo.runs import checkpoint

SILENT = "tracking=none"
# The wrong moments inside each file write: half of it is on the disk, all of it is under another
# name, all of it is in place.
WRITES = [
    ("os.fsync", "torn"),
    ("pathlib.Path.replace", "before"),
    ("pathlib.Path.replace", "after"),
]
BASE = (*TINY, "epochs=4", "schedule.stages=2")  # the boundary is after epoch 2; 6 + 4 updates
MOVED = ("dataset.augment.crop=1", "dataset.augment.flip=true", "dataset.augment.rotation=15")
KINDS: dict[str, tuple[str, ...]] = {
    "sgd": (*BASE, SILENT),
    "momentum, augmentation, final stage": (
        *BASE,
        SILENT,
        "optimizer=shb",
        "learning_rate=0.02",
        *MOVED,
        "schedule.final_updates=2",
    ),
    "fp16 with a scaler, nshb": (*BASE, SILENT, "optimizer=nshb", "engine.precision=fp16"),
    "adamw": (*BASE, SILENT, "optimizer=adamw"),
    "images read by workers": (
        *BASE,
        SILENT,
        "dataset=imagenet",
        "dataset.classes=3",
        "dataset.image_size=12",
        "dataset.samples=60",
        "dataset.workers=2",
    ),
    "W&B": BASE,
}


@dataclass(frozen=True)
class Outcome:
    """What a finished run left."""

    records: list[dict[str, Any]]
    state: dict[str, Any]


def outcome(place: Path = Path()) -> Outcome:
    """What the run in a place has; it must have finished."""
    folder = run_folder(place)
    assert status(folder)["state"] == "finished"
    state = checkpoint.load(folder / "checkpoint.pt", folder.name)
    return Outcome(records(folder), state)


def assert_same(actual: Outcome, expected: Outcome) -> None:
    """Records without timings equal; parameters, momentum and scaler equal to the bit."""
    assert actual.records == expected.records
    assert [row["epoch"] for row in actual.records] == list(range(1, len(actual.records) + 1))
    for part in ("model", "optimizer", "scaler"):
        assert_equal(actual.state[part], expected.state[part])


def words(kind: str) -> tuple[str, ...]:
    """What a user types for the run of a kind."""
    return *KINDS[kind], *((f"data_dir={_images()}",) if "dataset=imagenet" in KINDS[kind] else ())


@cache
def _images() -> Path:
    """A small ImageNet."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    write_images(Path(folder.name) / "imagenet", 2)
    return Path(folder.name)


def start(
    place: Path, kind: str, death: Death | None = None, alarm: float = 0.0, number: int = 9
) -> Ended:
    """Start, or continue, the run of a kind in a place, and wait for its end."""
    return forge.run(*words(kind), folder=place, death=death, alarm=alarm, alarm_signal=number)


@cache
def undisturbed(kind: str) -> Outcome:
    """What the run of a kind ends with."""
    return outcome(finished(*words(kind)))


def assert_continues(place: Path, kind: str) -> None:
    """The same command ends the run, and everything in it is as if nothing had happened."""
    process = start(place, kind)
    assert (process.returncode, process.stderr) == (0, ""), process
    assert_whole(place, kind)


def assert_whole(place: Path, kind: str) -> None:
    """A finished run: records, parameters, momentum, scaler to the bit; nothing lies about."""
    assert_same(outcome(place), undisturbed(kind))
    assert not list(run_folder(place).glob(".*.partial"))
    if kind == "W&B":
        folders = (place / "runs" / "wandb").glob("offline-run-*")
        epochs = [row["epoch"] for folder in folders for row in history(folder)]
        assert len(set(epochs)) == len(epochs), "each at most once; `igo sync` sends the record"
