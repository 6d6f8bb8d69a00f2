"""Every rule that a configuration must keep, checked before any compute is spent."""

import math
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any

import yaml

from igo.config.schema import (
    OPTIMIZERS,
    SETTINGS,
    Config,
    DatasetConfig,
    ModelConfig,
    OptimizerConfig,
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
        require(not fault(value, notes.rule), setting, value, notes.rule[1])


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


def complete(config: Config, typed_names: Collection[str]) -> None:
    """Fill in what follows from other settings, so that each run has one full description.

    Raises:
        ConfigError: a typed setting has no effect, or contradicts another one.
    """
    schedule = config.schedule
    for name, default in config.optimizer.settings.items():
        if getattr(config.optimizer, name) is None:
            setattr(config.optimizer, name, default)
    if schedule.clock == "samples":
        schedule.clock = None  # Both are one setting, and have one name.
    _check_curves(config, typed_names)
    if "p" not in parameters(schedule.curve):
        require(
            "p" not in typed_names,
            "p",
            config.p,
            f"the profile '{schedule.profile}' has no p; leave it out, or use schedule=graduated",
        )
        config.p = None
    if schedule.profile == "linear":
        schedule.profile, config.p = "polynomial", 1.0  # Runs are named so.
        schedule.rate = schedule.rate and "polynomial"
    schedule.stages = _stages(config)
    if config.max_batch_size is not None and config.max_batch_size >= training_samples(config):
        config.max_batch_size = None  # n is a cap anyway.
    if schedule.profile == "step":
        _complete_step(config, typed_names)
    if schedule.profile == "constant" or schedule.rate or schedule.sizes:
        advice = "constant noise has no decay to split"
        if schedule.rate or schedule.sizes:
            advice = "schedule.rate, or a table as batch_size, says how b grows"
        require("split" not in typed_names, "split", config.split, f"{advice}; leave it out")
        config.split = 1.0


def _check_curves(config: Config, typed_names: Collection[str]) -> None:
    """Refuse curves of all three, noise, η and b: two of them make the plan."""
    schedule = config.schedule
    advice = "type the table as batch_size"
    require("schedule.sizes" not in typed_names, "schedule.sizes", schedule.sizes, advice)
    # schedule.rate=cosine alone has chosen schedule=cosine, see own.py; any other was typed.
    profile = schedule.profile if schedule.arguments is None else "own"
    require(
        schedule.rate in (None, profile),
        "schedule.rate",
        schedule.rate,
        f"schedule={profile} is the noise, and η follows; keep two curves: schedule={profile} with"
        " batch_size, or schedule.rate with batch_size",
    )
    curve = schedule.rate or schedule.sizes
    require(
        not (curve and (schedule.kappa or schedule.lam)),
        "schedule.rate" if schedule.rate else "batch_size",
        curve,
        "schedule.kappa and schedule.lam say how η and b go; leave it out",
    )


def _stages(config: Config) -> int:
    """M, which a run is named after."""
    schedule, n = config.schedule, max(training_samples(config), 1)
    has_p = config.p is not None or schedule.profile != "graduated"
    require(has_p, "p", None, "graduated needs it, e.g. p=0.5")
    try:
        return stages_of(
            Arguments(
                schedule.profile,
                config.batch_size,
                {"p": config.p},
                n=n,
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


def _complete_step(config: Config, typed_names: Collection[str]) -> None:
    """Set γ of the profile step, and split too where κ or λ is given.

    γ = κ/√λ, which is at most κ, and split = ln κ/ln γ, the share of η in the decay, at most 1.
    """
    schedule = config.schedule
    if not schedule.kappa and not schedule.lam:
        schedule.gamma = GAMMA if schedule.gamma is None else schedule.gamma
        return
    kappa, lam = schedule.kappa or 1.0, schedule.lam or 1.0
    gamma = kappa / math.sqrt(lam)
    pair = f"schedule.kappa={kappa:g} and schedule.lam={lam:g}"
    require(
        0 < gamma < 1,
        "schedule.kappa",
        schedule.kappa,
        f"{pair} give κ/√λ = {gamma:g}; it must be in (0, 1). Constant noise is schedule=constant"
        " with a table as batch_size",
    )
    require(
        schedule.gamma is None or math.isclose(schedule.gamma, gamma, rel_tol=1e-9),
        "schedule.gamma",
        schedule.gamma,
        f"{pair} make it κ/√λ = {gamma:g}; leave one out, or use schedule=step",
    )
    split = math.log(kappa) / math.log(gamma) + 0.0  # Adding 0.0 makes 0.0 of -0.0.
    require(
        "split" not in typed_names or math.isclose(config.split, split, abs_tol=1e-9),
        "split",
        config.split,
        f"{pair} make it {split:.5g}; leave one out, or use schedule=step",
    )
    schedule.gamma, schedule.kappa, schedule.lam = gamma, None, None
    config.split = split


def check_combinations(config: Config, typed_names: Collection[str]) -> None:
    """Check the rules between settings that ``plan`` does not know."""
    faults = (
        _faults_of_training(config, typed_names),
        _faults_of_data(config.dataset),
        _faults_of_model(config.model, config.dataset),
        _faults_of_optimizer(config.optimizer),
    )
    for name, advice in chain(*faults):
        raise ConfigError(name, value_of(config, name), advice)


def _faults_of_training(config: Config, typed_names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield each setting that breaks a rule, with what is right."""
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


def _faults_of_data(dataset: DatasetConfig) -> Iterator[tuple[str, str]]:
    """Yield each setting that breaks a rule, with what is right."""
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


def _faults_of_model(model: ModelConfig, dataset: DatasetConfig) -> Iterator[tuple[str, str]]:
    """Yield each setting that breaks a rule, with what is right."""
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


def _faults_of_optimizer(optimizer: OptimizerConfig) -> Iterator[tuple[str, str]]:
    """Yield each setting that breaks a rule, with what is right."""
    for name in sorted({name for names in OPTIMIZERS.values() for name in names}):
        if getattr(optimizer, name) and name not in optimizer.settings:
            owners = ", ".join(owner for owner, names in OPTIMIZERS.items() if name in names)
            yield f"optimizer.{name}", f"{optimizer.typed} has no {name}; these have: {owners}"
