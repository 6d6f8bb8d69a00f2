"""The typed configuration: what a run can be told, and nothing else.

conf/ holds the values and explains them; these classes hold the types. ``load`` turns what Hydra
composed into a ``Config`` that has passed every check in igo.checks, with nothing left to derive.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from igo.errors import ConfigError, UserError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Own = TypeVar("Own", bound="DataclassInstance")


@dataclass
class AugmentConfig:
    """Random changes to training images: crop after zero padding (pixels), flip, rotation (±°)."""

    crop: int = 0
    flip: bool = False
    rotation: float = 0.0


@dataclass
class DatasetConfig:
    """A data set: its facts (checked against the files when they are read) and its augmentation."""

    name: str
    classes: int
    channels: int
    image_size: int
    samples: int  # n, training samples in use
    mean: list[float]
    std: list[float]
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    workers: int = 4  # DataLoader processes, where images are read from disk


@dataclass
class ModelConfig:
    """A model by name; ``timm`` true means that timm knows the name."""

    name: str
    timm: bool = False
    width: int | None = None
    stem: str | None = None


@dataclass
class OptimizerConfig:
    """SGD (no momentum), stochastic heavy ball (shb) or normalised heavy ball (nshb)."""

    name: str
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay_momentum: bool = False


@dataclass
class ScheduleConfig:
    """A noise profile with its own parameters (the others stay null), and how it meets epochs."""

    profile: str
    stages: int | None = None  # M
    batch_multiple: int = 1
    final_updates: int = 0
    feedback: str = "none"
    feedback_limit: float = 2.0
    p: float | None = None
    gamma: float | None = None
    kappa: float | None = None
    lam: float | None = None
    decay: float | None = None
    power: float | None = None
    form: str | None = None
    a: float | None = None


@dataclass
class NoiseConfig:
    """How C² is measured: K mini-batches at the start of each stage, halves of batches online."""

    batches: int = 8
    batch_size: int = 64
    online: float = 0.02


@dataclass
class EngineConfig:
    """Where and in which precision a step runs."""

    device: str = "auto"
    precision: str = "auto"
    micro_batch_size: int = 1024
    threads: int | None = None
    deterministic: bool = True


@dataclass
class TrackingConfig:
    """Where records go beside the run folder."""

    tool: str = "wandb"
    mode: str = "offline"
    project: str = "igo"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class Config:
    """One run. The fields at the top are the knobs that people turn."""

    dataset: DatasetConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    engine: EngineConfig
    tracking: TrackingConfig
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    p: float = 0.5
    split: float = 0.5
    seed: int = 0
    epochs: int = 1
    learning_rate: float = 0.1  # η_1
    batch_size: int = 32  # b_1
    max_batch_size: int | None = None
    data_dir: str = "data"
    runs_dir: str = "runs"
    dry_run: bool = False
    fresh: bool = False


def load(composed: DictConfig, typed: Collection[str] = ()) -> Config:
    """Type, complete and check a composed configuration.

    Args:
        composed: what Hydra made of conf/ and the command line.
        typed: full names of the settings that the user typed; a typed setting that would have no
            effect, or that contradicts another one, is an error rather than silently ignored.

    Raises:
        ConfigError: naming the setting, its value and what is allowed.
    """
    from igo import checks  # checks reads the classes above

    try:
        values = OmegaConf.to_container(composed, resolve=True)
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
    if not isinstance(written, DictConfig):
        raise UserError(f"{path} does not hold a run's configuration")
    return load(written)


def result_settings(config: Config) -> dict[str, Any]:
    """The settings that change a run's result: all but device, tracking, paths and the like."""
    settings = asdict(config)
    for name in ("tracking", "data_dir", "runs_dir", "dry_run", "fresh"):
        del settings[name]
    for name in ("device", "threads", "deterministic"):
        del settings["engine"][name]
    del settings["dataset"]["workers"]
    del settings["p"]  # schedule.p holds it where it is used
    return settings


def known_settings(of: type = Config, prefix: str = "") -> list[str]:
    """Full names of all settings, groups included: ``p``, ``schedule``, ``schedule.gamma``, …"""
    names = []
    types = get_type_hints(of)
    for one in fields(of):
        names.append(prefix + one.name)
        if is_dataclass(types[one.name]):
            names += known_settings(types[one.name], f"{prefix}{one.name}.")
    return names


def explain(error: Exception, composed: DictConfig | None = None) -> UserError:
    """One readable line for an error of OmegaConf's about a key or a value."""
    name = str(getattr(error, "full_key", "") or "")
    reason = str(getattr(error, "msg", "") or error).splitlines()[0]
    if isinstance(error, ConfigKeyError) or "is not in struct" in reason:
        return UserError(f"there is no setting '{name}'.{nearest(name, known_settings())}")
    value = OmegaConf.select(composed, name, throw_on_missing=False) if composed else None
    if "not a ListConfig" in reason:
        return ConfigError(name, value, "it must be a list, such as [16] or [16,64]")
    wanted = re.search(r"could not be converted to (\w+)", reason)
    if wanted:
        kind = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
        return ConfigError(name, value, f"it must be {kind.get(wanted[1], wanted[1])}")
    return UserError(f"{name}: {reason}" if name else reason)
