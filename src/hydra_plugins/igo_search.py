"""A search instead of a grid: Optuna draws each run from the results of earlier runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from igo.ground.errors import ConfigError, UserError, first_line

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


class SearchSweeper(Sweeper):
    """conf/hydra/sweeper/search.yaml: maximise what src/train.py returns, the final accuracy on the
    validation images, as the test set must not choose.

    A trial that fails has no result, and the search goes on. The study is not stored: the same seed
    draws the same trials, and the results of finished runs are in their records.
    """

    def __init__(self, n_trials: int, n_jobs: int, seed: int, params: Mapping[str, str]) -> None:
        self._n_trials, self._n_jobs, self._seed = n_trials, n_jobs, seed
        self._params = params or {}
        self._asked = 0

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra."""
        for name, value in {"n_trials": self._n_trials, "n_jobs": self._n_jobs}.items():
            if not isinstance(value, int) or value < 1:
                allowed = "it must be a whole number, 1 or more"
                raise ConfigError(f"hydra.sweeper.{name}", value, allowed)
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
        self._parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Called by Hydra: run the trials, and print the best one."""
        study = _new_study(self._seed)
        lines = [*(f"{name}={value}" for name, value in self._params.items()), *arguments]
        settings = {o.get_key_element(): o for o in self._parser.parse_overrides(lines)}
        space = {n: _distribution(o) for n, o in settings.items() if o.is_sweep_override()}
        if not space:
            raise UserError(
                "there is nothing to search: give a setting several values or an interval, such as"
                " 'p=interval(0.1,1)'"
            )
        fixed = {
            name: f"{name}={override.get_value_element_as_str()}"
            for name, override in settings.items()
            if name not in space
        }
        while self._asked < self._n_trials:
            count = min(self._n_jobs, self._n_trials - self._asked)
            trials = [study.ask(space) for _ in range(count)]
            jobs = [[*_drawn(trial.params), *fixed.values()] for trial in trials]
            results = self._launcher.launch(jobs, initial_job_idx=self._asked)
            self._asked += count
            for trial, result in zip(trials, results, strict=True):
                self._tell(study, trial, result)
        self._conclude(study)

    def _tell(self, study: Study, trial: Trial, result: JobReturn) -> None:
        """Give a run's validation accuracy to Optuna, and print how the trial ended."""
        name = f"trial {trial.number + 1}/{self._n_trials}: {' '.join(_drawn(trial.params))}"
        try:
            accuracy = float(result.return_value)
        except Exception as error:  # any that the run raised
            from optuna.trial import TrialState

            study.tell(trial, state=TrialState.FAIL)
            print(f"warning: {name}: no result: {first_line(error)}", file=sys.stderr)
            return
        study.tell(trial, accuracy)
        print(f"{name}: validation accuracy {accuracy:.2%}, best {study.best_value:.2%}")

    def _conclude(self, study: Study) -> None:
        try:
            best = study.best_trial
        except ValueError:
            raise UserError("no trial of the search has a result; see above why") from None
        drawn = _drawn(best.params)
        values = {o.get_key_element(): o.value() for o in self._parser.parse_overrides(drawn)}
        file = Path(self._config.hydra.sweep.dir) / "optimization_results.yaml"
        OmegaConf.save({"name": "optuna", "best_params": values, "best_value": best.value}, file)
        print(f"best trial: {' '.join(drawn)}: validation accuracy {best.value:.2%}")
        print(f"written to {file}")


def _new_study(seed: int) -> Study:
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            f"hydra/sweeper=search needs Optuna ({error}): pip install -e '.[search]'"
        ) from None
    optuna.logging.set_verbosity(logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed)
    return optuna.create_study(direction="maximize", sampler=sampler)


def _distribution(override: Override) -> BaseDistribution:
    """What Optuna draws a setting from: an interval, whole numbers, or values as typed."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        kind = IntDistribution if isinstance(value.start, int) else FloatDistribution
        try:
            return kind(value.start, value.end, log="log" in value.tags)  # type: ignore[arg-type]
        except ValueError as error:
            raise UserError(f"{override.input_line}: {first_line(error)}") from None
    texts = sorted(set(override.sweep_string_iterator()))  # a shuffled list draws the same again
    if not texts:
        raise UserError(f"{override.input_line}: it holds no value to draw")
    if isinstance(value, RangeSweep) and all(isinstance(n, int) for n in (value.start, value.step)):
        numbers = sorted(int(text) for text in texts)
        return IntDistribution(numbers[0], numbers[-1], step=abs(int(value.step)))
    return CategoricalDistribution(texts)


def _drawn(params: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in params.items()]
