"""Noise profiles φ_m = δ_m/δ_1: how strongly SGD smooths the loss in each stage.

A schedule is a profile and a split, see ``plan``. A new profile is a function here, a line in
PROFILES and a file in conf/schedule/. Its keyword arguments are its parameters, each annotated with
its range and an example.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from igo.ground.numbers import BELOW_ONE, BETWEEN, POSITIVE, Rule

Profile = Callable[..., float]
# b_1, a function that returns b, or a table of b by shares of the schedule or by samples.
BatchSize = int | Profile | Mapping[float, int] | Mapping[int, int]


class Position(float):
    """t = (m - 1)/M in [0, 1), a number: the share of the schedule before stage ``m`` of ``M``.

    ``epochs_before`` counts the epochs before the stage: a whole number, unless stages begin inside
    epochs. Your own profile can use the position as t, or read these attributes.
    """

    m: int
    M: int
    epochs_before: float

    def __new__(cls, m: int, M: int, epochs_before: float) -> Position:
        """t = (m - 1)/M."""
        position = super().__new__(cls, (m - 1) / M)
        position.m, position.M, position.epochs_before = m, M, epochs_before
        return position


def constant(_: Position) -> float:
    """φ_m = 1."""
    return 1.0


def polynomial(position: Position, *, p: Annotated[float, POSITIVE, "p=0.5"]) -> float:
    """φ_m = ((M - m + 1)/M)^p for any p > 0."""
    return math.pow((position.M - position.m + 1) / position.M, p)


OPTIMAL = Rule(
    lambda p: 0 < p <= 1,
    "graduated needs p in (0, 1], the range of the optimal decay; the schedule polynomial takes"
    " any p > 0",
)


def graduated(position: Position, *, p: Annotated[float, OPTIMAL, "p=0.5"]) -> float:
    """φ_m = ((M - m + 1)/M)^p, p in (0, 1]: the optimal decay (slides, Algorithm 3)."""
    return polynomial(position, p=p)


def linear(position: Position) -> float:
    """φ_m = (M - m + 1)/M, polynomial with p = 1."""
    return polynomial(position, p=1.0)


def step(position: Position, *, gamma: Annotated[float, BETWEEN, "gamma=0.5 ** 0.5"]) -> float:
    """φ_m = γ^(m-1), a constant decay rate (Methods 2 to 4 of the slides)."""
    return math.pow(gamma, position.m - 1)


def exponential(position: Position, *, decay: Annotated[float, BETWEEN, "decay=0.98"]) -> float:
    """φ = g^e after e epochs, like PyTorch's ExponentialLR stepped once an epoch."""
    return math.pow(decay, position.epochs_before)


def cosine(position: Position, *, floor: Annotated[float, BELOW_ONE] = 0.0) -> float:
    """φ_m = (1 + cos πt)/2, cosine annealing (Loshchilov and Hutter 2017), to zero or ``floor``."""
    return floor + (1 - floor) * (1 + math.cos(math.pi * position)) / 2


BASE = Rule(lambda q: q > 1, "it must be above 1 (towards 1 it is plain cosine)")


def cosine_power(position: Position, *, power: Annotated[float, BASE, "power=10"]) -> float:
    """φ_m = (q^((1 + cos πt)/2 + 1) - q)/(q² - q), cosine power annealing (Hundt et al. 2019).

    It is computed as (q^c - 1)/(q - 1), with c from ``cosine``: this neither overflows for large q
    nor loses digits for q near 1.
    """
    log_q = math.log(power)
    return math.expm1(cosine(position) * log_q) / math.expm1(log_q)


def diminishing(
    position: Position,
    *,
    form: Literal["inverse_sqrt", "inverse_time"] = "inverse_sqrt",
    a: Annotated[float, POSITIVE] = 1.0,
) -> float:
    """φ_m = 1/√m (form inverse_sqrt) or 1/(1 + a t) (form inverse_time)."""
    if form == "inverse_sqrt":
        return 1 / math.sqrt(position.m)
    return 1 / (1 + a * position)


SHARE = Rule(lambda x: 0 < x <= 1, "the share of the decay must be in (0, 1]")


def wsd(
    position: Position,
    *,
    share: Annotated[float, SHARE] = 0.2,
    shape: Literal["linear", "cosine", "sqrt"] = "linear",
) -> float:
    """φ = 1, falling in the last ``share`` of the schedule (warm-up, stable, decay).

    With u from 0 to 1 over the decay: 1 - u, (1 + cos πu)/2, or 1 - √u (Hägele et al. 2024).
    """
    u = max(0.0, 1 - (1 - position) / share)
    if shape == "cosine":
        return (1 + math.cos(math.pi * u)) / 2
    return 1 - (math.sqrt(u) if shape == "sqrt" else u)


PROFILES: dict[str, Profile] = {
    "constant": constant,
    "graduated": graduated,
    "polynomial": polynomial,
    "linear": linear,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "cosine_power": cosine_power,
    "diminishing": diminishing,
    "wsd": wsd,
}
CONSTANT = ("constant", "step")  # They do not depend on t.
STAGES = 5  # The paper's methods have as many.
GAMMA = 1 / math.sqrt(2)  # Methods 2 to 4 have it; the noise of Method 1 is constant.
# κ and λ are 1 and 1, 1/√2 and 1, 1 and 2, √3/2 and 3/2.
SPLITS = {
    "method1": 1.0,
    "method2": 1.0,
    "method3": 0.0,
    "method4": math.log(math.sqrt(3) / 2) / math.log(GAMMA),
}


def paper_method(
    profile: object, gamma: object, split: object, sizes: object = None, rate: object = None
) -> str | None:
    """``Method 1 (constant)``, ``Method 2`` to ``Method 4``; None for any other schedule."""
    if sizes or rate:
        return None
    if profile == "constant":
        return "Method 1 (constant)"
    if profile == "step" and _is_near(gamma, GAMMA):
        for number in (2, 3, 4):
            if _is_near(split, SPLITS[f"method{number}"]):
                return f"Method {number}"
    return None


def _is_near(value: object, exact: float) -> bool:
    """Whether a value is ``exact`` as a person types it: with three digits."""
    return isinstance(value, float) and math.isclose(value, exact, abs_tol=1e-3)


def function(profile: str | Profile) -> Profile:
    """The function of a profile, which is given as a function or by name."""
    return PROFILES[profile] if isinstance(profile, str) else profile


def name_of(profile: str | Profile) -> str:
    """The profile's name, for error messages."""
    return profile if isinstance(profile, str) else getattr(profile, "__qualname__", repr(profile))


def parameters(profile: str | Profile) -> dict[str, inspect.Parameter]:
    """A profile's parameters after the position, by name."""
    after_position = [*inspect.signature(function(profile)).parameters.values()][1:]
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {parameter.name: parameter for parameter in after_position if parameter.kind in kinds}


class Declared(NamedTuple):
    """What an annotation says besides the type: range, choices, an example or a short name."""

    rule: Rule | None
    choices: tuple[str, ...]
    text: str | None


def notes_of(hint: Any) -> Declared:
    """Read ``Annotated[type, rule, choices, text]``, of which each may be missing, or a Literal."""
    rule: Rule | None = None
    choices: tuple[str, ...] = ()
    text: str | None = None
    if get_origin(hint) is Literal:
        choices = get_args(hint)
    for note in getattr(hint, "__metadata__", ()):
        if isinstance(note, Rule):
            rule = note
        elif isinstance(note, str):
            text = note
        elif isinstance(note, tuple):
            choices = note
    return Declared(rule, choices, text)


def declared(profile: str | Profile) -> dict[str, Declared]:
    """The range, choices and example of each parameter of a profile, from its annotations."""
    hints: dict[str, Any] = {}
    # The profile may be no function, or an annotation may have a name that nobody knows.
    with suppress(TypeError, NameError):
        hints = get_type_hints(function(profile), include_extras=True)
    return {name: notes_of(hints.get(name)) for name in parameters(profile)}
