"""A checked configuration, from what Hydra composed or a run's config.yaml; and its plan."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import (
    ConfigKeyError,
    OmegaConfBaseException,
)

from igo.config import own, rules
from igo.config.names import leaves
from igo.config.schema import (
    OF_SCHEDULES,
    SETTINGS,
    Config,
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
        if OmegaConf.is_dict(composed.get("dataset")):
            with open_dict(composed.dataset):
                _find_facts(composed.dataset, composed.get("data_dir"))
        values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise explain(error) from None
    for name, setting in leaves(values):
        advice = "${ would have config.yaml name another setting; rename the file, or leave it out"
        require("${" not in str(setting), name, setting, advice)
    own.split_arguments(values, OF_SCHEDULES)
    _split_table(values)
    return _checked(values, typed_names)


def _split_table(values: Record) -> None:
    """Keep a table that was typed as batch_size as schedule.sizes: batch_size is b_1."""
    table = values.get("batch_size")
    if isinstance(table, dict) and isinstance(values.get("schedule"), dict):
        try:
            values["schedule"]["sizes"] = sizes = table_of(table)
        except PlanError as error:
            raise ConfigError("batch_size", error.value, error.allowed) from None
        values["batch_size"] = sizes[0]


def _checked(values: Record, typed_names: Collection[str] = ()) -> Config:
    """Type, complete and check settings that have the facts of the data: no file is opened."""
    try:
        config: Config = _as_it_is(Config, values)
    except OverflowError:
        raise UserError("a number has 308 digits at most") from None
    except (TypeError, LookupError, AttributeError):
        # OmegaConf, which converts and explains, takes 15 ms: a sweep has thousands of runs.
        try:
            merged = OmegaConf.merge(OmegaConf.structured(Config), values)
            config = OmegaConf.to_object(merged)  # type: ignore[assignment]
        except OmegaConfBaseException as error:
            raise explain(error) from None
    rules.check_values(config)
    rules.complete(config, typed_names)
    rules.check_combinations(config, typed_names)
    return config


def _find_facts(dataset: DictConfig, data_dir: object) -> None:
    """Put in those facts of a data set that are null or missing, by looking into its files."""
    missing_facts = [name for name in identity.FACTS if dataset.get(name) is None]
    for name in missing_facts:
        dataset.pop(name, None)
    if missing_facts and dataset.get("name") in readers.NAMES:
        # These are not checked yet, and may be anything.
        entries = (dataset.get(name) for name in ("image_size", "channels"))
        image_size, channels = (x if isinstance(x, int) and x > 0 else None for x in entries)
        paths = (dataset.get("root"), dataset.get("file"))
        root, file = (Path(str(path)) if path else None for path in paths)
        place = Place(Path(str(data_dir)), root, file, image_size, channels)
        facts = identity.find_facts(dataset.name, place)
        dataset.update({name: facts[name] for name in missing_facts})


def _as_it_is(kind: Any, value: Any, prefix: str = "") -> Any:
    """The value, with dictionaries as dataclasses; only an int may become a float.

    ``prefix`` begins the names of the settings in it, such as ``dataset.augment.``.

    Raises:
        TypeError: a value is of another type.
        UserError: a group of settings has a value itself.
    """
    if is_dataclass(kind):
        if not isinstance(value, dict):
            settings = [f"{name}=VALUE" for name in SETTINGS if name.startswith(prefix)]
            group = prefix.removesuffix(".")
            raise UserError(f"{group} is a group of settings: type {' or '.join(settings)}")
        owner: Any = kind
        kinds = _kinds(owner)
        return owner(
            **{name: _as_it_is(kinds[name], x, f"{prefix}{name}.") for name, x in value.items()}
        )
    if get_origin(kind) is list and type(value) is list:
        return [_as_it_is(get_args(kind)[0], inner) for inner in value]
    types = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    types = tuple(get_origin(inner) or inner for inner in types)
    if type(value) is int and float in types:
        return float(value)
    if type(value) not in types:
        raise TypeError
    return value


_kinds = cache(get_type_hints)


def make_plan(config: Config) -> Plan:
    """Compute every stage of a run from its checked configuration."""
    schedule = config.schedule
    names = parameters(schedule.curve)
    # p stands among the most used settings, not in the group of the schedule.
    profile_values = {name: getattr(config if name == "p" else schedule, name) for name in names}
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
        setting, value, advice = error.argument, error.value, error.allowed
        # Errors of the plan name its arguments; a person has typed settings.
        if setting == "h" and schedule.h == 0:  # Nobody typed h, but its lengths.
            setting, value = "lengths", schedule.lengths
        elif setting == "warmup_samples":
            advice = f"{value} samples; {advice}"
            setting, value = "warmup", schedule.warmup
        elif setting == "profile":
            setting = "" if schedule.arguments is None else "_target_"
            value = own.as_call(schedule.profile, schedule.arguments)
        if setting not in SETTINGS:
            setting = f"schedule.{setting}".removesuffix(".")
        raise ConfigError(setting, value, advice) from None


def split_off(
    composed: DictConfig, kind: type[Settings], group: str = ""
) -> tuple[Settings, DictConfig]:
    """Type and check the settings that are fields of ``kind``; return them and the rest.

    ``group`` begins the names of the settings in errors, such as ``hydra.launcher.``.
    """
    names = {field.name for field in fields(kind)}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(kind), {n: composed[n] for n in names})
        settings: Settings = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise explain(error, group) from None
    for name, setting in settings_of(kind):
        rules.check_setting(group + name, value_of(settings, name), setting.notes)
    other_names = [str(name) for name in composed if name not in names]
    return settings, OmegaConf.masked_copy(composed, other_names)


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
    if not trust and (calls := calls_of(config)):
        raise UserError(f"{path} names code, {calls[0]}; trust=true runs it")
    return config


def record_values(text: str) -> Record:
    """The settings in a run's config.yaml, or in a part of it.

    Raises:
        ValueError: the text is not plain YAML: an alias can make it endless, and ``${…}`` would
            have OmegaConf read the environment.
    """
    try:
        if "*" in text and any(isinstance(e, yaml.AliasEvent) for e in yaml.parse(text, YAML)):
            raise ValueError("it has an alias")
        values = yaml.load(text, YAML)
        if "${" in str(values):
            raise ValueError("it has ${")
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(getattr(error, "problem", None) or first_line(error)) from None
    return values if isinstance(values, dict) else {}


def explain(error: OmegaConfBaseException, group: str = "") -> UserError:
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
