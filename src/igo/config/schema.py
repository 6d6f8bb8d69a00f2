"""The typed configuration: what a run can be told, and nothing else.

conf/ holds the values and explains them; these classes hold the types, ``rules`` the rules, and
``load`` makes one of what was composed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from igo.config import optimizers
from igo.data.source import Place


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
    samples: int  # training images in use, those held out for validation among them
    mean: list[float]
    std: list[float]
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    workers: int = 4  # DataLoader processes, where images are read from disk
    validation: float = 0.0  # share of the samples that is held out to tune on
    redraw: bool = False  # whether each seed has images of its own, where not all are used
    root: str | None = None  # of dataset=folder
    file: str | None = None  # of dataset=arrays


@dataclass
class ModelConfig:
    """A model by name; ``timm`` true means that timm knows the name."""

    name: str
    timm: bool = False
    width: int | None = None
    stem: str | None = None


@dataclass
class _OptimizerConfig:
    """An optimizer by name; ``timm`` true means that timm knows the name."""

    name: str
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay_momentum: bool = False
    timm: bool = False
    constant_half_life: bool = False  # of adamw


if TYPE_CHECKING:
    OptimizerConfig = _OptimizerConfig
else:  # and the settings that optimizers declare, null for an optimizer that does not have them
    _declared = optimizers.settings(one.name for one in fields(_OptimizerConfig))
    OptimizerConfig = make_dataclass(
        "OptimizerConfig",
        [(name, kind, None) for name, kind in _declared.items()],
        bases=(_OptimizerConfig,),
    )
    OptimizerConfig.__module__ = __name__  # where pickle looks for it


@dataclass
class ScheduleConfig:
    """A noise profile with its own parameters (the others stay null), and how it meets epochs."""

    profile: str
    stages: int | None = None  # M
    batch_multiple: int = 1
    final_updates: int = 0
    feedback: str = "none"
    feedback_limit: float = 2.0
    noise_exponent: Any = 0.5  # ρ, or measured
    lengths: str = "equal"
    h: float = 0.0  # of lengths=algorithm3
    epsilon: float | None = None
    alpha_0: float | None = None
    p: float | None = None
    gamma: float | None = None
    kappa: float | None = None
    lam: float | None = None
    decay: float | None = None
    power: float | None = None
    form: str | None = None
    a: float | None = None
    share: float | None = None
    shape: str | None = None


@dataclass
class NoiseConfig:
    """How C² is measured: K mini-batches at the start, pieces of an epoch online."""

    batches: int = 8
    batch_size: int | None = None
    online: float = 0.02


@dataclass
class EngineConfig:
    """Where and in which precision a step runs."""

    device: str = "auto"
    precision: str = "auto"
    micro_batch_size: int | None = None
    memory: float = 8.0  # GiB
    threads: int | str | None = "auto"
    deterministic: bool = True
    batchnorm: str = "synced"
    graphs: bool | str = False
    background: bool | str = "auto"
    non_finite: str = "stop"


@dataclass
class TrackingConfig:
    """Where records go beside the run folder."""

    tool: str = "wandb"
    mode: str = "offline"
    project: str = "igo"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    artifact: bool = False


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
    evaluate_every: int = 1
    learning_rate: float = 0.1  # η_1
    batch_size: int = 32  # b_1
    max_batch_size: int | None = None
    data_dir: str = "data"
    runs_dir: str = "runs"
    dry_run: bool = False
    fresh: bool = False
    save_model: bool = False


# What the settings mean. Raised where the same ones come to mean another result, as when epochs
# came to be equal batches (2): runs of an earlier rule are never continued under a later one.
RULE = 2

# Settings that change no result: where a run computes, and where its files and records go.
NO_EFFECT = (
    "tracking", "data_dir", "runs_dir", "dry_run", "fresh", "save_model",
    "engine.device", "engine.threads", "engine.deterministic", "engine.graphs", "engine.background",
    "dataset.workers", "dataset.root", "dataset.file",
)  # fmt: skip


# Settings that may differ among the processes of a run: where each finds what it reads, and what
# the first process alone does.
OF_ONE_PROCESS = (
    "tracking.", "data_dir", "runs_dir", "save_model", "engine.threads", "engine.background",
    "dataset.workers", "dataset.root", "dataset.file",
)  # fmt: skip


def place_of(config: Config, *, download: bool = True) -> Place:
    """Where the configured data set is looked for."""
    dataset = config.dataset
    return Place(
        Path(config.data_dir),
        root=Path(dataset.root) if dataset.root else None,
        file=Path(dataset.file) if dataset.file else None,
        image_size=dataset.image_size,
        channels=dataset.channels,
        download=download,
    )


def held_out(dataset: DatasetConfig) -> int:
    """How many of the samples are for validation."""
    return round(dataset.samples * dataset.validation)


def draw_of(config: Config) -> int:
    """The seed of which images are used and which held out."""
    return config.seed if config.dataset.redraw else 0


def training_samples(config: Config) -> int:
    """n, the samples that are trained on: those in use without those held out for validation."""
    return config.dataset.samples - held_out(config.dataset)


def total_epochs(config: Config) -> int:
    """Epochs of the whole plan; a full-batch update of the final stage is one."""
    return config.epochs + config.schedule.final_updates


def shared_settings(config: Config) -> dict[str, Any]:
    """The settings that all processes of a run must have alike, by full name."""
    settings = dict(_leaves(config))
    return {
        name: value for name, (value, _) in settings.items() if not name.startswith(OF_ONE_PROCESS)
    }


def result_settings(config: Config) -> dict[str, Any]:
    """The settings that make a run's result what it is, by full name.

    Without those that change no result, and without those at their neutral value, the default of
    their field here: so a new setting renames no run. A default here can therefore never change.
    """
    settings = dict(_leaves(config))
    without = {name for name in settings for one in NO_EFFECT if f"{name}.".startswith(f"{one}.")}
    if config.engine.micro_batch_size is not None:  # else memory decides it
        without.add("engine.memory")
    without.add("p")  # schedule.p holds it where it is used
    return {
        name: value for name, (value, neutral) in settings.items()
        if name not in without and value != neutral
    }  # fmt: skip


def _leaves(config: object, prefix: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Full name, value and default of every setting; MISSING where there is no default."""
    for one in fields(config):  # type: ignore[arg-type]
        value = getattr(config, one.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{one.name}.")
        else:
            default = [] if one.default_factory is list else one.default
            yield f"{prefix}{one.name}", (value, default)


def known_settings(of: type = Config, prefix: str = "") -> list[str]:
    """Full names of all settings, groups included: ``p``, ``schedule``, ``schedule.gamma``, …"""
    names = []
    types = get_type_hints(of)
    for one in fields(of):
        names.append(prefix + one.name)
        if is_dataclass(types[one.name]):
            names += known_settings(types[one.name], f"{prefix}{one.name}.")
    return names
