"""Runs of igo in a study: the settings of a job, its training, and the record that is kept."""

import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from igo.config.load import make_plan
from igo.config.schema import Config
from igo.ground.errors import UserError
from igo.ground.files import read_bytes
from igo.ground.ranks import ALONE
from igo.runs.folder import RunFolder, read_status, state_of
from igo.runs.name import path_of
from igo.runs.recording import resume, train_recorded
from igo.runs.terminal import Terminal
from igo.train.assembly import assembled
from lab.configuration import composed
from lab.study import design, ends
from lab.study.design import Job, Record, Runs, Study

Settings = dict[str, Any]  # of a run
ENDPOINTS = {"running": "end_accuracy", "fresh": "anew_accuracy"}  # BatchNorm has these statistics.
CHANCE = {"end_accuracy": 10.0, "anew_accuracy": 10.0}  # % of ten classes, if a loss is not finite


def study(
    name: str,
    jobs: Callable[[Runs], Iterator[Job]],
    settings_of: Callable[[Job], Settings],
    seeds: Sequence[int],
    least: int,
    arm: Callable[[Job], Any],
    anneal: float | None = None,
) -> Study:
    """A study whose jobs are runs of igo, each named as its run folder is, see ``name_of``.

    With ``anneal`` a run's end is measured again after an anneal at this η.
    """

    def trained_job(job: Job, _: Runs) -> Record:
        config = config_of(settings_of(job))
        return trained(replace(config, runs_dir=str(design.RUNS / name)), anneal)

    return Study(
        name,
        jobs,
        trained_job,
        seeds,
        least,
        arm,
        key=lambda job: name_of(settings_of(job)),
        old=partial(of_archive, name),
    )


def trained(config: Config, anneal: float | None) -> Record:
    """Train a run and measure its end, unless this was done; return its record."""
    plan = make_plan(config)
    folder = RunFolder(path_of(config))
    try:
        if state_of(folder.path) != "finished":
            train_recorded(config, plan, folder, Terminal(quiet=True), ALONE)
    except UserError:
        # A run whose loss is not finite ends as failed, and its record counts as chance. An error
        # that leaves the run in another state ends the study.
        if state_of(folder.path) != "failed":
            raise
    else:
        with folder.held():
            if not (folder.path / ends.FILE).is_file():
                training = assembled(config, plan)
                resume(folder, training)
                ends.measure(folder.path, training, anneal)
    read_status(folder.path)  # Files that are not as the run wrote them are refused here.
    names = ("status.json", "metrics.jsonl", ends.FILE)
    files = {name: folder.path / name for name in names}
    return record_of(
        {name: read_bytes(file).decode() for name, file in files.items() if file.exists()}
    )


def record_of(files: Mapping[str, str]) -> Record:
    """The record of a run that has ended, from its files: its machine, its epochs, and its end.

    Beside the measurements of ``ends`` the record has three numbers of the last epoch, whose names
    begin with ``end_``. ``averaging`` is ``end_accuracy``, by running statistics, less the accuracy
    by new statistics of augmented images. Accuracies are in %. A run that failed has those of
    chance.
    """
    status, lines = json.loads(files["status.json"]), files.get("metrics.jsonl", "").splitlines()
    hardware = status["hardware"]
    record: Record = {
        "cpu": f"{hardware['cpu']}, {hardware['instructions']}",
        "torch": status["versions"]["torch"],
        "finite": status["state"] != "failed",
        "epochs": [json.loads(line) for line in lines],
    }
    if not record["finite"]:
        return record | CHANCE
    last_epoch = record["epochs"][-1]
    record |= json.loads(files[ends.FILE])
    record["end_accuracy"] = 100 * last_epoch["test/accuracy"]
    record["end_train_accuracy"] = 100 * last_epoch["train/accuracy"]
    record["end_train_loss"] = last_epoch["train/loss"]
    if "anew_augmented_accuracy" in record:
        record["averaging"] = record["end_accuracy"] - record["anew_augmented_accuracy"]
    return record


@cache
def of_archive(name: str) -> dict[str, Record]:
    """The records of an archive of run folders, by the names of the runs; empty without a file."""
    path = design.RECORDS / f"{name}.tar.xz"
    files: dict[str, dict[str, str]] = {}
    if path.is_file():
        with tarfile.open(path) as tar:
            for member in tar:
                run_name, _, file_name = member.name.partition("/")
                content = tar.extractfile(member)
                if content is not None:
                    files.setdefault(run_name, {})[file_name] = content.read().decode()
    return {run_name: record_of(contents) for run_name, contents in files.items()}


def name_of(settings: Settings) -> str:
    """The name of a record: that of the run without its control, then the control.

    The records in the archives have these names.
    """
    control = settings.get("control")
    return _name(tuple(settings.items())) + (f"-{control}" if control else "")


@cache
def _name(settings: tuple[tuple[str, Any], ...]) -> str:
    return path_of(replace(config_of(dict(settings)), control=None)).name


def config_of(settings: Settings) -> Config:
    """The configuration of a run with these settings."""
    return composed(*(f"{name}={value}" for name, value in settings.items()))
