"""The recording of a run: a training is continued from its checkpoint, and each epoch is written.

With several processes rank 0 alone reads and writes files.
"""

import copy
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

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
    """The checkpoint of a run, which ``resume`` reads: with it a run goes on to the same bits.

    Its tensors are the training's own, not copies: the next update changes them. Random streams
    have no state in it, because they depend on seed and epoch alone, see igo.ground.seeds.

    Args:
        signature: the run's name.
        training: the training, after its last complete epoch.
        progress: its progress. The records are left out, because metrics.jsonl has them.
    """
    return {
        "signature": signature,
        "model": training.network.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "scaler": training.engine.scaler.state_dict(),
        "progress": asdict(replace(progress, records=[])),
    }


def resume(folder: RunFolder, training: Training) -> Progress:
    """Bring a training to the checkpoint of its run; without a checkpoint it stays as it is.

    Every rank calls this. Rank 0 alone reads the folder, which the others may not see, and sends
    them the checkpoint.

    Returns:
        The progress of the run, without its records: epoch 0 where there is no checkpoint.

    Raises:
        UserError: the run has other data or another plan than the training.
    """
    state, ranks = None, training.engine.ranks
    if ranks.first:
        state = checkpoint.load(folder.checkpoint, folder.path.name)
    if state:
        manifest.check_same_data(folder, training.identity)
        manifest.check_same_plan(folder, training.plan, training.config)
    state = ranks.broadcast(state)
    if state is None:
        return Progress()
    with checkpoint.fitting(folder.checkpoint):
        training.network.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.schedule.load_state_dict(state["schedule"])
        if state["scaler"]:  # It is empty if the run was in fp32 or bf16, which need no scaling.
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
            terminal.say(
                f"larger batches go through the model in parts of at most {engine.micro_batch_size}"
            )
        if ranks.first:
            with folder.held(fresh=config.fresh):
                _train_held(training, folder, terminal, check_stop)
        else:  # The progress is what rank 0 reads, and this rank writes nothing.
            progress = resume(folder, training)
            with terminal.progress(plan) as bar:
                loop.train(training, progress, bar, lambda _: None, check_stop)


def _begin(training: Training, folder: RunFolder, terminal: Terminal) -> Progress:
    """Bring the run to its last complete epoch, and write what this start begins with.

    Returns:
        The progress up to that epoch, with its records.
    """
    config, plan = training.config, training.plan
    status = folder.status()  # It is that of the start before, until it is replaced below.
    progress = resume(folder, training)
    if progress.epoch:
        progress.records = read_records(folder.path, progress.epoch)
        terminal.say(f"continuing after epoch {progress.epoch} of {plan.epochs}")
    machine.keep_threads(training, progress, terminal.say)
    # The number of threads, which the line above has set, is a part of these facts.
    hardware = machine.hardware(training.engine)
    if progress.epoch:  # At the first epoch nothing depends on an earlier start.
        differences = manifest.differences(status, config, hardware)
        if not status:
            file = folder.path / "status.json"
            terminal.warn(f"{file} is missing: data, plan, code and records were not compared")
        if differences:
            terminal.warn(f"the run began under {differences}")
    with folder.writing():
        # The status goes first, and has no seals: if this start is killed when some of the files
        # are written anew, the next start refuses none of them.
        folder.begin_status(
            state="running",
            started=manifest.now(),
            after_epoch=progress.epoch,
            **manifest.of_start(config, plan, training.identity, hardware),
            earlier=manifest.earlier(status, progress.epoch),
        )
        folder.write_plan(config, plan)
        changes = manifest.changes()
        if changes:  # Starts of other code leave files of other names.
            replace_all({folder.path / f"changes-{manifest.code()}.patch": changes})
        folder.write_records(progress.records)
    return progress


@dataclass
class _Epochs:
    """Brings the epochs of a run into its folder and to its logger.

    The first epoch is written when it is done, and a later one when checkpoint_seconds have passed
    since the last write. The end of the run calls ``write`` for the rest.
    """

    training: Training
    folder: RunFolder
    progress: Progress
    logged_epoch: int  # the last whose record the logger has
    # This logger does nothing, until the run's own starts.
    logger: loggers.Logger = field(default_factory=loggers.Logger)
    write_time: float = -math.inf  # of time.monotonic; this one lets the first epoch be written
    state: Record = field(default_factory=dict)  # the newest checkpoint; empty once it is written

    def done(self, _: Record) -> None:
        """Take the epoch that the progress has reached, and write it unless that can wait.

        The argument, its record, is in the progress, too.
        """
        self.state = snapshot(self.folder.path.name, self.training, self.progress)
        if time.monotonic() - self.write_time >= self.training.config.checkpoint_seconds:
            self.write()
        else:  # The checkpoint stays in memory, and the next update changes the training's tensors.
            self.state = copy.deepcopy(self.state)

    def write(self) -> None:
        """Write the epochs that are not written yet, and then log them.

        The checkpoint comes after the records, so that it never lacks one of them. The logger comes
        last, so that it has no row that the folder lacks.
        """
        if not self.state:
            return
        with self.folder.writing():
            self.folder.write_records(self.progress.records)
            checkpoint.save(self.folder.checkpoint, self.state)
        self.state, self.write_time = {}, time.monotonic()
        for record in self.progress.records[self.logged_epoch :]:
            self.logger.log(record, record["epoch"])
        self.logged_epoch = self.progress.epoch


def _train_held(
    training: Training, folder: RunFolder, terminal: Terminal, check_stop: Callable[[], None]
) -> None:
    """Continue the run, whose folder this process holds, to its end, and record each epoch.

    Whatever ends the training, status.json and the logger get to know how it ended.
    """
    progress = _begin(training, folder, terminal)
    records = progress.records  # The training appends to this list.
    epochs = _Epochs(training, folder, progress, logged_epoch=progress.epoch)
    # The run's seconds go on from those that its earlier starts recorded.
    start = time.perf_counter() - sum(record.get("seconds") or 0.0 for record in records)

    def times() -> Record:  # These are the times of the run's end, when that has come.
        return {"ended": manifest.now(), "seconds": round(time.perf_counter() - start, 3)}

    try:
        epochs.logger = loggers.Guarded(training.config, folder, records, terminal.warn)
        if epochs.logger.address:
            terminal.say(f"{training.config.tracking.tool} {epochs.logger.address}")
        with terminal.progress(training.plan) as bar:
            loop.train(training, progress, bar, epochs.done, check_stop)
        epochs.write()
        epochs.logger.close()  # A run that is called finished logs no more rows.
    except BaseException as error:
        # W&B shows the exit code of the process: after a signal it is the shell's.
        code = int(error.code or 1) if isinstance(error, Stopped) else 1
        # What took longest comes first: the trained epochs, then the reason, then the logger. Each
        # may fail, because the error may itself be a full disk. The run's error is raised.
        with suppress(Exception):
            epochs.write()
        with suppress(Exception):
            folder.write_failure(error, **times())
        with suppress(Exception):
            epochs.logger.close(code)
        raise
    with folder.writing():
        folder.update_status(state="finished", **times())
