"""The runs of a sweep: they are composed, checked, and executed one by one."""

from __future__ import annotations

import copy
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NoReturn

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igo.config.load import load
from igo.config.plan import make_plan
from igo.config.schema import Config, value_of
from igo.ground.errors import Busy, ConfigError, NoEffect, UserError
from igo.ground.paths import PACKAGE
from igo.ground.ranks import Ranks
from igo.runs.folder import RunFolder

TRAIN = PACKAGE.parent / "train.py"  # in a clone


@dataclass(frozen=True)
class Job:
    """One run: the overrides that a person would type, and the configuration they give."""

    overrides: tuple[str, ...]
    config: Config

    @property
    def folder(self) -> RunFolder:
        """The folder of the run's record."""
        return RunFolder(self.config)

    @cached_property
    def name(self) -> str:
        """The name of the folder, the same for the same configuration."""
        return self.folder.path.name


class Composer:
    """Makes jobs from command lines. Hydra composes each choice of groups once, in 70 ms. Lines
    that differ only in values share the result: Hydra applies values last too.
    """

    def __init__(self, config_name: str) -> None:
        loader = GlobalHydra.instance().config_loader()
        self._config_name = config_name
        self._parse = cache(OverridesParser.create(config_loader=loader).parse_override)
        self._groups = set(loader.list_groups(""))
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def job(self, overrides: Sequence[str]) -> Job:
        """Compose one run, check it and make its plan."""
        typed = [_setting_of(line) for line in overrides]
        try:
            config = load(self.compose(overrides), typed)
            make_plan(config)
        except UserError as error:
            raise UserError(f"the run {' '.join(overrides)}: {error}") from error
        return Job(tuple(overrides), config)

    def jobs(self, lines: Iterable[Sequence[str]]) -> tuple[list[Job], dict[str, int]]:
        """Compose the runs of a sweep. If a setting, such as p, has an effect in some runs only, it
        is left out of the others.

        Returns:
            The runs, and for each setting the number of runs that it was left out of.
        """
        jobs: list[Job] = []
        left_out: Counter[str] = Counter()
        refused: dict[str, UserError] = {}
        for line in lines:
            overrides = list(line)
            while True:
                try:
                    jobs.append(self.job(overrides))
                    break
                except UserError as error:
                    if not isinstance(error.__cause__, NoEffect):
                        raise
                    setting = error.__cause__.setting
                    refused.setdefault(setting, error)
                    left_out[setting] += 1
                    overrides = [o for o in overrides if _setting_of(o) != setting]
        for name, refusal in refused.items():
            if left_out[name] == len(jobs):
                raise refusal
        return jobs, dict(left_out)

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration that Hydra composes from a command line."""
        values = [override for override in overrides if self._is_value(override)]
        groups = tuple(override for override in overrides if override not in values)
        if groups not in self._composed:
            self._composed[groups] = compose(self._config_name, list(groups))
        config = copy.deepcopy(self._composed[groups])
        try:
            for value in values:
                parsed = self._parse(value)
                OmegaConf.update(config, parsed.key_or_group, parsed.value(), merge=True)
        except OmegaConfBaseException:
            return compose(self._config_name, list(overrides))  # raises Hydra's own error
        return config

    def _is_value(self, line: str) -> bool:
        name = line.split("=", maxsplit=1)[0]
        return name not in self._groups and name[0] not in "+~" and not {"/", "@"} & set(name)


def _setting_of(override: str) -> str:
    return override.split("=", maxsplit=1)[0].lstrip("+~")


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """The first job of each configuration, in order.

    Raises:
        ConfigError: jobs of one run folder read different data.
    """
    first: dict[str, Job] = {}
    for job in jobs:
        other = first.setdefault(job.name, job)
        for setting in ("dataset.file", "dataset.root", "data_dir"):
            value = value_of(job.config, setting)
            if value != value_of(other.config, setting):
                allowed = "it is not part of a run folder's name, so two runs would share a folder;"
                allowed += " run a sweep for each value, with its own runs_dir"
                raise ConfigError(setting, value, allowed)
    return list(first.values())


def labels(jobs: Sequence[Job]) -> dict[str, str]:
    """For each job's name, the overrides that not all jobs have."""
    common = set(jobs[0].overrides).intersection(*(job.overrides for job in jobs))
    if len(jobs) == 1:
        common = set()
    return {
        job.name: " ".join(o for o in job.overrides if o not in common) or job.name for job in jobs
    }


def log_output(job: Job) -> None:
    """Append what this process prints from now on to output.log in the run's folder.

    If that file cannot be written, the process ends with the error.
    """
    folder = job.folder.path
    try:
        with job.folder.writing():
            folder.mkdir(parents=True, exist_ok=True)
            log = os.open(folder / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except UserError as error:
        _end(error)
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        stream.flush()
        os.dup2(log, number)
    os.close(log)


def execute(job: Job) -> None:
    """Train one run in this process, as ``igo train OVERRIDES`` would.

    If the run does not finish, the process ends with the exit code of that command. If a run fails
    before it has a record, the error is recorded, so that the sweep can show it.
    """
    from igo.runs.session import run  # imports torch

    program = os.path.relpath(TRAIN) if TRAIN.is_file() else "igo train"
    sys.argv = [program, *job.overrides]  # the command for status.json
    status = job.folder.status()
    try:
        run(job.config)
    except Busy as busy:
        _end(busy)
    except Exception as error:
        untouched = job.folder.status() == status and status.get("state") != "finished"
        if Ranks.of_environment().first and untouched:
            with suppress(OSError, UserError), job.folder.held():  # the run's error comes first
                job.folder.write_plan(make_plan(job.config))
                job.folder.begin_status()
                job.folder.write_failure(error)
        if not isinstance(error, UserError):
            raise
        _end(error)


def _end(error: UserError) -> NoReturn:
    ranks = Ranks.of_environment()
    where = "" if ranks.first else f"in process {ranks.rank}: "
    print(f"error: {where}{error}", file=sys.stderr)
    raise SystemExit(2)
