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
            answer = ranks.first and not config.fresh and has_finished(config, folder, plan)
            was_finished = ranks.broadcast(answer)  # Rank 0 alone needs to see the folder.
            if not was_finished:
                # It imports torch, which a dry run does not need.
                from igo.runs.recording import train_recorded

                train_recorded(config, plan, folder, terminal, ranks)
            elif ranks.first and loggers.logs_again(config):  # It logs all records anew.
                loggers.check(config)
                with folder.held():
                    records = read_records(folder.path)
                    loggers.Guarded(config, folder, records, terminal.warn).close()
    except Stopped as stop:
        fresh = " without fresh=true" if config.fresh else ""
        is_finished = state_of(folder.path) == "finished"  # The signal came after the last epoch.
        hint = "" if is_finished else f"; the same command{fresh} continues"
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
    # The folder's name has a digest of all settings that change the result. One value for all ranks
    # means that nothing differs.
    if len(set(ranks.gather((folder.path.name, codes)))) > 1:
        raise UserError(
            "the processes of this run differ in settings or code; start all with the same"
            " command and code"
        )


def has_finished(config: Config, folder: RunFolder, plan: Plan) -> bool:
    """Whether the run has finished. Its files must be whole then, and plan and data those here.

    Raises:
        UserError: a file is damaged, or the finished run has another plan or other data, so that
            its results are no answer to this command.
    """
    if folder.status().get("state") != "finished":
        return False
    read_status(folder.path)  # This checks all sealed files, and not the records alone.
    manifest.check_same_plan(folder, plan, config)
    # The digits come with scikit-learn, and are not compared: its import takes two seconds.
    if config.dataset.name != "digits":
        with suppress(Missing):  # Without the data here, they are not compared.
            data = manifest.identified(config.dataset.name, place_of(config, download=False))
            manifest.check_same_data(folder, data)
    return True


def _conclude(config: Config, folder: RunFolder, terminal: Terminal, was_finished: bool) -> None:
    """Write the model if save_model asks for it, and print the results of the finished run.

    ``was_finished`` says that an earlier command has finished it.
    """
    if config.save_model:
        from igo.runs import checkpoint

        checkpoint.export(folder, config)
    outcome = "finished"
    if was_finished:  # Other code or versions than those here may have trained the run.
        differences = manifest.differences(folder.status(), config)
        under = f" under {differences}" if differences else ""
        outcome = f"finished before{under}; fresh=true runs it again"
    records = read_records(folder.path)
    last_record = records[-1]
    # An epoch that was not evaluated has null. The last epoch is always evaluated.
    entries = [record["test/accuracy"] for record in records]
    accuracies = [accuracy for accuracy in entries if accuracy is not None]
    validation = last_record.get("validation/accuracy")  # None without held-out images
    validation_text = "" if validation is None else f"; validation accuracy {validation:.2%}"
    test_text = f"test accuracy {accuracies[-1]:.2%}, best {max(accuracies):.2%}"
    terminal.say(f"{outcome}: {test_text}{validation_text}")
    if note := noise_note(last_record):
        terminal.say(note)
    if last_record["test/loss"] is None:  # It was a NaN, which a record has as null.
        terminal.warn(
            "the test loss is not a number: the model's outputs are not finite, so that its"
            " accuracy means nothing; a smaller learning_rate may help"
        )
    if advice := loggers.advice(config, folder):
        terminal.say(advice)
    terminal.say(f"run {folder.path}")
