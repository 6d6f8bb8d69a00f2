"""Plugins that Hydra finds by itself: the grid sweeper and two launchers.

Hydra imports this module at every start, so the module imports little; igo.sweep does the work.
"""

from __future__ import annotations

import io
import itertools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from igo.config.own import with_options
from igo.ground.errors import require


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper. It leaves words as they are typed, composes no run and writes no file.

    So a run is that of its words, in their order and with their +, ++ and ~.
    """

    def lines(self, parser: OverridesParser, arguments: list[str]) -> list[list[str]]:
        """The words of each run: those of ``params``, then those of ``arguments``.

        ``params`` are set by a sweep's file, and ``arguments`` were typed.
        """
        for name, value in self.params.items():
            as_typed = isinstance(value, str | int | float)  # Hydra's own schema allows these.
            advice = "it must be as typed, such as 0.1,0.5 or range(8)"
            require(as_typed, f"hydra.sweeper.params.{name}", value, advice)
        params = self._parse_config()
        words = [*params, *arguments]
        overrides = parser.parse_overrides(words)
        names = [override.get_key_element().lstrip("+~") for override in overrides]
        choices = []  # For each word these are what stands in its place in the runs.
        for place, (name, word, override) in enumerate(zip(names, words, overrides, strict=True)):
            is_sweep = override.is_sweep_override()
            # `sweep=NAME` chose the file of the params, which is read by now; no run has it.
            if name == "sweep":
                advice = "a sweep has one file; type a command for each"
                require(not is_sweep, "sweep", word.partition("=")[2], advice)
                continue
            # The last of several words for one setting counts. An earlier word is left out if it is
            # of the file or has many values, or the grid would have its values, too. Hydra
            # itself decides among the rest.
            is_of_file, comes_again = place < len(params), name in names[place + 1 :]
            if comes_again and (is_sweep or is_of_file):
                continue
            if is_sweep:  # The word `p=0.1,0.5` stands for p=0.1 and p=0.5.
                # None: the runs are not split into batches, so the list has one batch, [0].
                split = self.split_arguments([override], None)[0]
                choices.append([line for (line,) in split])
            else:
                choices.append([word])
        return [with_options(line) for line in itertools.product(*choices)]

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Called by Hydra: launch every combination, in one batch."""
        assert self.hydra_context
        assert self.launcher
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        results = self.launcher.launch(self.lines(parser, arguments), initial_job_idx=0)
        for result in results:
            with redirect_stderr(io.StringIO()):  # Hydra prints a line beside that of the error.
                _ = result.return_value  # It raises the error of the run.
        return [results]


class SweepLauncher(Launcher):
    """The common part of launchers: it skips what is finished, and shows the results."""

    def __init__(self, retry_failed: object, **settings: Any) -> None:
        self._retry_failed, self._settings = retry_failed, settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra, before any run."""
        self._hydra = config.hydra
        require(
            issubclass(get_class(config.hydra.sweeper._target_), BasicSweeper),
            "hydra/sweeper",
            config.hydra.runtime.choices["hydra/sweeper"],
            "it asks for each run's result, which igo's launchers do not return; add"
            " hydra/launcher=basic",
        )

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Called by Hydra, which gets no results: the sweep prints them itself."""
        from igo.sweep.launch import launch

        launch(self._hydra, self._retry_failed, job_overrides, self.runner())
        return []

    @abstractmethod
    def runner(self) -> Callable[..., None]:
        """What executes or submits the runs of a sweep."""


class LocalLauncher(SweepLauncher):
    """Runs side by side on this machine, see igo.sweep.local."""

    def runner(self) -> Callable[..., None]:
        """What runs a sweep on this machine, with settings that are checked now."""
        from igo.config.load import split_off
        from igo.sweep.local import Local, run_all

        settings, _ = split_off(OmegaConf.create(self._settings), Local, "hydra.launcher.")
        return lambda sweep: run_all(sweep, settings)


class SlurmLauncher(SweepLauncher):
    """Runs as SLURM jobs, see igo.sweep.slurm."""

    def runner(self) -> Callable[..., None]:
        """What submits a sweep, with settings that are checked now; others go to submitit."""
        from igo.config.load import split_off
        from igo.sweep.slurm import Slurm, check, submit

        settings, options = split_off(OmegaConf.create(self._settings), Slurm, "hydra.launcher.")
        check()
        return lambda sweep: submit(sweep, settings, options)
