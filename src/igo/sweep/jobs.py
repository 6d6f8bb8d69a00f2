"""The runs of a sweep: they are composed, checked, and executed one by one."""

import os
import pickle
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from igo.config.cli import fail, names_of
from igo.config.load import config_of, make_plan
from igo.config.schema import SETTINGS, Config, value_of
from igo.ground.errors import Busy, UserError, require, told
from igo.ground.files import PACKAGE, opened
from igo.ground.ranks import Ranks
from igo.runs.folder import RunFolder
from igo.runs.name import path_of

TRAIN = PACKAGE.parent / "train.py"  # A clone has it.


@dataclass(frozen=True)
class Job:
    """One run: the overrides that a person would type, and the configuration they give."""

    overrides: tuple[str, ...]
    config: Config
    label: str = ""  # It has the overrides that not all runs of the sweep have.

    @cached_property
    def folder(self) -> RunFolder:
        """The folder of the run's record."""
        return RunFolder(path_of(self.config))

    @property
    def name(self) -> str:
        """The name of the folder, the same for the same configuration."""
        return self.folder.path.name


class Composer:
    """Composes runs from command lines, and makes jobs of them.

    Hydra takes 70 ms to compose the options of a command line, such as ``model=resnet18``, so each
    choice of options is composed once. The settings, such as ``p=0.5``, are set in a copy of it, as
    Hydra itself sets them last.
    """

    def __init__(self, config_name: str, flags: Sequence[str] = ()) -> None:
        loader = GlobalHydra.instance().config_loader()
        self._flags = flags  # Each run's command has them: --config-dir=… of the user's own files.
        self._parse = cache(OverridesParser.create(config_loader=loader).parse_override)
        self._groups = set(loader.list_groups(""))
        # Each choice of options is kept as a pickle, of which a copy is made in 0.2 ms.
        self._composed = cache(lambda *options: pickle.dumps(compose(config_name, [*options])))

    def job(self, overrides: Sequence[str]) -> Job:
        """Compose one run, check it and make its plan."""
        try:
            config = config_of(self.compose(overrides), names_of(overrides))
            make_plan(config)
        except UserError as error:
            raise UserError(f"the run {' '.join(overrides)}: {error}") from error
        return Job((*overrides, *self._flags), config)

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration that Hydra composes from a command line."""
        lines = [self._parse(override) for override in overrides]
        options = [line for line in lines if self._is_option(line)]
        settings = [line for line in lines if not self._is_option(line)]
        config: DictConfig = pickle.loads(self._composed(*(line.input_line for line in options)))
        ConfigLoaderImpl._apply_overrides_to_config(settings, config)
        return config

    def _is_option(self, line: Override) -> bool:
        """Whether an override chooses an option of a group, such as ``hydra/launcher=slurm``."""
        in_group = line.key_or_group.partition("/")[0] in self._groups
        # `noise={batches: 4}` sets values.
        return in_group and not isinstance(line.value(), dict)


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """The first job of each configuration, in order, with labels.

    Raises:
        ConfigError: jobs of one run folder differ in a setting that is not in its name.
    """
    by_name: dict[str, Job] = {}
    for job in jobs:
        first_job = by_name.setdefault(job.name, job)
        for setting in SETTINGS:
            value = value_of(job.config, setting)
            require(
                value == value_of(first_job.config, setting),
                setting,
                value,
                "it is not part of a run's name, so one run would stand for several values;"
                " start a sweep for each, with its own runs_dir",
            )
    runs = list(by_name.values())
    # Words that all runs have tell none of them apart.
    word_sets = [set(job.overrides) for job in runs]
    shared_words = set.intersection(*word_sets) if len(runs) > 1 else set()
    labels = [" ".join(word for word in job.overrides if word not in shared_words) for job in runs]
    return [replace(job, label=label or job.name) for job, label in zip(runs, labels, strict=True)]


def execute(job: Job, *, log: bool = False) -> None:
    """Train one run in this process, as ``igo train OVERRIDES`` would.

    If the run does not finish, the process ends with the exit code of that command. With ``log``
    all that it prints from now on is appended to output.log in the run's folder.
    """
    from igo.runs.run import run  # It imports torch.

    program = os.path.relpath(TRAIN) if TRAIN.is_file() else "igo train"
    sys.argv = [program, *job.overrides]  # status.json gets it as the command.
    try:
        if log:
            _log_output(job.folder)
        run(job.config)
    except Exception as error:
        # Busy: the run is another process's, which records how it ends.
        if Ranks.of_environment().first and not isinstance(error, Busy):
            _record_failure(job, error)
        if line := told(error):
            fail(line)
        traceback.print_exc()
        raise SystemExit(1) from None


def _log_output(folder: RunFolder) -> None:
    """Append all that this process prints from now on to output.log in a run's folder."""
    with folder.writing():
        folder.path.mkdir(parents=True, exist_ok=True)
        log = opened(folder.path / "output.log", "ab")
    with log:
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            # Workers and libraries in C write to the descriptors, past sys.stdout.
            os.dup2(log.fileno(), descriptor)


def _record_failure(job: Job, error: Exception) -> None:
    """Record what ended a run, so that a sweep can show it.

    The run itself records what ends its training, and this repeats it. What comes before that, such
    as data that are missing, is recorded here alone.
    """
    folder = job.folder
    # The disk may be full, and the folder may be damaged or another process's. Such an error is not
    # told here, for the user is told what ended the run.
    with suppress(OSError, UserError), folder.held():
        if folder.status().get("state") == "finished":
            return
        if not folder.status():
            folder.begin_status()
            folder.write_plan(job.config, make_plan(job.config))
            folder.write_records([])
        folder.write_failure(error)
