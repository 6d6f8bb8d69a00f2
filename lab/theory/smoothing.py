"""Smoothing, f̂_δ(x) = E[f(x − δu)]: the law of u, the kernel.

The kernels are `ball`, uniform on the closed unit ball of R^d (the slides'; δ is a radius), and
`gaussian`, N(0, I) (δ is the standard deviation of a coordinate).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Kernel:
    """A kernel by name."""

    name: Literal["ball", "gaussian"]

    def second_moment(self, dimension: int) -> float:
        """Return E[u_i²] of one coordinate."""
        return 1 / (dimension + 2) if self.name == "ball" else 1.0

    def cosine_mean(self, t: Array | float, dimension: int) -> Array:
        """Return E[cos(t·u_i)], t ≥ 0: the factor by which smoothing damps a wave."""
        t = np.asarray(t, float)
        if self.name == "gaussian":
            return np.asarray(np.exp(-(t**2) / 2))
        safe = np.where(t == 0, 1.0, t)
        order = dimension / 2
        value = special.gamma(order + 1) * (2 / safe) ** order * special.jv(order, safe)
        return np.where(t == 0, 1.0, value)


def in_ball(count: int, dimension: int, rng: np.random.Generator) -> Array:
    """Draw u uniform in the unit ball, shape (count, dimension)."""
    points = np.clip(rng.random((count, dimension + 1)), 2.0**-53, 1 - 2.0**-53)
    z: Array = special.ndtri(points[:, :dimension])
    z /= np.maximum(np.sqrt((z**2).sum(1, keepdims=True)), 1e-300)
    return z * points[:, -1:] ** (1 / dimension)


BALL, GAUSSIAN = Kernel("ball"), Kernel("gaussian")
