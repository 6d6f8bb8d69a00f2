"""Smoothing kernels: the law of u in f̂_δ(x) = E[f(x − δu)], each named with its scale.

| name | u | unit of δ |
|---|---|---|
| ball | uniform on the closed unit ball of R^d (the slides' kernel) | radius |
| sphere | uniform on the unit sphere | radius |
| gaussian | N(0, I) | standard deviation of a coordinate |
| exponential, rayleigh, levy | independent coordinates, scale 1 | scale |
| cauchy | independent coordinates, location 0, scale 1 | half width at half maximum |
| pareto | independent coordinates, scale (smallest value) 1, exponent `tail` | smallest value |

The one-sided laws also move the function, by δ·E[u]. `symmetric=True` gives every coordinate a fair
random sign instead.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy import special, stats

from lab.theory.functions import Array

Name = Literal["ball", "sphere", "gaussian", "exponential", "rayleigh", "cauchy", "levy", "pareto"]
LAWS = {
    "gaussian": stats.norm(),
    "exponential": stats.expon(),
    "rayleigh": stats.rayleigh(),
    "cauchy": stats.cauchy(),
    "levy": stats.levy(),
}
ONE_SIDED = ("exponential", "rayleigh", "levy", "pareto")


@dataclass(frozen=True)
class Kernel:
    """A kernel by name; `tail` is Pareto's exponent. ValueError for an unknown name."""

    name: Name
    symmetric: bool = False
    tail: float = 1.5

    def __post_init__(self) -> None:
        if self.name not in get_args(Name):
            raise ValueError(f"kernel={self.name!r} must be one of {', '.join(get_args(Name))}")
        if self.tail <= 0:
            raise ValueError(f"tail={self.tail} must be > 0")

    @property
    def tail_index(self) -> float:
        """E|u|^k is finite only for k below this number; it is ∞ for a light tail."""
        return {"cauchy": 1.0, "levy": 0.5, "pareto": self.tail}.get(self.name, np.inf)

    @property
    def _law(self) -> Any:
        """SciPy's law of a coordinate, for kernels with independent coordinates."""
        return stats.pareto(self.tail) if self.name == "pareto" else LAWS[self.name]

    def cube_dimension(self, dimension: int) -> int:
        """Return the number of uniform numbers that a u needs."""
        return dimension + 1 if self.name == "ball" else dimension

    def reflect(self, points: Array, dimension: int) -> Array:
        """Return the antithetic points 1 − q; they give −u if the law is symmetric."""
        reflected = points.copy()
        reflected[:, :dimension] = 1 - points[:, :dimension]
        return reflected

    def from_cube(self, points: Array, dimension: int) -> Array:
        """Map uniform points (n, cube_dimension) to samples u (n, dimension)."""
        direction = points[:, :dimension]
        if self.name in ("ball", "sphere", "gaussian"):
            z: Array = special.ndtri(direction)
            if self.name == "gaussian":
                return z
            z /= np.maximum(np.sqrt((z**2).sum(1, keepdims=True)), 1e-300)
            return z if self.name == "sphere" else z * points[:, -1:] ** (1 / dimension)
        if self.symmetric and self.name in ONE_SIDED:
            centred = 2 * direction - 1
            return np.asarray(np.sign(centred) * self._law.ppf(np.abs(centred)))
        return np.asarray(self._law.ppf(direction))

    def sample(self, count: int, dimension: int, rng: np.random.Generator) -> Array:
        """Draw u, shape (count, dimension)."""
        points = rng.random((count, self.cube_dimension(dimension)))
        return self.from_cube(np.clip(points, 2.0**-53, 1 - 2.0**-53), dimension)

    def second_moment(self, dimension: int) -> float:
        """Return E[u_i²] of one coordinate; ∞ where it does not exist."""
        if self.tail_index <= 2:
            return np.inf
        of_radius = {"ball": 1 / (dimension + 2), "sphere": 1 / dimension}
        return of_radius.get(self.name) or float(self._law.moment(2))

    def cosine_mean(self, t: Array | float, dimension: int) -> Array:
        """Return E[cos(t·u_i)], t ≥ 0: the factor by which smoothing damps a wave.

        For a one-sided law it is the factor of the symmetric version. ValueError for Rayleigh and
        Pareto, which have no closed form here.
        """
        t = np.asarray(t, float)
        safe = np.where(t == 0, 1.0, t)
        if self.name in ("ball", "sphere"):
            order = dimension / 2 if self.name == "ball" else dimension / 2 - 1
            value = special.gamma(order + 1) * (2 / safe) ** order * special.jv(order, safe)
        elif self.name == "gaussian":
            value = np.exp(-(t**2) / 2)
        elif self.name == "exponential":
            value = 1 / (1 + t**2)
        elif self.name == "cauchy":
            value = np.exp(-t)
        elif self.name == "levy":
            value = np.exp(-np.sqrt(t)) * np.cos(np.sqrt(t))
        else:
            raise ValueError(f"kernel={self.name!r} has no closed form here")
        return np.where(t == 0, 1.0, value)
