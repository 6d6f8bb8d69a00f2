"""A search instead of a grid: Optuna draws the runs, through hydra-optuna-sweeper."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from igo.errors import ConfigError, UserError

RESULT = "optimization_results.yaml"  # as hydra-optuna-sweeper calls it


class SearchSweeper(Sweeper):
    """conf/hydra/sweeper/search.yaml: maximise what src/train.py returns, the final test accuracy.

    A trial that fails is one without a result; the search goes on.
    """

    def __init__(
        self, name: str, trials: int, at_once: int, seed: int, params: Mapping[str, str]
    ) -> None:
        self._name, self._seed = name, seed
        self._settings: dict[str, Any] = {
            "study_name": name, "n_trials": trials, "n_jobs": at_once, "params": params,
            "direction": "maximize", "max_failure_rate": 1.0,
            "storage": None, "search_space": None, "custom_search_space": None,
        }  # fmt: skip

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra.

        Raises:
            UserError: Optuna is not installed, a setting is wrong, or plans alone are asked for.
        """
        for setting, value in (("trials", "n_trials"), ("at_once", "n_jobs")):
            _check_count(f"hydra.sweeper.{setting}", self._settings[value])
        if config.dry_run:
            raise ConfigError(
                "dry_run", "true", "a search draws its runs from the results of others; plan one of"
                " them, such as p=0.5 split=0.5 dry_run=true, without hydra/sweeper=search"
            )  # fmt: skip
        self._folder = Path(config.runs_dir) / "sweeps" / self._name
        with open_dict(config):
            config.hydra.sweep.dir = str(self._folder)
        group = config.tracking.get("group", self._name)  # tracking=none has none
        self._grouped = [] if group else [f"tracking.group={self._name}"]
        self._optuna = self._sweeper()
        self._optuna.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> None:
        """Called by Hydra: run the trials, and say which was the best.

        Raises:
            UserError: none of them has a result.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._optuna.sweep([*arguments, *self._grouped])
        except ValueError as error:
            if "No trials are completed" not in str(error):
                raise
            raise UserError("no trial of the search has a result; see above why") from None
        best = OmegaConf.load(self._folder / RESULT)
        values = " ".join(f"{name}={value}" for name, value in best.best_params.items())
        print(f"best trial: {values}: test accuracy {best.best_value:.2%}")
        print(f"written to {self._folder / RESULT}")

    def _sweeper(self) -> Sweeper:
        try:
            import optuna
            from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper
        except ImportError as error:
            raise UserError(
                f"hydra/sweeper=search needs Optuna ({error}): pip install -e '.[search]'"
            ) from None
        optuna.logging.set_verbosity(logging.WARNING)
        self._settings["sampler"] = optuna.samplers.TPESampler(seed=self._seed)
        return OptunaSweeper(**self._settings)


def _check_count(setting: str, value: object) -> None:
    if not isinstance(value, int) or value < 1:
        raise ConfigError(setting, value, "it must be a whole number, 1 or more")
