"""The record of a training: run folder, logger and terminal, on rank 0 and on the other ranks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from igo.ground.errors import UserError
from igo.ground.files import Record
from igo.runs import assemble, checkpoint, loggers, records, trained
from igo.runs.folder import RunFolder, digests
from igo.runs.loggers import Tracker
from igo.runs.provenance import now, provenance
from igo.runs.stopping import Stopped
from igo.runs.terminal import ProgressBar, Terminal
from igo.train import engine, threads
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
        _begin_record(folder, training, progress)
        with _recorded_end(folder) as trackers:
            tracker = loggers.start(config, folder, progress.records, terminal.warn)
            trackers.append(tracker)

            def epoch_done(epoch: Record) -> None:
                wandb_id = folder.status().get("wandb_id")
                state = assemble.state_of(folder.path.name, wandb_id, training, progress)
                with folder.writing():
                    folder.records.append(epoch)
                    mark = folder.records.mark()
                    checkpoint.save(folder.checkpoint, {**state, "metrics": mark})
                tracker.log(epoch)

            with terminal.progress(training.plan, progress.epoch) as bar:
                yield Recording(progress, bar, epoch_done)
            if config.tracking.artifact:
                tracker.attach(trained.export(folder, config))


@contextmanager
def follow(training: Training, folder: RunFolder, terminal: Terminal) -> Iterator[Recording]:
    """As ``record``, on the other ranks: they get rank 0's state and write nothing."""
    progress, _ = assemble.load(folder.checkpoint, folder.path.name, training, terminal.warn)
    with terminal.progress(training.plan) as bar:
        yield Recording(progress or Progress(), bar, lambda _: None)


def _begin_record(folder: RunFolder, training: Training, progress: Progress) -> None:
    """Write what is known before the next epoch."""
    hardware = engine.hardware(training.engine)
    data = asdict(training.identity) if training.identity else None
    with folder.writing():
        folder.write_plan(training.plan)
        folder.records.begin(progress.records)
        optimizer = training.config.optimizer
        law = {"delta": optimizer.formula, "why_null": optimizer.why_null}
        entries = {**provenance(), "hardware": hardware, "data": data, "noise_law": law}
        folder.begin_status(state="running", started=now(), **entries)


def _resume(folder: RunFolder, training: Training, terminal: Terminal) -> Progress:
    """Bring the run to its last complete epoch."""
    damaged: list[str] = []
    progress, state = assemble.load(folder.checkpoint, folder.path.name, training, damaged.append)
    for warning in damaged:
        terminal.warn(warning)
    wandb_id = state.get("wandb_id")
    if progress:
        progress.records = records.restore(folder.path, state["metrics"])
    with folder.writing():
        if damaged:
            checkpoint.set_aside(folder.checkpoint)
        if wandb_id and not folder.status().get("wandb_id"):
            folder.update_status(wandb_id=wandb_id)
    if progress is None:
        if damaged:
            terminal.warn("no whole checkpoint is left: the run starts over")
        return Progress()
    terminal.say(f"continuing after epoch {progress.epoch} of {training.plan.epochs}")
    return progress


@contextmanager
def _recorded_end(folder: RunFolder) -> Iterator[list[Tracker]]:
    """Write into status.json and to W&B how the run ended, whatever ended it.

    Yields:
        An empty list, which takes the tracker once it is open.
    """
    started = time.perf_counter()
    spent = float(folder.status().get("seconds", 0))
    trackers: list[Tracker] = []

    def times() -> dict[str, Any]:
        return {"ended": now(), "seconds": round(spent + time.perf_counter() - started, 3)}

    def finish(exit_code: int) -> None:
        for tracker in trackers:
            tracker.finish(exit_code)

    try:
        yield trackers
        finish(0)  # first: once status.json says "finished", no start sends W&B the last rows
    except Stopped as stop:
        with contextlib.suppress(UserError), folder.writing():  # the signal ends it anyway
            folder.update_status(state="interrupted", signal=stop.signal_name, **times())
        with contextlib.suppress(Exception):
            finish(int(stop.code or 1))
        raise
    except BaseException as error:
        with contextlib.suppress(UserError):  # such as a full disk, which may be the error itself
            folder.write_failure(error, **times())
        with contextlib.suppress(Exception):  # the run's own error is raised instead
            finish(1)
        raise
    with folder.writing():
        folder.update_status(state="finished", sha256=digests(folder.path), **times())
