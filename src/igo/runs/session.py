"""One run, from its configuration to its finished record."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from igo.config.load import load, read_config
from igo.config.plan import make_plan
from igo.config.schema import NO_EFFECT, Config, value_of
from igo.ground.errors import ConfigError, UserError
from igo.ground.files import check_can_be_made
from igo.ground.ranks import Ranks
from igo.method.plan import Plan
from igo.runs import loggers, manifest
from igo.runs.folder import RunFolder, check_unchanged, read_records, read_status
from igo.runs.stopping import Stopped, signals
from igo.runs.terminal import Terminal

if TYPE_CHECKING:  # torch
    from igo.runs.recorded import Recording
    from igo.train.state import Training

MOVABLE = tuple(name for name in NO_EFFECT if name != "runs_dir")


def continued(run: str, composed: DictConfig, typed: Collection[str]) -> Config:
    """The configuration with which ``igo train run=FOLDER`` continues a run.

    Args:
        run: the folder, as typed.
        composed: the configuration that Hydra composed from the command line.
        typed: full names of the typed settings, without ``run``.
    """
    composed = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "run"])
    folder = Path(run).resolve()
    for name in typed:
        if not {name, name.split(".")[0]} & {*MOVABLE} and name != "engine":
            allowed = "with run=… the settings are those of the run; leave it out"
            raise ConfigError(name, OmegaConf.select(composed, name), allowed)
    if not (folder / "config.yaml").is_file():
        raise ConfigError("run", run, "it must be a run folder, with a config.yaml")
    here = load(composed)
    try:
        config = read_config(folder / "config.yaml")
    except UserError as error:
        command = read_status(folder).get("command", "status.json does not say")
        raise UserError(f"{error}. The run began as: {command}") from None
    config.fresh = config.dry_run = False  # unless typed now
    # engine=… sets only the device: the group's other settings would make it another run
    for name in ("engine.device" if name == "engine" else name for name in typed):
        group, _, key = name.rpartition(".")
        setattr(value_of(config, group) if group else config, key, value_of(here, name))
    config.runs_dir = str(folder.parent)
    name = RunFolder(config).path.name
    if name != folder.name:
        raise UserError(
            f"run={run}: its config.yaml belongs to a run named {name}. The file was changed, or"
            " the folder renamed. Rename the folder, or train the changed settings as a new run"
        )
    return config


def run(config: Config, terminal: Terminal | None = None) -> Path:
    """Train, continue or skip the run that the configuration describes; return its folder.

    Each of several processes that torchrun or srun started trains its share of every batch. Rank 0
    alone writes the record, logs to W&B and prints.

    Raises:
        Stopped: a signal stopped the run; the same command continues it.
    """
    ranks = Ranks.of_environment()
    terminal = terminal or Terminal(quiet=not ranks.first)
    plan = make_plan(config)
    folder = RunFolder(config)
    outcome = "finished"
    try:
        with ranks.joined():
            # The folder's name is a digest of all settings that change the result.
            if len(set(ranks.gather((folder.path.name, manifest.code())))) > 1:
                raise UserError(
                    "the processes of this run differ in settings or code; start all with the same"
                    " command and code"
                )
            if config.dry_run:
                check_can_be_made(folder.path)
                terminal.say(f"run {folder.path}")
                terminal.show_plan(config, plan)
                return folder.path
            may_skip = ranks.first and not config.fresh
            finished = may_skip and _nothing_left(config, folder, plan, terminal)
            if ranks.broadcast(finished):
                other = manifest.other_code(folder.status())
                under = f" under {other}" if other else ""
                outcome = f"finished before{under}; fresh=true runs it again"
                if ranks.first:
                    _log_finished(config, folder, terminal)
            else:
                from igo.train import datasets, loop  # imports torch, which a dry run does not need

                datasets.resize_once(config, terminal.counting)  # long: signals end it at once
                with (
                    signals(ranks) as check_stop,
                    _recording(config, plan, folder, terminal, ranks) as (training, kept),
                ):
                    loop.train(training, kept.progress, kept.bar, kept.epoch_done, check_stop)
    except Stopped as stop:
        fresh = " without fresh=true" if config.fresh else ""
        hint = "" if _has_finished(folder) else f"; the same command{fresh} continues"
        terminal.say(f"stopped by {stop.signal_name}{hint}")
        terminal.say(f"run {folder.path}")
        raise
    if ranks.first:
        _conclude(config, folder, terminal, outcome)
    return folder.path


def _has_finished(folder: RunFolder) -> bool:
    return folder.status().get("state") == "finished"


def _nothing_left(config: Config, folder: RunFolder, plan: Plan, terminal: Terminal) -> bool:
    """Whether the run has finished, with this plan and the data that are here."""
    if not _has_finished(folder):
        return False
    status = folder.status()
    check_unchanged(folder.path, status)
    manifest.check_plan(folder.path, status, plan)
    manifest.Comparison(terminal.warn).finished(folder.path, status, config)
    return True


def _log_finished(config: Config, folder: RunFolder, terminal: Terminal) -> None:
    """Send a finished run's records to its logger, but to W&B only for a `wandb agent`."""
    if "WANDB_SWEEP_ID" in os.environ or config.tracking.tool not in ("wandb", "none"):
        loggers.check(config)
        with folder.held():
            loggers.start(config, folder, read_records(folder.path), terminal.warn).close()


@contextmanager
def _recording(
    config: Config, plan: Plan, folder: RunFolder, terminal: Terminal, ranks: Ranks
) -> Iterator[tuple[Training, Recording]]:
    """Put the run together, and keep its record while the body trains."""
    from igo.runs import assemble, recorded

    if ranks.first:
        check_can_be_made(folder.path)
        loggers.check(config)
    training = assemble.prepare(config, plan, ranks)
    terminal.say(f"run {folder.path}")  # now that it can begin
    if training.engine.note:
        terminal.warn(training.engine.note)
    terminal.show_plan(config, plan, folder.path / "plan.csv")
    parts = training.engine.micro_batch_size
    if ranks.size > 1 and training.engine.device.type == "cpu":
        terminal.say("on CPUs BatchNorm has the statistics of each process's share of a batch")
    if parts < max(stage.b_m for stage in plan.stages):
        terminal.say(f"larger batches go through the model in parts of at most {parts}")
    recording = recorded.record if ranks.first else recorded.follow
    with recording(training, folder, terminal) as kept:
        yield training, kept


def _conclude(config: Config, folder: RunFolder, terminal: Terminal, outcome: str) -> None:
    """Write the model if save_model asks for it, and print the results."""
    if config.save_model:
        from igo.runs import trained

        trained.export(folder, config)
    records = read_records(folder.path)
    tested = (record["test/accuracy"] for record in records)
    accuracies = [accuracy for accuracy in tested if accuracy is not None]
    validation = records[-1].get("validation/accuracy")
    last = "" if validation is None else f"; validation accuracy {validation:.2%}"
    terminal.say(f"{outcome}: test accuracy {accuracies[-1]:.2%}, best {max(accuracies):.2%}{last}")
    if records[-1]["test/loss"] is None:
        terminal.warn(
            "the test loss is not a number: the model's outputs are not finite, so that its"
            " accuracy means nothing; a smaller learning_rate may help"
        )
    terminal.say(f"run {folder.path}")
