"""A search instead of a grid: Optuna draws the runs, through hydra-optuna-sweeper."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from igo.errors import ConfigError, UserError


class SearchSweeper(Sweeper):
    """conf/hydra/sweeper/search.yaml: maximise what src/train.py returns, the final accuracy on the
    validation images: the test set is for what was chosen.

    A trial that fails is one without a result; the search goes on.
    """

    def __init__(self, n_trials: int, n_jobs: int, seed: int, params: Mapping[str, str]) -> None:
        self._settings: dict[str, Any] = {"n_trials": n_trials, "n_jobs": n_jobs, "params": params}
        self._seed = seed

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra.

        Raises:
            UserError: Optuna is not installed, a setting is wrong, or plans alone are asked for.
        """
        for setting in ("n_trials", "n_jobs"):
            value = self._settings[setting]
            if not isinstance(value, int) or value < 1:
                full = f"hydra.sweeper.{setting}"
                raise ConfigError(full, value, "it must be a whole number, 1 or more")
        if config.dry_run:
            raise ConfigError(
                "dry_run", "true", "a search draws its runs from the results of others; plan one of"
                " them, such as p=0.5 split=0.5 dry_run=true, without hydra/sweeper=search"
            )  # fmt: skip
        if not config.dataset.validation:
            raise ConfigError(
                "dataset.validation", config.dataset.validation, "a search needs images to choose"
                " by, as the test set must not be tuned on; hold some of the training images out,"
                " such as dataset.validation=0.1"
            )  # fmt: skip
        self._config = config
        self._optuna = self._sweeper()
        self._optuna.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> None:
        """Called by Hydra: run the trials, and say which was the best.

        Raises:
            UserError: none of them has a result.
        """
        try:
            self._optuna.sweep(arguments)
        except ValueError as error:
            if "No trials are completed" not in str(error):
                raise
            raise UserError("no trial of the search has a result; see above why") from None
        file = Path(self._config.hydra.sweep.dir) / "optimization_results.yaml"
        best = OmegaConf.load(file)
        values = " ".join(f"{name}={value}" for name, value in best.best_params.items())
        print(f"best trial: {values}: validation accuracy {best.best_value:.2%}")
        print(f"written to {file}")

    def _sweeper(self) -> Sweeper:
        try:
            import optuna
            from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper
        except ImportError as error:
            raise UserError(
                f"hydra/sweeper=search needs Optuna ({error}): pip install -e '.[search]'"
            ) from None
        optuna.logging.set_verbosity(logging.WARNING)
        sampler: Any = optuna.samplers.TPESampler(seed=self._seed)
        return OptunaSweeper(
            sampler, "maximize", study_name=None, max_failure_rate=1.0,
            storage=None, search_space=None, custom_search_space=None, **self._settings,
        )  # fmt: skip
