"""A training and its record: run folder, logger and terminal. Rank 0 alone writes."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable
from typing import Any

from igo.config.schema import Config, place_of
from igo.data import folders
from igo.ground.errors import UserError
from igo.ground.files import Record
from igo.ground.ranks import Ranks
from igo.method.plan import Plan
from igo.runs import assemble, checkpoint, loggers, manifest
from igo.runs.folder import RunFolder
from igo.runs.stopping import Stopped, signals
from igo.runs.terminal import Terminal
from igo.train import datasets, loop, machine
from igo.train.record import Progress, Training


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
        place = place_of(config)
        if config.dataset.name == "folder" and folders.tests_in(place.root or place.data_dir)[1:]:
            terminal.say("epochs are evaluated on the images in val; those in test are not read")
        parts = training.engine.micro_batch_size
        if ranks.size > 1 and training.engine.device.type == "cpu":
            terminal.say("on CPUs BatchNorm has the statistics of each process's share of a batch")
        if parts < max(row.b_m for row in plan.rows):
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
    machine.settle_threads(training, progress, terminal.say)
    here = manifest.of_training(training)
    if progress.epoch and (other := manifest.differences(folder.status(), here["hardware"])):
        terminal.warn(f"the run began under {other}")
    with folder.writing():
        folder.write_plan(training.plan)
        folder.write_records(progress.records)
        earlier = manifest.earlier(folder.status(), progress.epoch)
        folder.begin_status(
            state="running", started=manifest.now(), after_epoch=progress.epoch, **here,
            earlier=earlier,
        )  # fmt: skip
    started, spent = time.perf_counter(), float(folder.status().get("seconds", 0))
    epochs = _Epochs(training, folder, progress)

    def times() -> Record:
        return {"ended": manifest.now(), "seconds": round(spent + time.perf_counter() - started, 3)}

    try:
        epochs.logger = loggers.start(config, folder, progress.records, terminal.warn)
        with terminal.progress(training.plan, progress.epoch) as bar:
            loop.train(training, progress, bar, epochs.done, check_stop)
        epochs.logger.close()  # first: a run that is called finished sends W&B no more rows
    except BaseException as error:
        with contextlib.suppress(Exception):  # such as a full disk, which may be the error itself
            epochs.write()
        with contextlib.suppress(UserError):
            folder.write_failure(error, **times())
        with contextlib.suppress(Exception):  # the run's own error is raised instead
            epochs.logger.close(int(error.code or 1) if isinstance(error, Stopped) else 1)
        raise
    with folder.writing():
        folder.update_status(state="finished", **times())


class _Epochs:
    """Brings a run's epochs into its folder and to its logger, at most every checkpoint_seconds."""

    def __init__(self, training: Training, folder: RunFolder, progress: Progress) -> None:
        self._training, self._folder, self._progress = training, folder, progress
        self.logger = loggers.Logger()
        self._logged, self._written = progress.epoch, -math.inf  # an epoch; when it was
        self._state: dict[str, Any] = {}  # after the last epoch, until it is written

    def done(self, _: Record) -> None:
        """Take the epoch that the progress has reached. The first and the last are written."""
        self._state = assemble.state_of(self._folder.path.name, self._training, self._progress)
        waited = time.monotonic() - self._written
        last = self._progress.epoch == self._training.plan.epochs
        if last or waited >= self._training.config.checkpoint_seconds:
            self.write()
        else:
            self._state = copy.deepcopy(self._state)  # the next update changes its tensors

    def write(self) -> None:
        """Write the epochs that are not written yet."""
        if not self._state:
            return
        with self._folder.writing():
            self._folder.write_records(self._progress.records)
            checkpoint.save(self._folder.checkpoint, self._state)
        self._state, self._written = {}, time.monotonic()
        for record in self._progress.records[self._logged :]:
            self.logger.log(record, record["epoch"])
        self._logged = self._progress.epoch


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
