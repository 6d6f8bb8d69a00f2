"""Every rule that a configuration must keep, checked before any compute is spent."""

import math
from collections.abc import Collection
from typing import Any

import yaml

from igo.config.own import NAMES
from igo.config.schema import (
    OPTIMIZERS,
    SETTINGS,
    Config,
    DatasetConfig,
    ModelConfig,
    OptimizerConfig,
    held_out,
    is_own,
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
    tracking = config.tracking
    # The name of one's own model is the path of its class, and none of the choices.
    own_names = [f"{group}.{name}" for group, name in NAMES.items() if is_own(config, group)]
    for name, setting in SETTINGS.items():
        if name not in own_names:
            check_setting(name, value_of(config, name), setting.notes)
    if tracking.tool == "wandb":
        require(
            bool(tracking.project) and not {*(tracking.project or "")} & {*"/\\#?%:"},
            "tracking.project",
            tracking.project,
            "it names a project of W&B's, without / \\ # ? % :",
        )


def complete(config: Config, typed_names: Collection[str]) -> None:
    """Fill in what follows from other settings, so that each run has one full description."""
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
        if schedule.kappa or schedule.lam:
            _follow_kappa_lambda(config, typed_names)
        elif schedule.gamma is None:
            schedule.gamma = GAMMA
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


def _follow_kappa_lambda(config: Config, typed_names: Collection[str]) -> None:
    """Set γ and split from κ and λ: γ = κ/√λ, and split = ln κ/ln γ, the share of η."""
    schedule = config.schedule
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
    split = math.log(kappa) / math.log(gamma) + 0.0  # This is no -0.0, and at most 1 as γ ≤ κ.
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
    schedule, dataset, augment = config.schedule, config.dataset, config.dataset.augment
    n, n_held, multiple = training_samples(config), held_out(dataset), schedule.batch_multiple
    crops = dataset.name != "imagenet"
    imagenet_advice = "imagenet has random resized crops and flips instead; it must be 0"
    for name, is_right, advice in (
        (
            "schedule.a",
            schedule.form != "inverse_sqrt" or "schedule.a" not in typed_names,
            "only schedule.form=inverse_time has it",
        ),
        (
            "schedule.h",
            schedule.lengths != "equal" or "schedule.h" not in typed_names,
            "only schedule.lengths=algorithm3 has it",
        ),
        (
            "dataset.validation",
            not dataset.validation or (n_held > 0 and n > 1),
            f"of {dataset.samples} samples that leaves {n} to train on and {n_held} to validate",
        ),
        (
            "batch_size",
            not any(b % multiple for b in (config.batch_size, *(schedule.sizes or {}).values())),
            f"it must be a multiple of schedule.batch_multiple={multiple}",
        ),
        (
            "noise.batches",
            config.noise.batches <= n,
            f"it must be at most the {n} training samples",
        ),
        (
            "dataset.augment.crop",
            augment.crop < dataset.image_size,
            f"it must be below the image size, {dataset.image_size}",
        ),
        ("dataset.augment.crop", crops or augment.crop == 0, imagenet_advice),
        ("dataset.augment.rotation", crops or augment.rotation == 0, imagenet_advice),
    ):
        require(is_right, name, value_of(config, name), advice)
    _check_dataset(dataset)
    _check_model(config.model, config.dataset)
    _check_optimizer(config.optimizer)


def _check_dataset(dataset: DatasetConfig) -> None:
    for name, owner in (("root", "folder"), ("file", "arrays")):
        value, advice = getattr(dataset, name), f"only dataset={owner} has it"
        require(not value or dataset.name == owner, f"dataset.{name}", value, advice)
    for name, low, high in (("mean", 0, 1), ("std", 1e-6, 1e6)):
        values = getattr(dataset, name)
        require(
            len(values) == dataset.channels and all(low <= x <= high for x in values),
            f"dataset.{name}",
            values,
            f"it must have a number in [{low:g}, {high:g}] for each of"
            f" dataset.channels={dataset.channels}",
        )


def _check_model(model: ModelConfig, dataset: DatasetConfig) -> None:
    name = model.name
    if not model.timm and model.arguments is None:
        builtin = MODELS.keys() - {"timm", "own"}
        options = right_options("model.name", name, sorted(builtin))
        require(name in builtin, "model.name", name, options)
        present = {name for name in ("width", "stem") if getattr(model, name) is not None}
        # The file of a model has the settings that the model takes.
        settings = yaml.safe_load(MODELS[name].read_text()).keys() - {"name"}
        advice = f"its settings come with it; choose it as model={name}"
        require(present == settings, "model.name", name, advice)
    require(
        model.stem != "imagenet" or dataset.image_size >= 32,
        "model.stem",
        model.stem,
        f"it divides an image's side by 32, and {dataset.name} has {dataset.image_size} pixels; use"
        " model.stem=cifar",
    )


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    settings = {name for names in OPTIMIZERS.values() for name in names}
    for name in sorted(settings - optimizer.settings.keys()):
        if value := getattr(optimizer, name):
            owners = ", ".join(owner for owner, names in OPTIMIZERS.items() if name in names)
            raise ConfigError(
                f"optimizer.{name}",
                value,
                f"{optimizer.typed} has no {name}; these have: {owners}",
            )
