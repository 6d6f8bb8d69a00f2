"""The typed configuration: the settings of a run, each with its type, default and range.

conf/ holds the values and explains them. ``rules`` checks them, and ``load`` makes a Config of
what Hydra composed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

from igo.config import own
from igo.data import readers
from igo.data.readers import Place
from igo.ground.files import CONF
from igo.ground.numbers import (
    AT_LEAST_ONE,
    BELOW_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    Count,
    Rule,
    at_least,
    within,
)
from igo.plans.arguments import CLOCKS, RULES
from igo.plans.controls import CONTROLS
from igo.plans.profiles import PROFILES, Declared, notes_of, parameters

LAMBDA = Rule(lambda x: x >= 1, "λ = b_{m+1}/b_m must be 1 or more")
TWO = at_least(2)
# The settings of each optimizer, and their defaults.
OPTIMIZERS: dict[str, dict[str, float | None]] = {
    "sgd": {"weight_decay": 0.0},
    "shb": {"momentum": 0.0, "weight_decay": 0.0},
    "nshb": {"momentum": 0.0, "weight_decay": 0.0},
    "adamw": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
}
FORMULAS = {  # The name of an optimizer gives the formula of its δ.
    "sgd": "η √(C²/b)",
    "shb": "η √((1 + β̂) C²/b + β̂ ‖∇f‖²), β̂ = β(β² - β + 1)/(1 - β)²",
    "nshb": "η √(C²/b + 4β² (C²/b + ‖∇f‖²))",
}
# A new file there is a new logger, without an edit here.
TOOLS = tuple(sorted(file.stem for file in (CONF / "tracking").glob("*.yaml")))


class Setting(NamedTuple):
    """A setting as it is declared; ``default`` is MISSING if it has none."""

    kind: Any
    default: Any
    notes: Declared  # Its text is the name in tables.


def settings_of(owner: type, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """The settings of a class and of the classes in it, by full name.

    The arguments of the user's own are no settings of igo's.
    """
    kinds, annotated = get_type_hints(owner), get_type_hints(owner, include_extras=True)
    for declaration in fields(owner):
        kind, name = kinds[declaration.name], prefix + declaration.name
        if is_dataclass(kind):
            yield from settings_of(kind, f"{name}.")  # type: ignore[arg-type]
        elif declaration.name != "arguments":
            # Only lists have factories: nested classes went another way above.
            default = [] if declaration.default_factory is list else declaration.default
            yield name, Setting(kind, default, notes_of(annotated[declaration.name]))


def value_of(config: object, setting: str) -> Any:
    """The value behind a full name such as ``schedule.gamma``."""
    return attrgetter(setting)(config)


def calls_of(config: object) -> dict[str, str]:
    """The user's own model, optimizer and profile as calls, by the settings that name them."""
    calls = {}
    for group, key in own.NAMES.items():
        name, arguments = f"{group}.{key}", value_of(config, f"{group}.arguments")
        if arguments is not None:
            calls[name] = own.as_call(value_of(config, name), arguments)
    return calls


@dataclass
class AugmentConfig:
    """Random changes to training images: crop after zero padding (pixels), flip, rotation (±°)."""

    crop: Annotated[int, NOT_NEGATIVE] = 0
    flip: bool = False
    rotation: Annotated[float, within(0, 180)] = 0.0


@dataclass
class DatasetConfig:
    """A data set: its facts (checked against the files when they are read) and its augmentation.

    ``samples`` counts the training images in use, with those held out for validation.
    ``validation`` is the share of them that is held out to tune on. With ``redraw`` each seed draws
    its own images, if not all are used. ``workers`` is the number of DataLoader processes for
    images on disk. Only dataset=folder has a ``root``, and only dataset=arrays a ``file``.
    """

    name: Annotated[str, readers.NAMES, "data"]
    classes: Annotated[int, TWO]
    channels: Count
    image_size: Count
    samples: Annotated[int, TWO]
    mean: list[float]
    std: list[float]
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    workers: Annotated[int | None, within(0, 1024)] = None
    validation: Annotated[float, BELOW_ONE] = 0.0
    redraw: bool = False
    root: str | None = None
    file: str | None = None


@dataclass
class ModelConfig:
    """A model by name; ``timm`` true means that timm knows it. With ``arguments``, see own."""

    name: Annotated[str, "model"]
    timm: bool = False
    width: Annotated[int | None, within(1, 1024)] = None
    stem: Annotated[str | None, ("cifar", "imagenet")] = None
    arguments: dict[str, Any] | None = None


@dataclass
class OptimizerConfig:
    """An optimizer by name; with ``arguments``, see own."""

    name: Annotated[str, tuple(OPTIMIZERS), "optimizer"]
    momentum: Annotated[float, BELOW_ONE, "β"] = 0.0
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    beta1: Annotated[float | None, BELOW_ONE] = None
    beta2: Annotated[float | None, BELOW_ONE] = None
    eps: Annotated[float | None, POSITIVE] = None
    arguments: dict[str, Any] | None = None

    @property
    def settings(self) -> dict[str, float | None]:
        """The settings that it has, and their defaults."""
        return OPTIMIZERS[self.name] if self.arguments is None else {}

    @property
    def typed(self) -> str:
        """As a person types it."""
        name = own.as_call(self.name, self.arguments)
        return name if "." in name else f"optimizer={name}"

    @property
    def formula(self) -> str | None:
        """The formula of its noise level δ; None if no δ is known for it."""
        return FORMULAS.get(self.name)

    @property
    def why_null(self) -> str | None:
        """Why records have neither ``delta_m`` nor ``delta_measured``; None if they do."""
        if self.formula:
            return None
        return f"delta_m and delta_measured are null: no δ is known for {self.typed}"


@dataclass
class ScheduleConfig:
    """A noise profile with its parameters (those of other profiles are null), and the stages.

    With ``arguments`` the profile is the user's own, see own. With ``rate``, its name (``own`` for
    such a one), it is η/η_1 and not φ. ``sizes`` is the table that was typed as batch_size.
    ``warmup`` is in epochs.
    """

    profile: Annotated[str, tuple(PROFILES), "schedule"]
    stages: Annotated[int | None, RULES["stages"]] = None
    warmup: Annotated[float, NOT_NEGATIVE, "warm-up"] = 0.0
    batch_multiple: Annotated[int, RULES["batch_multiple"]] = 1
    batch_ratio: Annotated[float, RULES["batch_ratio"]] = 1.0
    rate: Annotated[str | None, own.CURVES] = None
    sizes: Annotated[dict[Any, Any] | None, "b"] = None
    clock: Annotated[str | None, CLOCKS] = None
    final_updates: Annotated[int, RULES["final_updates"]] = 0
    lengths: Annotated[str, ("equal", "algorithm3")] = "equal"
    h: Annotated[float, RULES["h"]] = 0.0
    epsilon: Annotated[float | None, RULES["epsilon"]] = None
    alpha_0: Annotated[float | None, RULES["alpha_0"]] = None
    kappa: Annotated[float | None, POSITIVE] = None
    lam: Annotated[float | None, LAMBDA] = None
    a: float | None = None
    decay: float | None = None
    floor: float | None = None
    form: str | None = None
    gamma: float | None = None
    power: float | None = None
    shape: str | None = None
    share: float | None = None
    arguments: dict[str, Any] | None = None

    @property
    def curve(self) -> str | Callable[..., float]:
        """φ, or with ``rate`` η/η_1, by its name or as a function."""
        if self.arguments is None:
            return self.profile
        return partial(own.made_by, "schedule", self.profile, self.arguments, object)


# The parameters of each profile, as settings.
PARAMETERS = {profile: {*parameters(profile)} for profile in PROFILES}
PARAMETERS["step"] |= {"kappa", "lam"}  # They give its γ.
OF_PROFILES = set.union(*PARAMETERS.values())
OF_EVERY_SCHEDULE = {setting.name for setting in fields(ScheduleConfig)} - {
    "profile",
    "arguments",
    *OF_PROFILES,
}


@dataclass
class NoiseConfig:
    """How C² is measured before training: K mini-batches."""

    batches: Annotated[int, TWO, "noise batches"] = 8  # A variance needs two.


@dataclass
class EngineConfig:
    """Where and in which precision a step runs."""

    device: Annotated[str, ("auto", "cpu", "cuda")] = "auto"
    precision: Annotated[str, ("auto", "fp32", "bf16", "fp16")] = "auto"
    micro_batch_size: Annotated[int | None, AT_LEAST_ONE] = None
    deterministic: bool = True
    compile: bool = False


@dataclass
class TrackingConfig:
    """Where records go beside the run folder."""

    tool: Annotated[str, TOOLS] = "wandb"
    mode: Annotated[str, ("auto", "online", "offline", "disabled")] = "auto"
    project: str | None = None  # conf/tracking/wandb.yaml has the default.
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    tags: list[str] = field(default_factory=list)
    artifact: bool = False


@dataclass
class Config:
    """One run. Settings without a group are the most used."""

    dataset: DatasetConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    engine: EngineConfig
    tracking: TrackingConfig
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    p: float | None = None  # conf/config.yaml has the default, and the profile the range.
    split: Annotated[float, RULES["split"]] = 0.5
    control: Annotated[str | None, CONTROLS, "control ="] = None
    seed: Annotated[int, Rule(lambda s: 0 <= s < 2**32, "it must be in [0, 2^32)")] = 0
    epochs: Annotated[int, RULES["epochs"]] = 1
    evaluate_every: Count = 1
    checkpoint_seconds: Annotated[float, NOT_NEGATIVE] = 10.0
    learning_rate: Annotated[float, RULES["learning_rate"], "η₁"] = 0.1
    batch_size: Annotated[int, RULES["batch_size"], "b₁"] = 32
    max_batch_size: Annotated[int | None, RULES["max_batch_size"], "b max"] = None
    data_dir: str = "data"
    runs_dir: str = "runs"
    dry_run: bool = False
    fresh: bool = False
    save_model: bool = False


SETTINGS = dict(settings_of(Config))


# Settings that change no result: where a run computes, and where its files and records are.
NO_EFFECT = (
    "tracking.",
    "data_dir",
    "runs_dir",
    "dry_run",
    "fresh",
    "save_model",
    "checkpoint_seconds",
    "engine.device",
    "engine.deterministic",
    "dataset.workers",
    "dataset.root",
    "dataset.file",
)
# Runs that differ in these alone are repetitions of one setting.
# evaluate_every changes what is recorded, and no training.
REPEATED = ("seed", "evaluate_every")
# Settings with other data, another model or another length of training are not compared.
TASK = ("dataset.", "model.", "epochs", "schedule.final_updates")


def has_effect(name: str) -> bool:
    """Whether the setting of this full name changes results."""
    return not name.startswith(NO_EFFECT)


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
    """The seed that chooses the images in use, and those held out."""
    return config.seed if config.dataset.redraw else 0


def training_samples(config: Config) -> int:
    """n, the samples that are trained on: those in use but not held out for validation."""
    return config.dataset.samples - held_out(config.dataset)


def warmup_samples(config: Config) -> int:
    """The samples over which η rises to η_1."""
    return round(config.schedule.warmup * training_samples(config))


def total_epochs(config: Config) -> int:
    """Epochs of the whole plan; a full-batch update of the final stage is one."""
    return config.epochs + config.schedule.final_updates
