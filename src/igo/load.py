"""From what Hydra composed, or a run's config.yaml, to a checked configuration."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from igo import checks
from igo.config import Config, known_settings
from igo.errors import ConfigError, UserError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Own = TypeVar("Own", bound="DataclassInstance")


def load(composed: DictConfig, typed: Collection[str] = ()) -> Config:
    """Type, complete and check a composed configuration.

    Args:
        composed: what Hydra made of conf/ and the command line.
        typed: full names of the settings that the user typed; a typed setting that would have no
            effect, or that contradicts another one, is an error rather than silently ignored.

    Raises:
        ConfigError: naming the setting, its value and what is allowed.
    """
    if composed.get("run") is not None:
        allowed = "it is one run, which has its configuration; leave -m out"
        raise ConfigError("run", composed["run"], allowed)
    try:
        values = OmegaConf.to_container(composed, resolve=True)
        values.pop("run", None)  # type: ignore[union-attr, call-arg, arg-type]
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), values))
    except OmegaConfBaseException as error:
        raise explain(error, composed) from None
    if not isinstance(config, Config):
        raise TypeError(f"a Config was expected, not {type(config)}")
    checks.check_values(config)
    checks.complete(config, typed)
    checks.check_combinations(config, typed)
    return config


def split_off(composed: DictConfig, kind: type[Own]) -> tuple[Own, DictConfig]:
    """Type the settings that are fields of ``kind``; return them and the rest, which is a run's.

    Raises:
        UserError: a value of the wrong type.
    """
    names = {one.name for one in fields(kind)}
    try:
        typed = OmegaConf.merge(OmegaConf.structured(kind), {n: composed[n] for n in names})
        own: Own = OmegaConf.to_object(typed)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise explain(error, composed) from None
    rest = [str(name) for name in composed if name not in names]
    return own, OmegaConf.masked_copy(composed, rest)


def of_file(path: Path) -> Config:
    """The configuration of a run, from its config.yaml, complete and checked as it was written.

    Raises:
        UserError: the file cannot be read, or is of another version of this project.
    """
    try:
        written = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(written, DictConfig) or "dataset" not in written:
        raise UserError(f"{path} does not hold a run's configuration")
    try:
        return load(written)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def explain(error: Exception, composed: DictConfig | None = None) -> UserError:
    """One readable line for an error of OmegaConf's about a key or a value."""
    name = str(getattr(error, "full_key", "") or "")
    reason = str(getattr(error, "msg", "") or error).splitlines()[0]
    if isinstance(error, ConfigKeyError) or "is not in struct" in reason:
        return UserError(f"there is no setting '{name}'.{nearest(name, known_settings())}")
    value = OmegaConf.select(composed, name, throw_on_missing=False) if composed else None
    if "not a ListConfig" in reason:
        return ConfigError(name, value, "it must be a list, such as [16] or [16,64]")
    if name in checks.CHOICES:
        return ConfigError(name, value, f"it must be one of {', '.join(checks.CHOICES[name])}")
    wanted = re.search(r"could not be converted to (\w+)", reason)
    if wanted:
        kind = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
        return ConfigError(name, value, f"it must be {kind.get(wanted[1], wanted[1])}")
    return UserError(f"{name}: {reason}" if name else reason)
