"""One run from its configuration to its finished record: plan, data, model, loop, folder, W&B."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igo.config.plan import make_plan
from igo.config.schema import Config
from igo.errors import first_line
from igo.files import Record, check_can_be_made
from igo.method.plan import Plan
from igo.ranks import Ranks
from igo.runs import same_data
from igo.runs.folder import RunFolder, last_record, read_records
from igo.runs.provenance import code, commit, now, provenance
from igo.runs.stopping import Stopped, signals
from igo.runs.terminal import Terminal
from igo.words import counted

if TYPE_CHECKING:
    from igo.runs.tracking import Tracker
    from igo.train.state import Progress, Training


def run(config: Config, terminal: Terminal | None = None) -> Path:
    """Train, continue or skip the run that the configuration describes; return its folder.

    Of several processes that torchrun or srun started, each trains its share of every batch, and
    rank 0 has the record, W&B and the terminal.

    Raises:
        UserError: something that the user can mend, before any compute where it can be known then.
        Stopped: the process was told to end; the same command continues.
    """
    own = Ranks.of_environment()
    terminal = terminal or Terminal(quiet=not own.first)
    plan = make_plan(config)
    folder = RunFolder(config)
    if config.dry_run:
        check_can_be_made(folder.path)
        terminal.say(f"run {folder.path}")
        terminal.show_plan(config, plan)
        return folder.path
    how = "finished"
    try:
        with own.joined() as ranks:
            begun = ranks.first and not config.fresh
            if begun:
                folder.check_plan(plan)
            finished = begun and _is_finished(config, folder, plan, terminal)
            if ranks.broadcast(finished):
                how = f"finished before{_other_code(folder)}; fresh=true runs it again"
                if ranks.first:
                    _tell_sweep(config, folder, terminal)
            else:
                with signals(ranks) as check_stop:
                    _train(config, plan, folder, terminal, check_stop, ranks)
    except Stopped as stop:
        typed = " without fresh=true" if config.fresh else ""
        left = "" if _ended(folder) else f"; the same command{typed} continues"
        terminal.say(f"stopped by {stop.signal_name}{left}")
        terminal.say(f"run {folder.path}")
        raise
    if ranks.first:
        if config.save_model:
            _export(config, folder)
        _report(terminal, folder, how)
    return folder.path


def _ended(folder: RunFolder) -> bool:
    return folder.status().get("state") == "finished"


def _is_finished(config: Config, folder: RunFolder, plan: Plan, terminal: Terminal) -> bool:
    """Whether there is nothing left to do; a damaged file of a finished run is written again."""
    if not _ended(folder):
        return False
    same_data.Comparison(terminal.warn).finished(folder.path, config)
    damaged = folder.damaged()
    if not damaged and last_record(folder.path).get("epoch") != plan.epochs:  # of old versions
        damaged = ["metrics.jsonl"]
    for name in damaged:
        terminal.warn(f"{folder.path / name} is damaged or missing: it is written again")
    if "metrics.jsonl" in damaged:  # a checkpoint has the records
        return False
    if damaged:
        with folder.held(), folder.writing():
            folder.write_plan(plan)
            folder.update_status(sha256=folder.digests())
    return True


def _tell_sweep(config: Config, folder: RunFolder, terminal: Terminal) -> None:
    """Under `wandb agent`, send its W&B run the record of before: a sweep knows nothing else."""
    from igo.runs import tracking

    if tracking.sweep_run():
        tracking.check_login(config.tracking)
        with folder.held():
            tracking.start(config, folder, read_records(folder.path), terminal.warn).finish(0)


def _train(
    config: Config,
    plan: Plan,
    folder: RunFolder,
    terminal: Terminal,
    check_stop: Callable[[], None],
    ranks: Ranks,
) -> None:
    from igo.runs import assemble, tracking
    from igo.train import loop  # torch; a dry run answers without
    from igo.train.state import Progress

    if ranks.first:
        check_can_be_made(folder.path)
        tracking.check_login(config.tracking)
    training = assemble.prepare(config, plan, ranks)
    terminal.say(f"run {folder.path}")  # now that it can begin
    if training.engine.note:
        terminal.warn(training.engine.note)
    terminal.show_plan(config, plan, folder.path / "plan.csv")
    parts = training.engine.micro_batch_size
    if parts < max(stage.b_m for stage in plan.stages):
        terminal.say(f"larger batches go through the model in parts of at most {parts}")
    if ranks.first:
        _train_recorded(training, folder, terminal, check_stop)
        return
    progress, _ = assemble.load(folder.checkpoint, folder.path.name, training, terminal.warn)
    with terminal.progress(plan) as bar:
        loop.train(training, progress or Progress(), bar, lambda _: None, check_stop)


def _train_recorded(
    training: Training, folder: RunFolder, terminal: Terminal, check_stop: Callable[[], None]
) -> None:
    """Train, and keep the record: rank 0's part."""
    from igo.runs import assemble, background, checkpoint, tracking
    from igo.train import loop, recovery

    config = training.config
    with folder.held():
        if config.fresh:
            with folder.writing():
                folder.start_over()
        progress = _resume(folder, training, terminal)
        hardware = _begin_record(folder, training, progress)
        with _recorded_end(folder) as tracked:
            tracker = tracking.start(config, folder, progress.records, terminal.warn)
            tracked.append(tracker)

            def epoch_done(record: Record) -> None:
                wandb_id = folder.status().get("wandb_id")
                state = assemble.state_of(folder.path.name, wandb_id, training, progress)
                told = _graphs(training)

                def write() -> None:
                    with folder.writing():
                        folder.append_record(record)
                        checkpoint.save(folder.checkpoint, state)
                        if told and told != folder.status().get("graphs"):
                            folder.update_status(graphs=told)
                    tracker.log(record)

                writer.do(write)

            def shrunk(tried: int, fits: int) -> None:
                writer.wait()  # it writes status.json, too
                terminal.warn(recovery.describe(training.network, tried, fits))
                with folder.writing():
                    folder.update_status(hardware={**hardware, "micro_batch_size": fits})

            beside = background.wanted(config.engine.background, training.engine.device.type)
            with (
                background.writer(beside) as writer,
                terminal.progress(training.plan, progress.epoch) as bar,
            ):
                loop.train(training, progress, bar, epoch_done, check_stop, shrunk)
            if config.tracking.artifact:
                tracker.attach(_export(config, folder))


def _begin_record(folder: RunFolder, training: Training, progress: Progress) -> dict[str, Any]:
    """Write what is known before the next epoch; return the hardware, as it is told."""
    from igo.train import engine

    hardware = engine.hardware(training.engine)
    if progress.micro_batch_size:
        hardware["micro_batch_size"] = progress.micro_batch_size
    data = asdict(training.identity) if training.identity else None
    with folder.writing():
        folder.write_plan(training.plan)
        folder.write_records(progress.records)
        entries = {**provenance(), "hardware": hardware, "data": data}
        folder.begin_status(state="running", started=now(), **entries)
    return hardware


def _graphs(training: Training) -> dict[str, str]:
    """What became of the CUDA graph of each size of batches so far, for status.json."""
    graphs = training.engine.graphs
    return {} if graphs is None else {str(size): what for size, what in graphs.told.items()}


def _export(config: Config, folder: RunFolder) -> Path:
    from igo.runs import trained

    with folder.writing():
        return trained.export(folder.path, config)


def _resume(folder: RunFolder, training: Training, terminal: Terminal) -> Progress:
    """Bring the run to its last complete epoch, and say so."""
    from igo.runs import assemble, checkpoint
    from igo.train.state import Progress

    damaged: list[str] = []
    progress, wandb_id = assemble.load(
        folder.checkpoint, folder.path.name, training, damaged.append
    )
    for one in damaged:
        terminal.warn(one)
    with folder.writing():
        if damaged and progress:
            checkpoint.set_aside(folder.checkpoint)
        if wandb_id and not folder.status().get("wandb_id"):
            folder.update_status(wandb_id=wandb_id)
    if progress is None:
        if folder.checkpoint.exists():
            terminal.warn("no whole checkpoint is left: the run starts over")
        return Progress()
    terminal.say(f"continuing after epoch {progress.epoch} of {training.plan.epochs}")
    return progress


@contextmanager
def _recorded_end(folder: RunFolder) -> Iterator[list[Tracker]]:
    """Whatever ends the run, status.json and W&B say how it ended.

    Yields:
        An empty list, for the tracker as soon as there is one.
    """
    started = time.perf_counter()
    spent = float(folder.status().get("seconds", 0))

    tracked: list[Tracker] = []

    def end(state: str, **more: Any) -> None:
        seconds = round(spent + time.perf_counter() - started, 3)
        folder.update_status(state=state, ended=now(), seconds=seconds, **more)

    def finish(exit_code: int) -> None:
        for tracker in tracked:
            tracker.finish(exit_code)

    try:
        yield tracked
        finish(0)  # before "finished", after which no start would bring the last rows into W&B
    except Stopped as stop:
        with contextlib.suppress(OSError):  # the signal ends it, whatever can be written
            end("interrupted", signal=stop.signal_name)
        with contextlib.suppress(Exception):
            finish(int(stop.code or 1))
        raise
    except BaseException as error:
        with contextlib.suppress(OSError):  # as on a full disk, which may be this error itself
            folder.write_error(traceback.format_exc())
            end("failed", error=first_line(error))
        with contextlib.suppress(Exception):  # the run's error is the one to tell
            finish(1)
        raise
    with folder.writing():
        end("finished", sha256=folder.digests())


def _other_code(folder: RunFolder) -> str:
    """Of a finished run, that the code has changed since, where it has."""
    status = folder.status()
    if status.get("code") in (None, code()):
        return ""
    return f" with other code (commit {_short(status.get('commit'))}, now {_short(commit())})"


def _short(commit: str | None) -> str:
    return "unknown" if commit is None else f"{commit[:10]}{'+changes' * ('+' in commit)}"


def _report(terminal: Terminal, folder: RunFolder, how: str) -> None:
    records = read_records(folder.path)
    tested = (record["test/accuracy"] for record in records)
    accuracies = [accuracy for accuracy in tested if accuracy is not None]
    validation = records[-1].get("validation/accuracy")
    more = "" if validation is None else f"; validation accuracy {validation:.2%}"
    terminal.say(f"{how}: test accuracy {accuracies[-1]:.2%}, best {max(accuracies):.2%}{more}")
    skipped = sum(record.get("skipped") or 0 for record in records)
    if skipped:
        of = f"{skipped:,} of {counted(records[-1]['updates'] + skipped, 'update')}"
        terminal.say(f"skipped: {of}, as their loss or gradient was not finite")
    if records[-1]["test/loss"] is None:
        terminal.warn(
            "the test loss is not a number: the model's outputs are not finite, so that its"
            " accuracy means nothing; a smaller learning_rate may help"
        )
    terminal.say(f"run {folder.path}")
