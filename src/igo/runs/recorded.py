"""The record of a training: run folder, logger and terminal, on rank 0 and on the other ranks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from igo.ground.errors import UserError
from igo.ground.files import Record
from igo.runs import assemble, checkpoint, loggers, manifest
from igo.runs.folder import RunFolder, digests
from igo.runs.loggers import Logger
from igo.runs.stopping import Stopped
from igo.runs.terminal import ProgressBar, Terminal
from igo.train import threads
from igo.train.state import Progress, Training


@dataclass(frozen=True)
class Recording:
    """The arguments of ``loop.train`` that keep the record; see there."""

    progress: Progress
    bar: ProgressBar
    epoch_done: Callable[[Record], None]


@contextmanager
def record(training: Training, folder: RunFolder, terminal: Terminal) -> Iterator[Recording]:
    """Keep the record of the training in the body, on rank 0.

    Raises:
        Stopped: a signal stopped the run.
    """
    config = training.config
    with folder.held():
        if config.fresh:
            with folder.writing():
                folder.start_over()
        progress = _resume(folder, training, terminal)
        threads.settle(training, progress, terminal.say)
        _begin_record(folder, training, progress, terminal)
        with _recorded_end(folder) as opened:
            logger = loggers.start(config, folder, progress.records, terminal.warn)
            opened.append(logger)

            def epoch_done(epoch: Record) -> None:
                state = assemble.state_of(folder.path.name, training, progress)
                with folder.writing():
                    folder.append(epoch)
                    checkpoint.save(folder.checkpoint, {**state, "metrics": folder.mark()})
                logger.log(epoch, epoch["epoch"])

            with terminal.progress(training.plan, progress.epoch) as bar:
                yield Recording(progress, bar, epoch_done)


@contextmanager
def follow(training: Training, folder: RunFolder, terminal: Terminal) -> Iterator[Recording]:
    """As ``record``, on the other ranks: they get rank 0's state and write nothing."""
    progress, _ = assemble.load(folder.checkpoint, folder.path.name, training, terminal.warn)
    with terminal.progress(training.plan) as bar:
        yield Recording(progress or Progress(), bar, lambda _: None)


def _begin_record(
    folder: RunFolder, training: Training, progress: Progress, terminal: Terminal
) -> None:
    """Write what is known before the next epoch. Warn if earlier epochs had another manifest."""
    before, here = folder.status(), manifest.of_training(training)
    entries: Record = {}
    if progress.epoch:
        other = [manifest.other_code(before), manifest.other_machine(before, here)]
        if any(other):
            terminal.warn(f"the run began under {'; '.join(filter(None, other))}")
            kept = ("commit", "code", "versions", "hardware")
            part = {name: before.get(name) for name in kept}
            earlier = before.get("earlier") or []
            entries["earlier"] = [*earlier, {"epochs": progress.epoch, **part}]
    with folder.writing():
        folder.write_plan(training.plan)
        folder.begin_records(progress.records)
        folder.begin_status(state="running", started=manifest.now(), **here, **entries)


def _resume(folder: RunFolder, training: Training, terminal: Terminal) -> Progress:
    """Bring the run to its last complete epoch."""
    damaged: list[str] = []
    progress, state = assemble.load(folder.checkpoint, folder.path.name, training, damaged.append)
    for warning in damaged:
        terminal.warn(warning)
    if progress:
        progress.records = folder.records_until(state["metrics"])
        if not folder.status():
            lost = folder.path / "status.json"
            terminal.warn(f"{lost} is damaged or missing: data, plan and code were not compared")
    if damaged:
        with folder.writing():
            checkpoint.set_aside(folder.checkpoint)
    if progress is None:
        if damaged:
            terminal.warn("no whole checkpoint is left: the run starts over")
        return Progress()
    terminal.say(f"continuing after epoch {progress.epoch} of {training.plan.epochs}")
    return progress


@contextmanager
def _recorded_end(folder: RunFolder) -> Iterator[list[Logger]]:
    """Write into status.json and to the logger how the run ended, whatever ended it.

    Yields:
        An empty list, which takes the logger once it is open.
    """
    started = time.perf_counter()
    spent = float(folder.status().get("seconds", 0))
    opened: list[Logger] = []

    def times() -> dict[str, Any]:
        return {"ended": manifest.now(), "seconds": round(spent + time.perf_counter() - started, 3)}

    def close(exit_code: int) -> None:
        for logger in opened:
            logger.close(exit_code)

    try:
        yield opened
        close(0)  # first: once status.json says "finished", no start sends W&B the last rows
    except Stopped as stop:
        with contextlib.suppress(UserError), folder.writing():  # the signal ends it anyway
            folder.update_status(state="interrupted", signal=stop.signal_name, **times())
        with contextlib.suppress(Exception):
            close(int(stop.code or 1))
        raise
    except BaseException as error:
        with contextlib.suppress(UserError):  # such as a full disk, which may be the error itself
            folder.write_failure(error, **times())
        with contextlib.suppress(Exception):  # the run's own error is raised instead
            close(1)
        raise
    with folder.writing():
        folder.update_status(state="finished", sha256=digests(folder.path), **times())
