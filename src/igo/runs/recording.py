"""The recording of a run: a training is continued from its checkpoint, and each epoch is written.

With several processes rank 0 alone reads and writes files.
"""

import contextlib
import copy
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from igo.config.schema import Config
from igo.ground.files import Record, replace_all
from igo.ground.ranks import Ranks
from igo.plans.plan import Plan
from igo.runs import checkpoint, loggers, manifest
from igo.runs.folder import RunFolder, read_records
from igo.runs.stopping import Stopped, signals
from igo.runs.terminal import Terminal
from igo.train import loop, machine
from igo.train.assembly import assembled
from igo.train.training import Progress, Training


def snapshot(signature: str, training: Training, progress: Progress) -> Record:
    """The checkpoint: all that a bit-identical resume needs. Its tensors are those of the training.

    Random streams need no state, see igo.ground.seeds.
    """
    return {
        "signature": signature,
        "model": training.network.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "scaler": training.engine.scaler.state_dict(),
        "progress": asdict(replace(progress, records=[])),  # metrics.jsonl has the records.
    }


def resume(path: Path, signature: str, training: Training, status: Record) -> Progress | None:
    """Bring a training to its checkpoint. Only rank 0 reads the file, and needs the run's status.

    The data in the status, and the plan of the checkpoint, must be those of the training.

    Returns:
        The run's progress without its records, None where there is no checkpoint.
    """
    ranks = training.engine.ranks
    # The others may be on machines that do not see the file.
    state = checkpoint.load(path, signature) if ranks.first else None
    if state:
        manifest.check_data(path.parent, status, training.identity)
    state = ranks.broadcast(state)
    if state is None:
        return None
    with checkpoint.fitting(path):
        training.network.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
        if not training.plan.is_that_of(state["schedule"]):
            raise manifest.another_plan(path.parent, status, training.config)
        training.schedule.load_state_dict(state["schedule"])
        if state["scaler"]:  # It is empty where the device needed no scaling.
            training.engine.scaler.load_state_dict(state["scaler"])
        return Progress.of_state(state["progress"])


def train_recorded(
    config: Config, plan: Plan, folder: RunFolder, terminal: Terminal, ranks: Ranks
) -> None:
    """Put a run together, and train it from its last complete epoch to its end.

    Raises:
        Stopped: a signal stopped the run.
    """
    with signals(ranks) as check_stop:
        if ranks.first:
            loggers.check(config)
        training = assembled(config, plan, ranks)
        engine = training.engine
        terminal.say(f"run {folder.path}")
        if engine.note:
            terminal.warn(engine.note)
        terminal.show_plan(config, plan)
        if ranks.size > 1 and engine.device.type == "cpu":
            terminal.say("on CPUs BatchNorm has the statistics of each process's share of a batch")
        if engine.micro_batch_size < max(row.b_m for row in plan.rows):
            size = engine.micro_batch_size
            terminal.say(f"larger batches go through the model in parts of at most {size}")
        with (
            _recorded(training, folder, terminal) as epochs,
            terminal.progress(plan, epochs.progress.epoch) as bar,
        ):
            loop.train(training, epochs.progress, bar, epochs.done, check_stop)


def _begin(training: Training, folder: RunFolder, terminal: Terminal) -> Progress:
    """Bring the run to its last complete epoch, and write what this start begins with."""
    if training.config.fresh:
        with folder.writing():
            folder.start_over()
    status = folder.status()
    progress = resume(folder.checkpoint, folder.path.name, training, status) or Progress()
    if progress.epoch:
        progress.records = read_records(folder.path, progress.epoch)
        terminal.say(f"continuing after epoch {progress.epoch} of {training.plan.epochs}")
    machine.keep_threads(training, progress, terminal.say)
    facts = manifest.of_training(training)
    if progress.epoch:  # At the first epoch nothing depends on an earlier start.
        differences = manifest.differences(status, training.config, facts["hardware"])
        if not status:
            file = folder.path / "status.json"
            terminal.warn(f"{file} is missing: data, plan, code and records were not compared")
        if differences:
            terminal.warn(f"the run began under {differences}")
    earlier = manifest.earlier(status, progress.epoch)
    entries = {"started": manifest.now(), "after_epoch": progress.epoch, **facts}
    with folder.writing():
        # This takes back the seals of all that is written anew.
        folder.begin_status(state="running", **entries, earlier=earlier)
        folder.write_plan(training.config, training.plan)
        if diff := manifest.changes():  # Starts of other code leave files of other names.
            replace_all({folder.path / f"changes-{facts['code']}.patch": diff})
        folder.write_records(progress.records)
    return progress


class _Epochs:
    """Brings a run's epochs into its folder and to its logger, at most every checkpoint_seconds."""

    def __init__(self, training: Training, folder: RunFolder, progress: Progress) -> None:
        self.progress, self._training, self._folder = progress, training, folder
        self.logger = loggers.Logger()
        self._logged_epoch, self._write_time = progress.epoch, -math.inf
        self._state: Record = {}  # The checkpoint of the last epoch; empty once it is written

    def done(self, _: Record) -> None:
        """Take the epoch that the progress has reached: write it now, or keep it for ``write``.

        The first and the last are written.
        """
        if not self._training.engine.ranks.first:
            return
        self._state = snapshot(self._folder.path.name, self._training, self.progress)
        seconds = time.monotonic() - self._write_time
        is_last = self.progress.epoch == self._training.plan.epochs
        if is_last or seconds >= self._training.config.checkpoint_seconds:
            self.write()
        else:
            self._state = copy.deepcopy(self._state)  # The next update changes its tensors.

    def write(self) -> None:
        """Write the epochs that are not written yet."""
        if not self._state:
            return
        with self._folder.writing():
            self._folder.write_records(self.progress.records)
            checkpoint.save(self._folder.checkpoint, self._state)
        self._state, self._write_time = {}, time.monotonic()
        for record in self.progress.records[self._logged_epoch :]:
            self.logger.log(record, record["epoch"])
        self._logged_epoch = self.progress.epoch


@contextlib.contextmanager
def _recorded(training: Training, folder: RunFolder, terminal: Terminal) -> Iterator[_Epochs]:
    """Bring the run to its last complete epoch for the body, which trains the rest.

    Whatever ends the body, status.json and the logger get to know how it ended.
    """
    if not training.engine.ranks.first:  # It gets rank 0's state, and writes nothing.
        progress = resume(folder.checkpoint, folder.path.name, training, {}) or Progress()
        yield _Epochs(training, folder, progress)
        return
    with folder.held():
        epochs = _Epochs(training, folder, _begin(training, folder, terminal))
        records = epochs.progress.records
        start = time.perf_counter() - sum(record.get("seconds") or 0.0 for record in records)

        def times() -> Record:
            return {"ended": manifest.now(), "seconds": round(time.perf_counter() - start, 3)}

        try:
            epochs.logger = loggers.start(training.config, folder, records, terminal.warn)
            if epochs.logger.address:
                terminal.say(f"{training.config.tracking.tool} {epochs.logger.address}")
            yield epochs
            epochs.logger.close()  # A run that is called finished logs no more rows.
        except BaseException as error:
            code = int(error.code or 1) if isinstance(error, Stopped) else 1
            fail = partial(folder.write_failure, error, **times())
            # What took longest comes first: the trained epochs, then the reason, then the logger.
            for step in (epochs.write, fail, partial(epochs.logger.close, code)):
                with contextlib.suppress(Exception):  # The disk may be full: it may be the error.
                    step()
            raise
        with folder.writing():
            folder.update_status(state="finished", **times())
