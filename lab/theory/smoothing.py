"""Smoothing, f̂_δ(x) = E[f(x − δu)]: the law of u, the kernel.

The kernels are `ball`, uniform on the closed unit ball of R^d (the slides'; δ is a radius), and
`gaussian`, N(0, I) (δ is the standard deviation of a coordinate). `PUBLISHED` are those of the
authors' smoothing.py, in one dimension.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, special, stats

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Kernel:
    """A kernel by name."""

    name: Literal["ball", "gaussian"]

    def second_moment(self, dimension: int) -> float:
        """Return E[u_i²] of one coordinate."""
        return 1 / (dimension + 2) if self.name == "ball" else 1.0

    def cosine_mean(self, t: Array | float, dimension: int) -> Array:
        """Return E[cos(t·u_i)], t ≥ 0: the factor by which smoothing damps a wave.

        For the ball it is the Bessel function Γ(d/2 + 1)(2/t)^{d/2} J_{d/2}(t), and 1 at t = 0.
        """
        t = np.asarray(t, float)
        if self.name == "gaussian":
            return np.asarray(np.exp(-(t**2) / 2))
        safe = np.where(t == 0, 1.0, t)
        order = dimension / 2
        value = special.gamma(order + 1) * (2 / safe) ** order * special.jv(order, safe)
        return np.where(t == 0, 1.0, value)


def in_ball(count: int, dimension: int, rng: np.random.Generator) -> Array:
    """Draw u uniform in the unit ball, shape (count, dimension).

    The direction is that of a normal vector, and ‖u‖^dimension is uniform.
    """
    points = np.clip(rng.random((count, dimension + 1)), 2.0**-53, 1 - 2.0**-53)
    z: Array = special.ndtri(points[:, :dimension])
    z /= np.maximum(np.sqrt((z**2).sum(1, keepdims=True)), 1e-300)
    return z * points[:, -1:] ** (1 / dimension)


BALL, GAUSSIAN = Kernel("ball"), Kernel("gaussian")

# Source: github.com/naoki-sato3/new-sigma-nice, smoothing.py
PUBLISHED = {
    "gaussian": stats.norm(),
    "uniform": stats.uniform(-2, 4),
    "exponential": stats.expon(scale=1.5),
    "rayleigh": stats.rayleigh(),
    "cauchy": stats.cauchy(),
    "levy": stats.levy(loc=1),
    "pareto": stats.pareto(1),
}


def wave_left(kernel: str, t: float) -> float:
    """Return |E[exp(i t u)]|, t > 0, of a published kernel: what smoothing leaves of a wave."""
    law = PUBLISHED[kernel]
    low, high = law.support()
    if np.isinf(low):  # symmetric about 0
        return float(abs(2 * integrate.quad(law.pdf, 0, high, weight="cos", wvar=t)[0]))
    parts = (integrate.quad(law.pdf, low, high, weight=w, wvar=t)[0] for w in ("cos", "sin"))
    return float(np.hypot(*parts))
