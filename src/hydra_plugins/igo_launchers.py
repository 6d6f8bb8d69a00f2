"""What Hydra finds by itself: grids of runs, where they run, and launch/ as a folder of settings.

Hydra imports this module at every start, so it imports nothing heavy; igo.sweep does the work.
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

from igo.paths import CONF, LAUNCH


class GroupFolders(SearchPathPlugin):
    """Makes the groups of conf/ and launch/ known, wherever a program's own file is."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add conf/, where it is not the first folder already, and launch/."""
        folders = {entry.path for entry in search_path.get_path()}
        for place in (CONF, LAUNCH):
            if f"file://{place}" not in folders:
                search_path.append("igo", f"file://{place}")


class GridSweeper(Sweeper):
    """All combinations of one grid, or of several: ``hydra.sweeper.grids``, a list of
    {setting: value or list of values}. What is typed on the command line comes on top of each.
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
        jobs = [one for grid in self._grids for one in combinations(parser, grid, arguments)]
        done = self._launcher.launch(jobs, initial_job_idx=0)
        if hasattr(self._launcher, "conclude"):  # its class, where Hydra loaded this module twice
            self._launcher.conclude()
        else:
            for one in done:
                _ = one.return_value  # raises what the run raised
        return done


class SweepLauncher(Launcher):
    """What the two launchers share: Hydra's side of igo.sweep."""

    def __init__(self, retry_failed: object, **settings: Any) -> None:
        self._retry_failed, self._settings = retry_failed, settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra."""
        from igo.sweep.launch import Launch

        self._launch = Launch(config.hydra, self._retry_failed)

    def conclude(self) -> None:
        """Say how the sweep ended."""
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
        from igo.errors import UserError
        from igo.sweep.slurm import SlurmSettings, check_slurm

        if config.hydra.runtime.choices["hydra/sweeper"] != "grid":
            raise UserError(
                "hydra/launcher=slurm returns before its runs have ended, and a search needs their"
                " results; use hydra/launcher=local with it"
            )
        self._slurm = SlurmSettings(**self._settings)
        check_slurm()
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Called by Hydra."""
        from igo.sweep.slurm import submit

        return self._launch.go(job_overrides, lambda sweep: submit(sweep, self._slurm))
