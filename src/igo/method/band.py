"""The decay rates that Proposition 3.3 of the slides admits, by the bounds printed there."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def checked(a: ArrayLike) -> Array:
    """a_m as an array.

    Raises:
        ValueError: a_m ≤ √2, for which Proposition 3.1 says nothing.
    """
    values = np.asarray(a, float)
    if not (values > np.sqrt(2)).all():
        raise ValueError(f"a={values} must be > √2 (Prop. 3.1)")
    return values


def printed_width_bounds(a: ArrayLike) -> tuple[Array, Array]:
    """The slides' bounds on d_m: 1 and a/(√(a² − 1) − 1).

    Raises:
        ValueError: a ≤ √2.
    """
    values = checked(a)
    return np.ones_like(values), values / (np.sqrt(values**2 - 1) - 1)


def largest_a(rate: float) -> float:
    """The largest a_m for which the lowest 1/d_m is below the decay rate; ∞ if it is for all."""
    if rate >= 1:
        return math.inf
    # (√(a² − 1) − 1)/a = γ  ⇔  (1 − γ²) a² − 2γ a − 2 = 0
    return (rate + math.sqrt(rate**2 + 2 * (1 - rate**2))) / (1 - rate**2)
