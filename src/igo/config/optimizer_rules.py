"""The rules for an optimizer's settings, and the formula of its noise level δ."""

from __future__ import annotations

from dataclasses import fields

from igo.config import hints
from igo.config.optimizers import OPTIMIZERS, function
from igo.config.schema import OptimizerConfig
from igo.ground.errors import ConfigError
from igo.method.profiles import declared
from igo.method.profiles import parameters as arguments
from igo.method.ranges import Declared

FORMULAS = {  # of δ; no δ is known for other optimizers
    "sgd": "η √(C²/b)",
    "shb": "η √((1 + β̂) C²/b + β̂ ‖∇f‖²), β̂ = β(β² - β + 1)/(1 - β)²",
    "nshb": "η √(C²/b + 4β² (C²/b + ‖∇f‖²))",
}


def called(optimizer: OptimizerConfig) -> str:
    """An optimizer as a person types it."""
    name = optimizer.name
    return f"optimizer=timm optimizer.name={name}" if optimizer.timm else f"optimizer={name}"


def has_delta(optimizer: OptimizerConfig) -> bool:
    """Whether a formula of δ is known for the optimizer."""
    return optimizer.name in FORMULAS and not optimizer.timm


def why_null(optimizer: OptimizerConfig) -> str | None:
    """Why records have neither ``delta_m`` nor ``delta_measured``; None if they do."""
    if has_delta(optimizer):
        return None
    return f"delta_m and delta_measured are null: no δ is known for {called(optimizer)}"


def described(optimizer: OptimizerConfig) -> dict[str, str | None]:
    """For a record: the formula of δ, and why δ is null, if it is."""
    formula = FORMULAS[optimizer.name] if has_delta(optimizer) else None
    return {"delta": formula, "why_null": why_null(optimizer)}


def check_name(optimizer: OptimizerConfig) -> None:
    """Check that there is an optimizer of this name; timm's names are checked later."""
    name = optimizer.name
    if not optimizer.timm and name not in OPTIMIZERS:
        hint = hints.choice("optimizer.name", name, OPTIMIZERS)
        raise ConfigError(
            "optimizer.name", name, f"it must be one of {', '.join(OPTIMIZERS)}{hint}"
        )


def declared_settings(optimizer: OptimizerConfig) -> dict[str, Declared]:
    """The range, the choices and the example of each setting of an optimizer."""
    return declared(function(optimizer.name, of_timm=optimizer.timm))


def complete(optimizer: OptimizerConfig) -> None:
    """Fill in the defaults of settings that are not set."""
    known = arguments(function(optimizer.name, of_timm=optimizer.timm))
    missing = [name for name in known if getattr(optimizer, name) is None]
    with_default = [name for name in missing if known[name].default is not None]
    if with_default and len(missing) == len(_optional() & known.keys()):
        allowed = f"its settings come with it; choose it as {called(optimizer)}"
        raise ConfigError("optimizer.name", optimizer.name, allowed)
    for name in with_default:
        setattr(optimizer, name, known[name].default)


def _optional() -> set[str]:
    """Settings that are null for the optimizers that do not have them."""
    return {field.name for field in fields(OptimizerConfig) if field.default is None}


def check(optimizer: OptimizerConfig) -> None:
    """Refuse a setting that the optimizer does not have."""
    for name in sorted({*_optional(), "momentum"} - declared_settings(optimizer).keys()):
        if value := getattr(optimizer, name):
            having = [other for other in OPTIMIZERS if name in arguments(OPTIMIZERS[other])]
            others = " or".join(f" optimizer={other}" for other in having)
            allowed = f"{called(optimizer)} has no {name}; use{others}"
            raise ConfigError(f"optimizer.{name}", value, allowed)
