"""Start runs, disturb them, and hold what they end with against runs that nothing disturbed."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache
from pathlib import Path

from conftest import Ended, run_folder
from forked import Death, forge
from test_resume import BASE, KINDS, SILENT, Outcome, assert_same, outcome
from wandb_server import history

CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    **KINDS,
    "W&B": BASE,
    "small parts": (*BASE, SILENT, "engine.micro_batch_size=12", "schedule=linear"),
}


def start(
    place: Path, kind: str, death: Death | None = None, alarm: float = 0.0, number: int = 9
) -> Ended:
    """Start, or continue, a configuration's run in a place, and wait for its end."""
    arguments = CONFIGURATIONS[kind]
    return forge.run(place, *arguments, death=death, alarm=alarm, alarm_signal=number)


@cache
def undisturbed(kind: str) -> Outcome:
    """What the configuration's run ends with."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    ended = start(Path(folder.name), kind)
    assert (ended.returncode, ended.stderr) == (0, "")
    return outcome(Path(folder.name))


def assert_continues(place: Path, kind: str) -> None:
    """The same command ends the run, and everything in it is as if nothing had happened."""
    ended = start(place, kind)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    assert_whole(place, kind)


def assert_whole(place: Path, kind: str) -> None:
    """A finished run: records, parameters, momentum, scaler to the bit; nothing lies about."""
    assert_same(outcome(place), undisturbed(kind))
    assert not list(run_folder(place).glob(".*.partial"))
    if kind == "W&B":
        folders = (place / "runs" / "wandb").glob("offline-run-*")
        epochs = [row["epoch"] for folder in folders for row in history(folder)]
        assert len(set(epochs)) == len(epochs), "each at most once; `igo sync` sends the record"
