"""Every rule that a configuration must keep, checked before any compute is spent."""

import math
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any

import yaml

from igo.config.schema import (
    OF_PROFILES,
    OPTIMIZERS,
    PARAMETERS,
    SETTINGS,
    Config,
    DatasetConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    calls_of,
    held_out,
    training_samples,
    value_of,
    warmup_samples,
)
from igo.ground.errors import ConfigError, nearest, require
from igo.ground.files import CONF
from igo.ground.numbers import fault
from igo.plans.algorithm3 import stages_of
from igo.plans.arguments import Arguments, PlanError
from igo.plans.profiles import GAMMA, Declared, parameters

Faults = Iterator[tuple[str, str]]  # Each is a setting that breaks a rule, and what is right.
MODELS = {file.stem: file for file in sorted((CONF / "model").glob("*.yaml"))}


def right_options(group: str, value: str, options: Collection[str]) -> str:
    """The options, none of which is ``value``, and the nearest of them."""
    advice = f"it must be one of {', '.join(options)}"
    kind = group.removesuffix(".name")
    if kind == "model":
        advice += f", or any model of timm's: model=timm model.name={value}"
    if kind == "optimizer":
        advice += ", or any of PyTorch's or timm's: optimizer._target_=timm.optim.Lion"
    return f"{advice}.{nearest(value, options)}"


def check_setting(setting: str, value: Any, notes: Declared) -> None:
    """Check that a value is one of its setting's choices, and in its range."""
    if value is None:
        return
    if notes.choices and value not in notes.choices:
        raise ConfigError(setting, value, right_options(setting, value, notes.choices))
    if notes.rule:
        require(not fault(value, notes.rule), setting, value, notes.rule.words)


def check_values(config: Config) -> None:
    """Check each setting by itself: its choices, and the range of its numbers.

    ``plan`` checks the settings of the noise profile.
    """
    own_names = calls_of(config)  # Each is the path of a class, and none of the choices.
    for name, setting in SETTINGS.items():
        if name not in own_names:
            check_setting(name, value_of(config, name), setting.notes)
    project = config.tracking.project
    if config.tracking.tool == "wandb" and (not project or {*project} & {*"/\\#?%:"}):
        advice = "it names a project of W&B's, without / \\ # ? % :"
        raise ConfigError("tracking.project", project, advice)


def check_combinations(config: Config, typed_names: Collection[str]) -> None:
    """Check the rules between settings that ``plan`` does not know.

    Args:
        config: the settings, before they are completed.
        typed_names: those that the user typed. They are errors if they would have no effect.
    """
    faults = (
        _faults_of_curves(config, typed_names),
        _faults_of_training(config, typed_names),
        _faults_of_data(config.dataset),
        _faults_of_model(config.model, config.dataset),
        _faults_of_optimizer(config.optimizer),
    )
    for name, advice in chain(*faults):
        raise ConfigError(name, value_of(config, name), advice)


def _faults_of_curves(config: Config, typed_names: Collection[str]) -> Faults:
    """Yield each fault of the curves of noise, η and b, of which two make the plan."""
    schedule = config.schedule
    # With schedule.rate, schedule repeats the curve's name: schedule.rate=cosine alone has chosen
    # schedule=cosine. So a schedule of another name was typed, and would be a second curve.
    has_own_curve = schedule.arguments is not None  # Its name in schedule.rate is "own".
    profile = "own" if has_own_curve else schedule.profile
    if schedule.rate not in (None, profile):
        yield (
            "schedule.rate",
            f"schedule={profile} is the noise, and η follows; keep two curves: schedule={profile}"
            " with batch_size, or schedule.rate with batch_size",
        )
    if "schedule.sizes" in typed_names:
        yield "schedule.sizes", "type the table as batch_size"
    if "p" in typed_names and "p" not in parameters(schedule.curve):
        advice = "leave it out, or use schedule=graduated"
        yield "p", f"the profile '{schedule.profile}' has no p; {advice}"
    if schedule.profile == "graduated" and config.p is None:
        yield "p", "graduated needs it, e.g. p=0.5"
    # `+schedule.kappa=0.5` passes Hydra's own check in any schedule.
    for name in sorted(OF_PROFILES - {"p"} - PARAMETERS.get(schedule.profile, set())):
        if getattr(schedule, name) is not None:
            yield f"schedule.{name}", f"schedule={profile} has no {name}; leave it out"
    if schedule.kappa or schedule.lam:
        yield from _faults_of_kappa_lambda(schedule, typed_names)
    if "split" in typed_names and (schedule.rate or schedule.sizes):
        advice = "schedule.rate, or a table as batch_size, says how b grows; leave it out"
        yield "split", advice
    if "split" in typed_names and schedule.profile == "constant":
        yield "split", "constant noise has no decay to split; leave it out"


def _faults_of_kappa_lambda(schedule: ScheduleConfig, typed_names: Collection[str]) -> Faults:
    """Yield each setting that cannot stand beside κ or λ."""
    if schedule.rate or schedule.sizes:
        advice = "schedule.kappa and schedule.lam say how η and b go; leave the curve or table out"
        yield "schedule.rate" if schedule.rate else "batch_size", advice
    if not 0 < (gamma := _ratio(schedule)) < 1:
        yield (
            "schedule.kappa",
            f"κ/√λ must be in (0, 1), and is {gamma:g}. Constant noise is schedule=constant with a"
            " table as batch_size",
        )
    advice = "schedule.kappa and schedule.lam set it; leave it out, or use schedule=step alone"
    if schedule.gamma is not None:
        yield "schedule.gamma", advice
    if "split" in typed_names:
        yield "split", advice


def _faults_of_training(config: Config, typed_names: Collection[str]) -> Faults:
    """Yield each fault of the samples in use, and of batches and stages of them."""
    schedule, dataset = config.schedule, config.dataset
    n, multiple = training_samples(config), schedule.batch_multiple
    if schedule.form == "inverse_sqrt" and "schedule.a" in typed_names:
        yield "schedule.a", "only schedule.form=inverse_time has it"
    if schedule.lengths == "equal" and "schedule.h" in typed_names:
        yield "schedule.h", "only schedule.lengths=algorithm3 has it"
    if dataset.validation and (held_out(dataset) == 0 or n < 2):
        yield (
            "dataset.validation",
            f"of {dataset.samples} samples that leaves {n} to train on and {held_out(dataset)} to"
            " validate",
        )
    if any(b % multiple for b in (config.batch_size, *(schedule.sizes or {}).values())):
        yield "batch_size", f"it must be a multiple of schedule.batch_multiple={multiple}"
    if config.noise.batches > n:
        yield "noise.batches", f"it must be at most the {n} training samples"


def _faults_of_data(dataset: DatasetConfig) -> Faults:
    """Yield each fault of the facts and the augmentation of a data set."""
    for setting, owner in (("root", "folder"), ("file", "arrays")):
        if getattr(dataset, setting) and dataset.name != owner:
            yield f"dataset.{setting}", f"only dataset={owner} has it"
    for setting, low, high in (("mean", 0, 1), ("std", 1e-6, 1e6)):
        values = getattr(dataset, setting)
        if len(values) != dataset.channels or not all(low <= x <= high for x in values):
            yield (
                f"dataset.{setting}",
                f"it must have a number in [{low:g}, {high:g}] for each of"
                f" dataset.channels={dataset.channels}",
            )
    if dataset.augment.crop >= dataset.image_size:
        yield "dataset.augment.crop", f"it must be below the image size, {dataset.image_size}"
    for setting in ("crop", "rotation"):
        if dataset.name == "imagenet" and getattr(dataset.augment, setting):
            advice = "imagenet has random resized crops and flips instead; it must be 0"
            yield f"dataset.augment.{setting}", advice


def _faults_of_model(model: ModelConfig, dataset: DatasetConfig) -> Faults:
    """Yield each fault of a model, also with the images that it gets."""
    if not model.timm and model.arguments is None:
        names = sorted(MODELS.keys() - {"timm", "own"})
        if model.name not in names:
            yield "model.name", right_options("model.name", model.name, names)
        # The file of a model has the settings that the model takes.
        settings = yaml.safe_load(MODELS[model.name].read_text()).keys() - {"name"}
        if settings != {name for name in ("width", "stem") if getattr(model, name) is not None}:
            yield "model.name", f"its settings come with it; choose it as model={model.name}"
    if model.stem == "imagenet" and dataset.image_size < 32:
        yield (
            "model.stem",
            f"it divides an image's side by 32, and {dataset.name} has {dataset.image_size} pixels;"
            " use model.stem=cifar",
        )


def _faults_of_optimizer(optimizer: OptimizerConfig) -> Faults:
    """Yield each setting that has a value and belongs to other optimizers alone."""
    for name in sorted({name for names in OPTIMIZERS.values() for name in names}):
        if getattr(optimizer, name) and name not in optimizer.settings:
            owners = ", ".join(owner for owner, names in OPTIMIZERS.items() if name in names)
            yield f"optimizer.{name}", f"{optimizer.typed} has no {name}; these have: {owners}"


def complete(config: Config) -> None:
    """Fill in what follows from other settings, so that each run has one full description."""
    schedule = config.schedule
    for name, default in config.optimizer.settings.items():
        if getattr(config.optimizer, name) is None:
            setattr(config.optimizer, name, default)
    if schedule.clock == "samples":
        schedule.clock = None  # Both are one setting, and have one name.
    if "p" not in parameters(schedule.curve):
        config.p = None
    if schedule.profile == "linear":
        schedule.profile, config.p = "polynomial", 1.0  # Runs are named so.
        schedule.rate = schedule.rate and "polynomial"
    schedule.stages = _stages(config)
    if config.max_batch_size is not None and config.max_batch_size >= training_samples(config):
        config.max_batch_size = None  # n is a cap anyway.
    if schedule.profile == "step" and (schedule.kappa or schedule.lam):
        kappa, gamma = schedule.kappa or 1.0, _ratio(schedule)
        # It is the share of η in the decay, at most 1 as γ ≤ κ. Adding 0.0 makes 0.0 of -0.0.
        config.split = math.log(kappa) / math.log(gamma) + 0.0
        schedule.gamma, schedule.kappa, schedule.lam = gamma, None, None
    if schedule.profile == "step" and schedule.gamma is None:
        schedule.gamma = GAMMA
    if schedule.profile == "constant" or schedule.rate or schedule.sizes:
        config.split = 1.0


def _ratio(schedule: ScheduleConfig) -> float:
    """γ = κ/√λ, the ratio of the noise of two stages; κ and λ are 1 by default."""
    return (schedule.kappa or 1.0) / math.sqrt(schedule.lam or 1.0)


def _stages(config: Config) -> int:
    """M, which a run is named after."""
    schedule = config.schedule
    try:
        return stages_of(
            Arguments(
                schedule.profile,
                config.batch_size,
                {"p": config.p},
                n=training_samples(config),
                epochs=config.epochs,
                stages=schedule.stages,
                epsilon=schedule.epsilon,
                alpha_0=schedule.alpha_0,
                sizes=schedule.sizes,
                h=None if schedule.lengths == "equal" else schedule.h,
                final_updates=schedule.final_updates,
                warmup_samples=warmup_samples(config),
            )
        )
    except PlanError as error:
        raise ConfigError(f"schedule.{error.argument}", error.value, error.allowed) from None
