"""What the arguments of ``plan`` may be, each by itself and together; errors name the cure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from igo.errors import nearest
from igo.method.profiles import PROFILES, parameters

LENGTHS = ("equal", "algorithm3")
FORMS = ("inverse_sqrt", "inverse_time")
MOST_EPOCHS = 1_000_000  # the plan and the record have a line for each

Rule = tuple[Callable[[float], bool], str]
POSITIVE: Rule = (lambda x: x > 0, "it must be above 0")
NOT_NEGATIVE: Rule = (lambda x: x >= 0, "it must be 0 or more")
AT_LEAST_ONE: Rule = (lambda x: x >= 1, "it must be 1 or more")


def within(low: float, high: float) -> Rule:
    """Both bounds are allowed."""
    return lambda x: low <= x <= high, f"it must be in [{low:,}, {high:,}]"


RULES: dict[str, Rule] = {
    "n": AT_LEAST_ONE,
    "epochs": within(1, MOST_EPOCHS),
    "learning_rate": POSITIVE,
    "batch_size": AT_LEAST_ONE,
    "split": (
        lambda s: 0 <= s <= 1,
        "it must be in [0, 1]: 1 = all of the decay in the learning rate, 0 = all in the batch",
    ),
    "stages": AT_LEAST_ONE,
    "max_batch_size": AT_LEAST_ONE,
    "batch_multiple": AT_LEAST_ONE,
    "noise_exponent": (lambda r: 0 < r <= 1, "ρ of δ = η C b^(-ρ) must be in (0, 1]"),
    "h": NOT_NEGATIVE,
    "final_updates": within(0, MOST_EPOCHS),
    "p": POSITIVE,
    "gamma": (lambda g: 0 < g < 1, "a constant decay rate γ must be in (0, 1)"),
    "decay": (lambda g: 0 < g < 1, "the decay per epoch must be in (0, 1)"),
    "power": (lambda q: q > 1, "it must be above 1 (towards 1 it is plain cosine)"),
    "a": POSITIVE,
}
WHOLE = ("n", "epochs", "batch_size", "stages", "max_batch_size", "batch_multiple", "final_updates")
CHOICES: dict[str, tuple[str, ...]] = {
    "profile": tuple(PROFILES),
    "lengths": LENGTHS,
    "form": FORMS,
}
EXAMPLES = {"p": "p=0.5", "gamma": "gamma=0.5 ** 0.5", "decay": "decay=0.98", "power": "power=10"}


class PlanError(ValueError):
    """An argument of ``plan`` that cannot be planned with.

    Attributes: ``argument`` its name, ``value``, None where it is missing, and ``allowed``: what
    would be right.
    """

    def __init__(self, argument: str, value: object, allowed: str) -> None:
        self.argument, self.value, self.allowed = argument, value, allowed
        fault = " is missing" if value is None else f"={value} is not allowed"
        super().__init__(f"{argument}{fault}: {allowed}")


def check(given: Mapping[str, Any], of_profile: Mapping[str, Any]) -> None:
    """Refuse what cannot be planned with, before anything is computed.

    Args:
        given: the arguments that every profile has, ``profile`` itself among them.
        of_profile: the profile's own.

    Raises:
        PlanError: naming the argument, its value and what would be right.
    """
    profile = given["profile"]
    _check_choice("profile", profile)
    _check_names(profile, of_profile, [*given, *parameters(profile)])
    for name, value in {**given, **of_profile}.items():
        if name in CHOICES:
            _check_choice(name, value)
        elif name in RULES and value is not None:
            _check_number(name, value)
    if profile == "graduated" and of_profile["p"] > 1:
        allowed = "graduated needs p in (0, 1], the optimal decay; use polynomial for any p > 0"
        raise PlanError("p", of_profile["p"], allowed)
    _check_together(given)


def _check_choice(name: str, value: object) -> None:
    choices = CHOICES[name]
    if value not in choices:
        hint = nearest(str(value), choices)
        raise PlanError(name, value, f"it must be one of {', '.join(choices)}.{hint}")


def _check_names(profile: str, of_profile: Mapping[str, Any], known: Collection[str]) -> None:
    own = parameters(profile)
    for name, value in of_profile.items():
        if name not in own:
            has = f"{profile} has {', '.join(own) or 'none'} of its own"
            raise PlanError(name, value, f"there is no such argument; {has}.{nearest(name, known)}")
    for name, one in own.items():
        if one.default is one.empty and of_profile.get(name) is None:
            example = EXAMPLES.get(name, f"{name}=1")
            raise PlanError(name, None, f"{profile} needs it, e.g. {example}")


def _check_number(name: str, value: Any) -> None:
    holds, allowed = RULES[name]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, (bool, str)) or not math.isfinite(number):
        raise PlanError(name, repr(value), f"it must be a number; {allowed}")
    if name in WHOLE and number != int(number):
        raise PlanError(name, value, f"it must be a whole number; {allowed}")
    if not holds(number):
        raise PlanError(name, value, allowed)


def _check_together(given: Mapping[str, Any]) -> None:
    n, b_1, b_max = given["n"], given["batch_size"], given["max_batch_size"]
    if b_1 > n:
        raise PlanError("batch_size", b_1, f"it must be in [1, {n}], the training samples")
    if b_max is not None and b_max < b_1:
        raise PlanError("max_batch_size", b_max, f"it must be at least batch_size={b_1}")
    stages, epochs = given["stages"], given["epochs"]
    if stages is not None and stages > epochs:
        allowed = f"each stage needs an epoch of its own, and epochs={epochs}; at most that"
        raise PlanError("stages", stages, allowed)
