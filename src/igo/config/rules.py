"""Every rule that a configuration must keep, checked before any compute is spent."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection
from typing import Any

import yaml

from igo.config import hints
from igo.config.optimizers import OPTIMIZERS
from igo.config.plan import stages_of
from igo.config.schema import (
    SETTINGS,
    Config,
    DatasetConfig,
    OptimizerConfig,
    held_out,
    profile_settings,
    training_samples,
    value_of,
)
from igo.ground.errors import ConfigError, NoEffect
from igo.ground.paths import CONF
from igo.method.profiles import GAMMA, declared, parameters
from igo.method.ranges import Declared

CHOICES = {name: s.notes.choices for name, s in SETTINGS.items() if s.notes.choices}
PARTS = ("width", "stem")  # settings that some models have and others have not


def _model_parts() -> dict[str, set[str]]:
    """The built-in models, and the PARTS that each has in conf/model."""
    options = (yaml.safe_load(file.read_text()) for file in sorted((CONF / "model").glob("*.yaml")))
    return {model["name"]: {*PARTS} & {*model} for model in options if not model.get("timm")}


MODEL_PARTS = _model_parts()

WORDS = (  # allowed in place of a number
    ("engine.threads", "auto"),
)  # fmt: skip


def check(setting: str, value: Any, notes: Declared) -> None:
    """Check that a value is one of its setting's choices, and in its range."""
    word = str(value).lower() if isinstance(value, bool) else value
    if value is None or (setting, value) in WORDS:
        return
    if notes.choices and word not in notes.choices:
        raise ConfigError(setting, word, hints.choice(setting, str(word), notes.choices))
    if notes.rule:
        holds, allowed = notes.rule
        if not isinstance(value, (int, float)) or not math.isfinite(value) or not holds(value):
            raise ConfigError(setting, value, allowed)


def check_values(config: Config) -> None:
    """Check each setting by itself: its choices, and the range of its numbers."""
    optimizer = config.optimizer
    for name, setting in SETTINGS.items():
        check(name, value_of(config, name), setting.notes)
    if not optimizer.timm and optimizer.name not in OPTIMIZERS:
        allowed = hints.choice("optimizer.name", optimizer.name, OPTIMIZERS)
        raise ConfigError("optimizer.name", optimizer.name, allowed)
    values = profile_settings(config)
    for name, notes in declared(config.schedule.profile).items():
        check("p" if name == "p" else f"schedule.{name}", values[name], notes)
    for name, notes in declared(optimizer.function).items():
        check(f"optimizer.{name}", getattr(optimizer, name), notes)
    project = config.tracking.project or ""
    if config.tracking.tool == "wandb" and (not project or {*project} & {*"/\\#?%:"}):
        allowed = "it names a project of W&B's, without / \\ # ? % :"
        raise ConfigError("tracking.project", config.tracking.project, allowed)


def complete(config: Config, typed: Collection[str]) -> None:
    """Fill in what follows from other settings, so that each run has one full description."""
    schedule = config.schedule
    for name, parameter in parameters(config.optimizer.function).items():
        if getattr(config.optimizer, name) is None:
            setattr(config.optimizer, name, parameter.default)
    if "p" not in parameters(schedule.profile):
        if "p" in typed:
            allowed = f"the profile '{schedule.profile}' has no p; leave it out"
            raise NoEffect("p", config.p, f"{allowed}, or use schedule=graduated")
        config.p = None
    schedule.stages = stages_of(config)
    if config.max_batch_size is not None and config.max_batch_size >= training_samples(config):
        config.max_batch_size = None  # n is a cap anyway
    if schedule.profile == "constant":
        if "split" in typed:
            allowed = "constant noise has no decay to split; leave it out"
            raise NoEffect("split", config.split, allowed)
        config.split = 1.0
    if schedule.profile == "step":
        if schedule.kappa is not None or schedule.lam is not None:
            _follow_kappa_lambda(config, typed)
        elif schedule.gamma is None:
            schedule.gamma = GAMMA


def _follow_kappa_lambda(config: Config, typed: Collection[str]) -> None:
    """Set γ and split from κ and λ: γ = κ/√λ, and split = ln κ/ln γ, the share of η."""
    schedule = config.schedule
    kappa = 1.0 if schedule.kappa is None else schedule.kappa
    lam = 1.0 if schedule.lam is None else schedule.lam
    gamma = kappa / math.sqrt(lam)
    both = f"schedule.kappa={kappa:g} and schedule.lam={lam:g}"
    preset = not {"schedule.kappa", "schedule.lam"} & {*typed}  # as in schedule=method3
    preset_advice = "the schedule has its own decay and split; leave it out, or use schedule=step"
    if gamma == 0:
        allowed = f"{both} give κ/√λ = 0 to float precision; it must be above 0"
        raise ConfigError("schedule.kappa", schedule.kappa, allowed)
    if gamma >= 1:
        raise ConfigError(
            "schedule.kappa", schedule.kappa, f"{both} give κ/√λ = {gamma:g}: the noise would not"
            " fall; it must be below 1 (for constant noise use schedule=constant)"
        )  # fmt: skip
    if schedule.gamma is not None and not math.isclose(schedule.gamma, gamma, rel_tol=1e-9):
        allowed = preset_advice if preset else f"{both} give γ = κ/√λ = {gamma:g}; leave one out"
        raise ConfigError("schedule.gamma", schedule.gamma, allowed)
    split = min(1.0, abs(math.log(kappa) / math.log(gamma)))  # abs: not -0.0
    if "split" in typed and not math.isclose(config.split, split, abs_tol=1e-9):
        allowed = preset_advice if preset else f"{both} make it {split:.5g}; leave one out"
        raise ConfigError("split", config.split, allowed)
    schedule.gamma, schedule.kappa, schedule.lam = gamma, None, None
    config.split = split


def check_combinations(config: Config, typed: Collection[str]) -> None:
    """Check the rules between settings."""
    _check_schedule(config, typed)
    _check_batches(config)
    _check_place(config.dataset)
    _check_model_fits_data(config)
    _check_optimizer(config.optimizer)
    if "engine.memory" in typed and config.engine.micro_batch_size is not None:
        allowed = "it chooses engine.micro_batch_size, and that is set; leave one out"
        raise ConfigError("engine.memory", config.engine.memory, allowed)


def _check_schedule(config: Config, typed: Collection[str]) -> None:
    schedule, profile = config.schedule, config.schedule.profile
    if "schedule.a" in typed and schedule.form != "inverse_time":
        raise ConfigError("schedule.a", schedule.a, "only schedule.form=inverse_time has it")
    if "schedule.h" in typed and schedule.lengths == "equal":
        raise ConfigError("schedule.h", schedule.h, "only schedule.lengths=algorithm3 has it")
    for name, value in profile_settings(config).items():
        if value is None and parameters(profile)[name].default is inspect.Parameter.empty:
            setting = "p" if name == "p" else f"schedule.{name}"
            raise ConfigError(setting, None, f"the profile '{profile}' needs it")
    if schedule.stages is not None and schedule.stages > config.epochs:
        raise ConfigError(
            "schedule.stages", schedule.stages, f"each stage needs an epoch of its own, and"
            f" epochs={config.epochs}; type epochs={schedule.stages} or more, or schedule.stages="
            f"{config.epochs} or fewer"
        )  # fmt: skip


def _check_batches(config: Config) -> None:
    n, b_1, b_max = training_samples(config), config.batch_size, config.max_batch_size
    share, samples = config.dataset.validation, config.dataset.samples
    if share > 0 and not (held_out(config.dataset) > 0 and n >= 2):
        allowed = f"of {samples} samples that leaves {samples - n} to validate and {n} to train on"
        raise ConfigError("dataset.validation", share, allowed)
    if b_1 > n:
        raise ConfigError("batch_size", b_1, f"{config.dataset.name} has {n} training samples")
    if b_max is not None and b_max < b_1:
        raise ConfigError("max_batch_size", b_max, f"it must be at least batch_size={b_1}")
    multiple = config.schedule.batch_multiple
    if b_1 % multiple:
        near = max(round(b_1 / multiple), 1) * multiple
        allowed = f"it must be a multiple of schedule.batch_multiple={multiple}, e.g. {near}"
        raise ConfigError("batch_size", b_1, allowed)
    if config.noise.batches > n:
        allowed = f"it must be at most the {n} training samples"
        raise ConfigError("noise.batches", config.noise.batches, allowed)


def _check_place(dataset: DatasetConfig) -> None:
    for setting, owner in (("root", "folder"), ("file", "arrays")):
        value = getattr(dataset, setting)
        if value is not None and dataset.name != owner:
            raise ConfigError(f"dataset.{setting}", value, f"only dataset={owner} has it")
    if dataset.cache and dataset.name not in ("folder", "imagenet"):
        allowed = "only dataset=folder and dataset=imagenet have it"
        raise ConfigError("dataset.cache", dataset.cache, allowed)


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    """Refuse a setting that the optimizer does not have."""
    settings = {name for each in OPTIMIZERS.values() for name in parameters(each)}
    for name in sorted(settings - parameters(optimizer.function).keys()):
        if value := getattr(optimizer, name):
            raise ConfigError(f"optimizer.{name}", value, f"{optimizer.typed} has no {name}")


def _check_model_fits_data(config: Config) -> None:
    dataset, model = config.dataset, config.model
    for setting, values in (("dataset.mean", dataset.mean), ("dataset.std", dataset.std)):
        if len(values) != dataset.channels:
            allowed = f"dataset.channels={dataset.channels}; it must have a number for each"
            raise ConfigError(setting, values, allowed)
    if not all(0 <= mean <= 1 for mean in dataset.mean):
        raise ConfigError("dataset.mean", dataset.mean, "each must be in [0, 1], as pixels are")
    if not all(1e-6 <= std <= 1e6 for std in dataset.std):
        raise ConfigError("dataset.std", dataset.std, "each must be in [0.000001, 1,000,000]")
    if dataset.augment.crop >= dataset.image_size:
        allowed = f"it must be below the image size, {dataset.image_size}"
        raise ConfigError("dataset.augment.crop", dataset.augment.crop, allowed)
    for part in ("crop", "rotation"):
        value = getattr(dataset.augment, part)
        if dataset.name == "imagenet" and value:
            allowed = "imagenet has random resized crops and flips instead; it must be 0"
            raise ConfigError(f"dataset.augment.{part}", value, allowed)
    if not model.timm and model.name not in MODEL_PARTS:
        allowed = hints.choice("model.name", model.name, MODEL_PARTS)
        raise ConfigError("model.name", model.name, allowed)
    for part in PARTS:
        if not model.timm and (getattr(model, part) is None) == (part in MODEL_PARTS[model.name]):
            allowed = f"its settings come with it; choose it as model={model.name}"
            raise ConfigError("model.name", model.name, allowed)
    if model.stem == "imagenet" and dataset.image_size < 32:
        raise ConfigError(
            "model.stem", model.stem, f"it divides an image's side by 32, and {dataset.name} has"
            f" {dataset.image_size} pixels; use model.stem=cifar"
        )  # fmt: skip
