"""The runs of a sweep: each with its checked configuration, and how one is carried out."""

from __future__ import annotations

import copy
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igo.config.load import load
from igo.config.plan import make_plan
from igo.config.schema import Config
from igo.errors import Busy, NoEffect, UserError
from igo.files import refuse_links
from igo.paths import PACKAGE
from igo.ranks import Ranks
from igo.runs.folder import RunFolder, state_of

TRAIN = PACKAGE.parent / "train.py"  # in a clone


@dataclass(frozen=True)
class Job:
    """One run: what a person would type for it, and what that means."""

    overrides: tuple[str, ...]
    config: Config

    @cached_property
    def folder(self) -> RunFolder:
        """Where its record is."""
        return RunFolder(self.config)

    @property
    def name(self) -> str:
        """The name of its folder: the same for the same configuration."""
        return self.folder.path.name


class RunWithout(UserError):
    """A run with a setting that changes nothing in it."""

    def __init__(self, text: str, setting: str) -> None:
        self.setting = setting
        super().__init__(text)


class Composer:
    """Makes jobs from command lines. Hydra composes each choice of groups once, in 70 ms; lines
    that differ in values alone share it, as Hydra too applies values last.
    """

    def __init__(self, config_name: str) -> None:
        self._config_name = config_name
        self._loader = GlobalHydra.instance().config_loader()
        self._parser = OverridesParser.create(config_loader=self._loader)
        self._groups = set(self._loader.list_groups(""))
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._overrides: dict[str, Override] = {}

    def job(self, overrides: Sequence[str]) -> Job:
        """Compose, check and plan one run."""
        typed = [_name(one) for one in overrides]
        try:
            config = load(self.compose(overrides), typed)
            make_plan(config)
        except NoEffect as error:
            raise RunWithout(f"the run {' '.join(overrides)}: {error}", error.setting) from None
        except UserError as error:
            raise UserError(f"the run {' '.join(overrides)}: {error}") from None
        return Job(tuple(overrides), config)

    def jobs(self, lines: Iterable[Sequence[str]]) -> tuple[list[Job], dict[str, int]]:
        """Compose the runs of a sweep. A setting that changes nothing in some of them, and is right
        in others, as p where one schedule of several has none, is left out of the former.

        Returns:
            The runs, and in how many of them each setting was left out.
        """
        jobs: list[Job] = []
        left_out: Counter[str] = Counter()
        refused: dict[str, UserError] = {}
        for line in lines:
            without = list(line)
            while True:
                try:
                    jobs.append(self.job(without))
                    break
                except RunWithout as error:
                    refused.setdefault(error.setting, error)
                    left_out[error.setting] += 1
                    without = [one for one in without if _name(one) != error.setting]
        of_use = {_name(one) for job in jobs for one in job.overrides}
        for name, refusal in refused.items():
            if name not in of_use:
                raise refusal
        return jobs, dict(left_out)

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """What Hydra composes of a command line."""
        values = [one for one in overrides if self._is_value(one)]
        groups = tuple(one for one in overrides if one not in values)
        if groups not in self._composed:
            self._composed[groups] = compose(self._config_name, list(groups))
        config = copy.deepcopy(self._composed[groups])
        try:
            for one in values:
                parsed = self._parsed(one)
                OmegaConf.update(config, parsed.key_or_group, parsed.value(), merge=True)
        except OmegaConfBaseException:
            return compose(self._config_name, list(overrides))  # Hydra itself says what is wrong
        return config

    def _parsed(self, line: str) -> Override:
        if line not in self._overrides:
            self._overrides[line] = self._parser.parse_override(line)
        return self._overrides[line]

    def _is_value(self, line: str) -> bool:
        name = line.split("=", maxsplit=1)[0]
        return name not in self._groups and name[0] not in "+~" and not {"/", "@"} & set(name)


def _name(override: str) -> str:
    """The setting that an override is of."""
    return override.split("=", maxsplit=1)[0].lstrip("+~")


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """The first job of each configuration, in order."""
    return list({job.name: job for job in reversed(list(jobs))}.values())[::-1]


def labels(jobs: Sequence[Job]) -> dict[str, str]:
    """For each job's name the overrides by which it differs from the others."""
    common = set(jobs[0].overrides).intersection(*(job.overrides for job in jobs))
    if len(jobs) == 1:
        common = set()
    return {
        job.name: " ".join(o for o in job.overrides if o not in common) or job.name for job in jobs
    }


@contextmanager
def logged(job: Job) -> Iterator[None]:
    """Add what this process writes to output.log in the run's folder.

    Ends the process as a user's error does where that file cannot be written.
    """
    folder = job.folder.path
    try:
        with job.folder.writing():
            folder.mkdir(parents=True, exist_ok=True)
            refuse_links(folder)
            handle = os.open(folder / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except UserError as error:
        _end(error)
    before = [os.dup(stream) for stream in (1, 2)]
    try:
        _send_to(handle, handle)
        yield
    finally:
        _send_to(*before)
        for one in (handle, *before):
            os.close(one)


def _send_to(*handles: int) -> None:
    """Let stdout and stderr go on in other files."""
    for stream, number, handle in zip((sys.stdout, sys.stderr), (1, 2), handles, strict=True):
        with suppress(OSError):  # a full disk: what a run could not say ended it already
            stream.flush()
        os.dup2(handle, number)


def wait_for_others(job: Job) -> None:
    """Until no other process works on the run, as one does whose sweep was killed."""
    while state_of(job.folder.path) == "running":
        time.sleep(1)


def execute(job: Job) -> None:
    """Carry out one run in this process, as ``igo train OVERRIDES`` would.

    Ends the process with that program's exit code, unless the run finishes. A run that fails
    before it has a record gets one, so that a sweep can say what was wrong.
    """
    from igo.runs.session import run  # torch

    program = os.path.relpath(TRAIN) if TRAIN.is_file() else "igo train"
    sys.argv = [program, *job.overrides]  # the command that status.json keeps
    before = job.folder.status()
    try:
        run(job.config)
    except Busy as busy:
        _end(busy)
    except Exception as error:
        untouched = job.folder.status() == before and before.get("state") != "finished"
        if Ranks.of_environment().first and untouched:
            with suppress(OSError, UserError), job.folder.held():  # the error itself is to be told
                job.folder.write_plan(make_plan(job.config))
                job.folder.begin_status()
                job.folder.write_failure(error)
        if not isinstance(error, UserError):
            raise
        _end(error)


def _end(error: UserError) -> NoReturn:
    if Ranks.of_environment().first:
        print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)
