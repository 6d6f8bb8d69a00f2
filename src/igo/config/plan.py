"""The plan that a configuration means."""

from __future__ import annotations

import warnings

from igo.config.own import is_call
from igo.config.schema import SETTINGS, Config, training_samples, warmup_samples
from igo.ground.errors import ConfigError
from igo.method import rounds
from igo.method.arguments import PlanError, PlanWarning
from igo.method.plan import Plan, plan
from igo.method.profiles import parameters


def stages_of(config: Config) -> int:
    """M as ε or the settings choose it, else the number of epochs after those of the warm-up."""
    schedule = config.schedule
    try:
        chosen = rounds.stages_of(
            schedule.stages, schedule.epsilon, schedule.alpha_0, profile=schedule.profile,
            p=config.p, most=config.epochs,
        )  # fmt: skip
    except PlanError as error:
        raise ConfigError(f"schedule.{error.argument}", error.value, error.allowed) from None
    return chosen or max(
        1, config.epochs - warmup_samples(config) // max(training_samples(config), 1)
    )


def make_plan(config: Config) -> Plan:
    """Compute every stage of a run from its checked configuration."""
    schedule = config.schedule
    names = parameters(schedule.phi)
    own = {name: getattr(config if name == "p" else schedule, name) for name in names}
    try:
        with warnings.catch_warnings():  # the notes below a printed plan say the same
            warnings.simplefilter("ignore", PlanWarning)
            return plan(
                schedule.phi,
                n=training_samples(config),
                epochs=config.epochs,
                learning_rate=config.learning_rate,
                batch_size=config.batch_size,
                split=config.split,
                stages=schedule.stages,
                warmup_samples=warmup_samples(config),
                max_batch_size=config.max_batch_size,
                batch_multiple=schedule.batch_multiple,
                algorithm3={
                    "h": None if schedule.lengths == "equal" else schedule.h,
                    "final_updates": schedule.final_updates,
                },
                **{name: value for name, value in own.items() if value is not None},
            )
    except PlanError as error:
        if error.argument == "h" and schedule.h == 0:  # nobody typed it: it is the lengths
            raise ConfigError("schedule.lengths", schedule.lengths, error.allowed) from None
        if error.argument == "warmup_samples":
            allowed = f"{error.value} samples; {error.allowed.removeprefix('it is in samples; ')}"
            raise ConfigError("schedule.warmup", schedule.warmup, allowed) from None
        chosen = "schedule._target_" if is_call(schedule.profile) else "schedule"
        setting, value = error.argument, error.value
        if setting == "profile":
            setting, value = chosen, schedule.profile
        if setting not in SETTINGS and setting != chosen:
            setting = f"schedule.{setting}"
        raise ConfigError(setting, value, error.allowed) from None
