"""A checked configuration, from what Hydra composed or from a run's config.yaml."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from igo.config import rules
from igo.config.own import as_calls
from igo.config.schema import SETTINGS, Config, settings_of, value_of
from igo.data import identity, readers
from igo.data.source import Place
from igo.ground.errors import ConfigError, UserError, first_line, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# What a value must be, by OmegaConf's name of its type.
KINDS = {
    "IntegerNode": "a whole number",
    "FloatNode": "a number",
    "BooleanNode": "true or false",
    "StringNode": "a word",
    "ListConfig": "a list, such as [0.5]",
}
Settings = TypeVar("Settings", bound="DataclassInstance")
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml takes a tenth of the time


def load(composed: DictConfig, typed: Collection[str] = ()) -> Config:
    """Type, complete and check a composed configuration.

    Args:
        composed: what Hydra made of conf/ and the command line.
        typed: full names of the settings that the user typed. A typed setting is an error if it
            would have no effect or contradicts another one.
    """
    try:
        if OmegaConf.is_dict(composed.get("dataset")):
            with open_dict(composed.dataset):  # what arguments refer to before it is found
                for name in identity.FACTS:
                    composed.dataset.setdefault(name)
        merged, unknown = _merged(composed)
        if unknown and merged.dataset.name in readers.NAMES:
            composed.dataset.update(_find_facts(merged, unknown))
            merged, _ = _merged(composed)
        config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise explain(error) from None
    rules.check_values(config)
    rules.complete(config, typed)
    rules.check_combinations(config, typed)
    return config


def _merged(composed: DictConfig) -> tuple[DictConfig, list[str]]:
    """The settings with their types, and which facts of the data set are null."""
    values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    as_calls(values)
    dataset = values.get("dataset", {})
    unknown = [name for name in identity.FACTS if dataset.get(name) is None]
    values["dataset"] = {k: value for k, value in dataset.items() if k not in unknown}
    return OmegaConf.merge(OmegaConf.structured(Config), values), unknown


def _find_facts(config: Any, unknown: Collection[str]) -> dict[str, Any]:
    """Those facts of a data set that are null, by looking into its files."""
    dataset = config.dataset
    size, channels = (
        None if name in unknown or dataset[name] < 1 else dataset[name]
        for name in ("image_size", "channels")
    )
    root, file = (Path(path) if path else None for path in (dataset.root, dataset.file))
    place = Place(Path(config.data_dir), root, file, image_size=size, channels=channels)
    found = identity.find_facts(dataset.name, place)
    return {name: found[name] for name in unknown}


def split_off(composed: DictConfig, kind: type[Settings]) -> tuple[Settings, DictConfig]:
    """Type and check the settings that are fields of ``kind``; return them and the rest."""
    names = {field.name for field in fields(kind)}
    try:
        typed = OmegaConf.merge(OmegaConf.structured(kind), {n: composed[n] for n in names})
        settings: Settings = OmegaConf.to_object(typed)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise explain(error) from None
    for name, setting in settings_of(kind):
        rules.check(name, value_of(settings, name), setting.notes)
    rest = [str(name) for name in composed if name not in names]
    return settings, OmegaConf.masked_copy(composed, rest)


def read_config(path: Path) -> Config:
    """The configuration in a run's config.yaml, complete and checked."""
    try:
        values = record_values(path.read_bytes().decode())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from None
    if not isinstance(values, dict) or "dataset" not in values:
        raise UserError(f"{path} does not hold a run's configuration")
    for gone in ("batch_size", "online"):  # of versions before 0.3: how each epoch was measured
        values.get("noise", {}).pop(gone, None)
    try:
        return load(OmegaConf.create(values))
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {explain(error)}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def record_values(text: str) -> Any:
    """The values in a run's config.yaml.

    Raises:
        ValueError: the text is not plain YAML.
    """
    try:
        return yaml.load(text, YAML)
    except yaml.YAMLError as error:
        raise ValueError(getattr(error, "problem", None) or first_line(error)) from None


def explain(error: OmegaConfBaseException) -> UserError:
    """One readable line for an error of OmegaConf's about a key or a value."""
    name = error.full_key or ""
    if isinstance(error, ConfigKeyError) and name in ("experiment", "debug", "sweep"):
        return UserError(f"the file of {name}=… must begin with the line # @package _global_")
    if isinstance(error, ConfigKeyError):
        return UserError(f"there is no setting '{name}'.{nearest(name, SETTINGS)}")
    right = KINDS.get(type(error.child_node).__name__)
    if isinstance(error, ValidationError) and right:
        return ConfigError(name, error.value, f"it must be {right}")
    return UserError(f"{name}: {first_line(error)}" if name else first_line(error))
