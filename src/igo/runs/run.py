"""One run, from its configuration to its finished record."""

from contextlib import suppress
from pathlib import Path

from igo.config.load import make_plan
from igo.config.schema import Config, place_of
from igo.data.readers import Missing
from igo.ground.errors import Damaged, UserError
from igo.ground.ranks import Ranks
from igo.plans.plan import Plan
from igo.runs import loggers, manifest
from igo.runs.folder import RunFolder, read_records, read_status, state_of
from igo.runs.name import path_of
from igo.runs.stopping import Stopped
from igo.runs.terminal import Terminal, noise_note


def run(config: Config) -> Path:
    """Train, continue or skip the run that the configuration describes; return its folder.

    Each of several processes that torchrun or srun started trains its share of every batch. Rank 0
    alone writes the record, logs to W&B and prints.

    Raises:
        Stopped: a signal stopped the run; the same command continues it.
    """
    ranks = Ranks.of_environment()
    terminal = Terminal(quiet=not ranks.first)
    plan = make_plan(config)
    folder = RunFolder(path_of(config))
    try:
        with ranks.joined():
            _check_ranks(config, folder, ranks)
            if config.dry_run:
                terminal.say(f"run {folder.path}")
                terminal.show_plan(config, plan)
                return folder.path
            finished = ranks.first and not config.fresh and has_finished(config, folder, plan)
            was_finished = ranks.broadcast(finished)
            if not was_finished:
                # It imports torch, which a dry run does not need.
                from igo.runs.recording import train_recorded

                train_recorded(config, plan, folder, terminal, ranks)
            elif ranks.first and loggers.logs_again(config):
                loggers.check(config)
                with folder.held():
                    records = read_records(folder.path)
                    loggers.Guarded(config, folder, records, terminal.warn).close()
    except Stopped as stop:
        fresh = " without fresh=true" if config.fresh else ""
        finished = state_of(folder.path) == "finished"
        hint = "" if finished else f"; the same command{fresh} continues"
        terminal.say(f"stopped by {stop.signal_name}{hint}")
        terminal.say(f"run {folder.path}")
        raise
    except Damaged as error:
        raise UserError(f"{error}. fresh=true starts over") from None
    if ranks.first:
        _conclude(config, folder, terminal, was_finished)
    return folder.path


def _check_ranks(config: Config, folder: RunFolder, ranks: Ranks) -> None:
    """Raise a UserError if the processes differ in settings or code."""
    codes = manifest.code(), *manifest.own_code(config).values()
    # The folder's name is a digest of all settings that change the result.
    if len(set(ranks.gather((folder.path.name, codes)))) > 1:
        raise UserError(
            "the processes of this run differ in settings or code; start all with the same"
            " command and code"
        )


def has_finished(config: Config, folder: RunFolder, plan: Plan) -> bool:
    """Whether the run has finished; its records must be whole, and plan and data those here."""
    status = folder.status()
    if status.get("state") != "finished":
        return False
    read_status(folder.path)  # This checks all sealed files, and not the records alone.
    manifest.check_plan(folder.path, status, plan, config)
    if config.dataset.name == "digits":  # scikit-learn has them; its import takes two seconds.
        return True
    with suppress(Missing):  # Without the data here, they are not compared.
        data = manifest.identified(config.dataset.name, place_of(config, download=False))
        manifest.check_data(folder.path, status, data)
    return True


def _conclude(config: Config, folder: RunFolder, terminal: Terminal, was_finished: bool) -> None:
    """Write the model if save_model asks for it, and print the results."""
    if config.save_model:
        from igo.runs import checkpoint

        checkpoint.export(folder, config)
    outcome = "finished"
    if was_finished:  # Its code, versions or machine may be others than those here.
        differences = manifest.differences(folder.status(), config)
        under = f" under {differences}" if differences else ""
        outcome = f"finished before{under}; fresh=true runs it again"
    records = read_records(folder.path)
    # An epoch that was not evaluated has null. The last epoch is always evaluated.
    entries = [record["test/accuracy"] for record in records]
    accuracies = [accuracy for accuracy in entries if accuracy is not None]
    validation = records[-1].get("validation/accuracy")
    validation_text = "" if validation is None else f"; validation accuracy {validation:.2%}"
    test_text = f"test accuracy {accuracies[-1]:.2%}, best {max(accuracies):.2%}"
    terminal.say(f"{outcome}: {test_text}{validation_text}")
    if note := noise_note(records[-1]):
        terminal.say(note)
    if records[-1]["test/loss"] is None:  # It was a NaN, which a record has as null.
        terminal.warn(
            "the test loss is not a number: the model's outputs are not finite, so that its"
            " accuracy means nothing; a smaller learning_rate may help"
        )
    if advice := loggers.advice(config, folder):
        terminal.say(advice)
    terminal.say(f"run {folder.path}")
