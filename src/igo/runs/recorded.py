"""A training and its record: run folder, logger and terminal. Rank 0 alone writes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from igo.config.schema import Config
from igo.ground.errors import UserError
from igo.ground.files import Record
from igo.ground.ranks import Ranks
from igo.method.plan import Plan
from igo.runs import assemble, checkpoint, loggers, manifest
from igo.runs.folder import RunFolder
from igo.runs.stopping import Stopped, signals
from igo.runs.terminal import Terminal
from igo.train import datasets, loop, threads
from igo.train.state import Progress, Training


def train(config: Config, plan: Plan, folder: RunFolder, terminal: Terminal, ranks: Ranks) -> None:
    """Put a run together, and train it from its last complete epoch to its end.

    Raises:
        Stopped: a signal stopped the run.
    """
    datasets.resize_once(config, terminal.counting)  # long: signals end it at once
    with signals(ranks) as check_stop:
        if ranks.first:
            loggers.check(config)
        training = assemble.prepare(config, plan, ranks)
        terminal.say(f"run {folder.path}")  # now that it can begin
        if training.engine.note:
            terminal.warn(training.engine.note)
        terminal.show_plan(config, plan)
        parts = training.engine.micro_batch_size
        if ranks.size > 1 and training.engine.device.type == "cpu":
            terminal.say("on CPUs BatchNorm has the statistics of each process's share of a batch")
        if parts < max(stage.b_m for stage in plan.stages):
            terminal.say(f"larger batches go through the model in parts of at most {parts}")
        if ranks.first:
            with folder.held():
                _train_recorded(training, folder, terminal, check_stop)
        else:  # it gets rank 0's state, and writes nothing
            progress = assemble.load(folder.checkpoint, folder.path.name, training)
            with terminal.progress(plan) as bar:
                loop.train(training, progress or Progress(), bar, lambda _: None, check_stop)


def _train_recorded(
    training: Training, folder: RunFolder, terminal: Terminal, check_stop: Callable[[], None]
) -> None:
    """Train, and write into status.json and to the logger how it ended, whatever ended it."""
    config = training.config
    if config.fresh:
        with folder.writing():
            folder.start_over()
    progress = _resume(folder, training, terminal)
    threads.settle(training, progress, terminal.say)
    here = manifest.of_training(training)
    if progress.epoch and (other := manifest.differences(folder.status(), here["hardware"])):
        terminal.warn(f"the run began under {other}")
    with folder.writing():
        folder.write_plan(training.plan)
        folder.begin_records(progress.records)
        earlier = manifest.earlier(folder.status(), progress.epoch)
        folder.begin_status(
            state="running", started=manifest.now(), after_epoch=progress.epoch, **here,
            earlier=earlier,
        )  # fmt: skip
    started, spent = time.perf_counter(), float(folder.status().get("seconds", 0))
    logger = loggers.Logger()

    def epoch_done(epoch: Record) -> None:
        with folder.writing():
            folder.append(epoch)
            state = assemble.state_of(folder.path.name, training, progress)
            checkpoint.save(folder.checkpoint, state)
        logger.log(epoch, epoch["epoch"])

    def times() -> Record:
        return {"ended": manifest.now(), "seconds": round(spent + time.perf_counter() - started, 3)}

    try:
        logger = loggers.start(config, folder, progress.records, terminal.warn)
        with terminal.progress(training.plan, progress.epoch) as bar:
            loop.train(training, progress, bar, epoch_done, check_stop)
        logger.close()  # first: once status.json says "finished", no start sends W&B the last rows
    except BaseException as error:
        with contextlib.suppress(UserError):  # such as a full disk, which may be the error itself
            folder.write_failure(error, **times())
        with contextlib.suppress(Exception):  # the run's own error is raised instead
            logger.close(int(error.code or 1) if isinstance(error, Stopped) else 1)
        raise
    with folder.writing():
        folder.update_status(state="finished", **times())


def _resume(folder: RunFolder, training: Training, terminal: Terminal) -> Progress:
    """Bring the run to its last complete epoch."""
    progress = assemble.load(folder.checkpoint, folder.path.name, training)
    if progress is None:
        return Progress()
    progress.records = folder.records_until(progress.epoch)
    if not folder.status():
        lost = folder.path / "status.json"
        terminal.warn(f"{lost} is damaged or missing: data, plan and code were not compared")
    terminal.say(f"continuing after epoch {progress.epoch} of {training.plan.epochs}")
    return progress
