"""Noise profiles φ_m = δ_m/δ_1: how strongly SGD smooths the loss in each stage.

Every schedule is one profile times one split, see ``plan``. A new profile is a function here, with
its parameters as keyword arguments, and a file in conf/schedule/.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """Where a stage begins: m of M stages, and the epochs that went before."""

    m: int
    M: int
    epochs_before: int

    @property
    def t(self) -> float:
        """Share of the schedule behind this stage, (m - 1)/M in [0, 1)."""
        return (self.m - 1) / self.M


def constant(_: Position) -> float:
    """φ_m = 1."""
    return 1.0


def polynomial(at: Position, *, p: float) -> float:
    """φ_m = ((M - m + 1)/M)^p; for p in (0, 1] the optimal decay (slides, Algorithm 3)."""
    return math.pow((at.M - at.m + 1) / at.M, p)


def linear(at: Position) -> float:
    """φ_m = (M - m + 1)/M, polynomial with p = 1."""
    return polynomial(at, p=1.0)


def step(at: Position, *, gamma: float) -> float:
    """φ_m = γ^(m-1), a constant decay rate (Methods 2 to 4 of the slides)."""
    return math.pow(gamma, at.m - 1)


def exponential(at: Position, *, decay: float) -> float:
    """φ = g^e after e epochs, like PyTorch's ExponentialLR stepped once an epoch."""
    return math.pow(decay, at.epochs_before)


def cosine(at: Position) -> float:
    """φ_m = (1 + cos πt)/2, cosine annealing to zero (Loshchilov and Hutter 2017)."""
    return (1 + math.cos(math.pi * at.t)) / 2


def cosine_power(at: Position, *, power: float) -> float:
    """φ_m = (q^((1 + cos πt)/2 + 1) - q)/(q² - q), cosine power annealing (Hundt et al. 2019).

    It is (q^c - 1)/(q - 1), which neither overflows for large q nor cancels for q near 1.
    """
    log_q = math.log(power)
    return math.expm1(cosine(at) * log_q) / math.expm1(log_q)


def diminishing(at: Position, *, form: str = "inverse_sqrt", a: float = 1.0) -> float:
    """φ_m = 1/√m (form inverse_sqrt) or 1/(1 + a t) (form inverse_time)."""
    if form == "inverse_sqrt":
        return 1 / math.sqrt(at.m)
    return 1 / (1 + a * at.t)


Profile = Callable[..., float]
PROFILES: dict[str, Profile] = {
    "constant": constant,
    "graduated": polynomial,
    "polynomial": polynomial,
    "linear": linear,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "cosine_power": cosine_power,
    "diminishing": diminishing,
}
BY_EPOCH = ("exponential",)  # φ depends on the epochs before a stage, not on its number


def parameters(profile: str) -> dict[str, inspect.Parameter]:
    """The parameters that a profile reads, by name."""
    signature = inspect.signature(PROFILES[profile])
    return {n: one for n, one in signature.parameters.items() if one.kind is one.KEYWORD_ONLY}
