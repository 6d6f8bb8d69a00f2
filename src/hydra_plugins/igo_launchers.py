"""Plugins that Hydra finds by itself: the grid sweeper, two launchers, and the folders of settings.

Hydra imports this module at every start, so the module imports little; igo.sweep does the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from igo.ground.paths import CONF, LAUNCH


class GroupFolders(SearchPathPlugin):
    """Makes the groups of conf/ and launch/ known, wherever a program's file is."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add conf/, unless it is the first folder already, and launch/."""
        folders = {entry.path for entry in search_path.get_path()}
        for folder in (CONF, LAUNCH):
            if f"file://{folder}" not in folders:
                search_path.append("igo", f"file://{folder}")


class GridSweeper(Sweeper):
    """All combinations of one grid or of several: ``hydra.sweeper.grids``, a list of
    {setting: value or list of values}. Overrides on the command line apply to each grid.
    """

    def __init__(self, grids: Sequence[Mapping[str, Any]]) -> None:
        self._grids = [dict(grid) for grid in grids] or [{}]

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra."""
        self._context = hydra_context
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Called by Hydra: launch every combination; SystemExit(1) where a run failed."""
        from igo.sweep.grid import combinations

        parser = OverridesParser.create(config_loader=self._context.config_loader)
        jobs = [line for grid in self._grids for line in combinations(parser, grid, arguments)]
        results = self._launcher.launch(jobs, initial_job_idx=0)
        if hasattr(self._launcher, "conclude"):  # not isinstance: Hydra may load this module twice
            self._launcher.conclude()
        else:
            for result in results:
                _ = result.return_value  # raises the error of the run
        return results


class SweepLauncher(Launcher):
    """The common part of the two launchers."""

    def __init__(self, retry_failed: object, **settings: Any) -> None:
        self._retry_failed, self._settings = retry_failed, settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra."""
        from igo.sweep.launch import Launch

        self._launch = Launch(config.hydra, self._retry_failed)

    def conclude(self) -> None:
        """Print how the sweep ended."""
        self._launch.conclude()


class LocalLauncher(SweepLauncher):
    """Runs side by side on this machine, see igo.sweep.local."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Called by Hydra."""
        from igo.sweep.local import LocalSettings, run_all

        settings = LocalSettings(**self._settings)
        return self._launch.go(job_overrides, lambda sweep: run_all(sweep, settings))


class SlurmLauncher(SweepLauncher):
    """Runs as SLURM jobs, see igo.sweep.slurm."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra."""
        from igo.sweep.slurm import SlurmSettings, check_slurm

        self._slurm = SlurmSettings(**self._settings)
        check_slurm()
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Called by Hydra."""
        from igo.sweep.slurm import submit

        return self._launch.go(job_overrides, lambda sweep: submit(sweep, self._slurm))
