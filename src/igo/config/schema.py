"""The typed configuration: what a run can be told, and nothing else.

conf/ holds the values and explains them; these classes hold the types, ``rules`` the rules, and
``load`` makes one of what was composed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints


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
    """How C² is measured: K mini-batches at the start of each stage, pairs of parts online."""

    batches: int = 8
    batch_size: int = 64
    online: float = 0.02


@dataclass
class EngineConfig:
    """Where and in which precision a step runs."""

    device: str = "auto"
    precision: str = "auto"
    micro_batch_size: int | None = None
    memory: float = 8.0  # GiB
    threads: int | None = None
    deterministic: bool = True
    batchnorm: str = "synced"
    graphs: bool | str = "auto"
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


# Settings that change no result: where a run computes, and where its files and records go.
NO_EFFECT = (
    "tracking", "data_dir", "runs_dir", "dry_run", "fresh",
    "engine.device", "engine.threads", "engine.deterministic", "engine.graphs",
    "dataset.workers",
)  # fmt: skip


def total_epochs(config: Config) -> int:
    """Epochs of the whole plan; a full-batch update of the final stage is one."""
    return config.epochs + config.schedule.final_updates


def result_settings(config: Config) -> dict[str, Any]:
    """The settings that change a run's result: all but device, tracking, paths and the like."""
    settings = asdict(config)
    for name in NO_EFFECT:
        group, _, key = name.rpartition(".")
        del (settings[group] if group else settings)[key]
    if config.engine.batchnorm == "synced":  # local statistics depend on the number of ranks
        del settings["engine"]["batchnorm"]
    if config.engine.non_finite == "stop":  # no result has such an update in it
        del settings["engine"]["non_finite"]
    if config.engine.micro_batch_size is not None:  # else memory decides it
        del settings["engine"]["memory"]
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
