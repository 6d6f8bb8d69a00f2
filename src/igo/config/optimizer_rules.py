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

OF_SGD = ("sgd", "shb", "nshb")  # their δ is known before training
FORMULAS = {
    "sgd": "η √(C²/b)",
    "shb": "η √((1 + β̂) C²/b + β̂ ‖∇f‖²), β̂ = β(β² - β + 1)/(1 - β)²",
    "nshb": "η √(C²/b + 4β² (C²/b + ‖∇f‖²))",
    "adamw": "η √(C_P²/b), C_P² = E‖P(G - ∇f)‖², P = 1/(√v̂ + ε) at the start of the epoch",
}


def called(optimizer: OptimizerConfig) -> str:
    """An optimizer as a person types it."""
    name = optimizer.name
    return f"optimizer=timm optimizer.name={name}" if optimizer.timm else f"optimizer={name}"


def law(optimizer: OptimizerConfig) -> str | None:
    """The key in FORMULAS of the optimizer's δ; None if no δ is known."""
    return optimizer.name if optimizer.name in FORMULAS and not optimizer.timm else None


def why_null(optimizer: OptimizerConfig) -> str | None:
    """Why records have no ``delta_m``, or neither it nor ``delta_measured``; None if they do."""
    if law(optimizer) in OF_SGD:
        return None
    if law(optimizer) is None:
        return f"delta_m and delta_measured are null: no δ is known for {called(optimizer)}"
    return (
        f"delta_m is null: the δ of {called(optimizer)} needs v̂, which is not there before the"
        " first update; delta_measured is there from the second epoch on"
    )


def described(optimizer: OptimizerConfig) -> dict[str, str | None]:
    """For a record: the formula of δ, and why δ is null, if it is."""
    return {"delta": FORMULAS.get(law(optimizer) or ""), "why_null": why_null(optimizer)}


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
    if optimizer.constant_half_life and law(optimizer) != "adamw":
        raise ConfigError("optimizer.constant_half_life", True, "only optimizer=adamw has it")
