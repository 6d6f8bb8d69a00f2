"""A checked configuration, from what Hydra composed or a run's config.yaml; and its plan."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from igo.config import own, rules
from igo.config.names import leaves
from igo.config.schema import (
    OF_EVERY_SCHEDULE,
    SETTINGS,
    Config,
    ScheduleConfig,
    calls_of,
    settings_of,
    training_samples,
    value_of,
    warmup_samples,
)
from igo.data import identity, readers
from igo.data.readers import Place
from igo.ground.errors import ConfigError, UserError, first_line, nearest, require
from igo.ground.files import Record, read_bytes
from igo.plans.arguments import PlanError, PlanWarning
from igo.plans.checks import table_of
from igo.plans.make import plan
from igo.plans.plan import Plan
from igo.plans.profiles import parameters

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml takes a tenth of the time.


def config_of(composed: DictConfig, typed_names: Collection[str] = ()) -> Config:
    """Type, complete and check a composed configuration.

    Args:
        composed: what Hydra made of conf/ and the command line.
        typed_names: full names of the settings that the user typed. A typed setting is an error if
            it would have no effect or contradicts another one.
    """
    try:
        _find_facts(composed)  # Other settings may be ${dataset.classes}.
        values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise setting_error(error) from None
    for name, value in leaves(values):
        advice = "${ would have config.yaml name another setting; rename the file, or leave it out"
        require("${" not in str(value), name, value, advice)
        # A group, such as dataset.augment, has a value itself.
        if names := [f"{setting}=VALUE" for setting in SETTINGS if setting.startswith(f"{name}.")]:
            raise UserError(f"{name} is a group of settings: type {' or '.join(names)}")
    own.split_arguments(values, OF_EVERY_SCHEDULE)
    _split_table(values)
    return _checked(values, typed_names)


def _find_facts(composed: DictConfig) -> None:
    """Put in those facts of the data set that are null or missing, by looking into its files."""
    dataset = composed.get("dataset")
    if not OmegaConf.is_dict(dataset) or dataset.get("name") not in readers.NAMES:
        return
    missing_facts = [name for name in identity.FACTS if dataset.get(name) is None]
    if not missing_facts:
        return
    paths = {name: str(dataset[name]) for name in ("root", "file") if dataset.get(name)}
    sizes = {name: dataset.get(name) for name in ("image_size", "channels")}
    place = _typed(Place, {"data_dir": str(composed.data_dir), **paths, **sizes}, "dataset.")
    for name, size in sizes.items():
        rules.check_setting(f"dataset.{name}", size, SETTINGS[f"dataset.{name}"].notes)
    facts = identity.find_facts(dataset.name, place)
    with open_dict(dataset):
        dataset.update({name: facts[name] for name in missing_facts})


def _split_table(values: Record) -> None:
    """Keep a table that was typed as batch_size as schedule.sizes: batch_size is b_1."""
    table = values.get("batch_size")
    if isinstance(table, dict) and isinstance(values.get("schedule"), dict):
        try:
            sizes = table_of(table)
        except PlanError as error:
            raise ConfigError("batch_size", error.value, error.allowed) from None
        values["schedule"]["sizes"], values["batch_size"] = sizes, sizes[0]


def _checked(values: Record, typed_names: Collection[str] = ()) -> Config:
    """Type, check and complete settings, whose values include the facts of the data.

    No file of the data is opened.
    """
    try:
        config = _typed(Config, values)
    except OverflowError:  # A whole number was typed that no float can hold.
        raise UserError("a number has 308 digits at most") from None
    rules.check_values(config)
    rules.check_combinations(config, typed_names)
    rules.complete(config)
    return config


def _typed(kind: type[Settings], values: object, group: str = "") -> Settings:
    """An object of a dataclass with these values, each of the type of its field.

    ``group`` begins the names of the settings in errors, such as ``hydra.launcher.``.
    """
    try:
        merged = OmegaConf.unsafe_merge(OmegaConf.structured(kind), values)  # It copies nothing.
        settings: Settings = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise setting_error(error, group) from None
    return settings


def split_off(
    composed: DictConfig, kind: type[Settings], group: str = ""
) -> tuple[Settings, DictConfig]:
    """Type and check the settings that are fields of ``kind``; return them and the rest.

    ``group`` begins the names of the settings in errors, such as ``hydra.launcher.``.
    """
    names = {field.name for field in fields(kind)}
    settings = _typed(kind, {name: composed[name] for name in names}, group)
    for name, setting in settings_of(kind):
        rules.check_setting(group + name, value_of(settings, name), setting.notes)
    other_names = [str(name) for name in composed if name not in names]
    return settings, OmegaConf.masked_copy(composed, other_names)


def make_plan(config: Config) -> Plan:
    """Compute every stage of a run from its checked configuration."""
    schedule = config.schedule
    # p stands among the most used settings, not in the group of the schedule.
    profile_values: Record = {
        name: config.p if name == "p" else getattr(schedule, name)
        for name in parameters(schedule.curve)
    }
    try:
        with warnings.catch_warnings():  # The terminal shows them.
            warnings.simplefilter("ignore", PlanWarning)
            own_plan = plan(
                None if schedule.rate else schedule.curve,
                rate=schedule.curve if schedule.rate else None,
                clock=schedule.clock or "samples",
                n=training_samples(config),
                epochs=config.epochs,
                learning_rate=config.learning_rate,
                batch_size=schedule.sizes or config.batch_size,
                split=None if schedule.rate or schedule.sizes else config.split,
                stages=schedule.stages,
                warmup_samples=warmup_samples(config),
                max_batch_size=config.max_batch_size,
                batch_multiple=schedule.batch_multiple,
                batch_ratio=schedule.batch_ratio,
                algorithm3={
                    "h": None if schedule.lengths == "equal" else schedule.h,
                    "final_updates": schedule.final_updates,
                },
                **{name: value for name, value in profile_values.items() if value is not None},
            )
            return own_plan.control(config.control) if config.control else own_plan
    except PlanError as error:
        raise _as_typed(error, schedule) from None


def _as_typed(error: PlanError, schedule: ScheduleConfig) -> ConfigError:
    """An error of the plan with the setting that a person has typed, in place of the argument."""
    setting, value, advice = error.argument, error.value, error.allowed
    if setting == "h" and schedule.h == 0:  # Nobody typed h, but its lengths.
        setting, value = "lengths", schedule.lengths
    elif setting == "warmup_samples":
        advice = f"{value} samples; {advice}"
        setting, value = "warmup", schedule.warmup
    elif setting == "profile":
        value = own.as_call(schedule.profile, schedule.arguments)
        name = "schedule" if schedule.arguments is None else "schedule._target_"
        return ConfigError(name, value, advice)
    return ConfigError(setting if setting in SETTINGS else f"schedule.{setting}", value, advice)


def read_config(path: Path, trust: bool = False) -> Config:
    """The configuration in a run's config.yaml, complete and checked. Reading it runs no code.

    Facts of the data that lack are an error, and are looked for nowhere. So is a call as model,
    optimizer or schedule, without ``trust``.
    """
    content = read_bytes(path)
    try:
        config = _checked(record_values(content.decode()))
    except (UserError, ValueError, OverflowError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from None
    for call in calls_of(config).values():
        if not trust:
            raise UserError(f"{path} names code, {call}; trust=true runs it")
    return config


def record_values(text: str) -> Record:
    """The settings in a run's config.yaml, or in a part of it.

    Raises:
        ValueError: the text is not plain YAML: an alias can make it endless, and ``${…}`` would
            have OmegaConf read the environment.
    """
    try:
        # Only a text with a * can have an alias, and few have one.
        if "*" in text and any(isinstance(e, yaml.AliasEvent) for e in yaml.parse(text, YAML)):
            raise ValueError("it has an alias")
        values = yaml.load(text, YAML)
        if "${" in str(values):
            raise ValueError("it has ${")
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(getattr(error, "problem", None) or first_line(error)) from None
    return values if isinstance(values, dict) else {}


def setting_error(error: OmegaConfBaseException, group: str = "") -> UserError:
    """One readable line for an error of OmegaConf's about a key or a value in a group."""
    name = group + (error.full_key or "")
    if isinstance(error, ConfigKeyError):
        if name in ("experiment", "debug", "sweep"):
            return UserError(f"the file of {name}=… must begin with the line # @package _global_")
        return UserError(f"there is no setting '{name}'.{nearest(name, SETTINGS)}")
    reason = first_line(error)
    if "not a ListConfig" in reason:  # OmegaConf names its own classes.
        reason = 'it must be a list, such as ["module load cuda"]'
    return UserError(f"{name}: {reason}" if name else reason)
