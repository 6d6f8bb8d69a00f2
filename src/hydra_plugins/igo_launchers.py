"""Plugins that Hydra finds by itself: the grid sweeper, two launchers, and the folders of settings.

Hydra imports this module at every start, so the module imports little; igo.sweep does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from igo.ground.files import CONF, LAUNCH

# What GROUP=own begins with: settings that may have any name.
ConfigStore.instance().store(name="free", node=DictConfig({}, flags={"struct": False}))


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

    def lines(self, parser: OverridesParser, arguments: list[str]) -> list[list[str]]:
        """The overrides of each run. Typed ones replace settings of the grids."""
        lines: list[list[str]] = []
        for grid in self._grids:
            settings = [f"{name}={_listed(value)}" for name, value in grid.items()]
            overrides = parser.parse_overrides([*settings, *arguments])
            lines += BasicSweeper.split_arguments(overrides, None)[0]
        return lines

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Called by Hydra: launch every combination."""
        parser = OverridesParser.create(config_loader=self._context.config_loader)
        results = self._launcher.launch(self.lines(parser, arguments), initial_job_idx=0)
        for result in results:
            _ = result.return_value  # raises the error of the run
        return results


def _listed(value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return "null" if value is None else str(value)
    return ",".join(map(_listed, value))


class SweepLauncher(Launcher):
    """The common part of launchers: it skips what is finished, and shows the results."""

    def __init__(self, retry_failed: object, **settings: Any) -> None:
        self._retry_failed, self._settings = retry_failed, settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra."""
        self._hydra = config.hydra

    def go(self, lines: Sequence[Sequence[str]], runner: Callable[..., None]) -> list[JobReturn]:
        """Run these command lines by a function, see ``igo.sweep.launch.launch``.

        Hydra gets no results: the sweep prints them itself.
        """
        from igo.sweep.launch import launch

        launch(self._hydra, self._retry_failed, lines, runner)
        return []


class LocalLauncher(SweepLauncher):
    """Runs side by side on this machine, see igo.sweep.local."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Called by Hydra."""
        from igo.sweep.launch import check_counts
        from igo.sweep.local import run_all

        unset = {"parallel"} if self._settings["parallel"] is None else set()
        check_counts({k: v for k, v in self._settings.items() if k not in unset})
        return self.go(job_overrides, lambda sweep: run_all(sweep, **self._settings))


class SlurmLauncher(SweepLauncher):
    """Runs as SLURM jobs, see igo.sweep.slurm."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Called by Hydra."""
        from igo.sweep.slurm import check, submit

        check(self._settings)
        return self.go(job_overrides, lambda sweep: submit(sweep, self._settings))
