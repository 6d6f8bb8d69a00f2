"""Smoothing kernels: the law of u in f̂_δ(x) = E[f(x − δu)], each named with its scale.

| name | u | unit of δ |
|---|---|---|
| ball | uniform on the closed unit ball of R^d (the slides' kernel) | radius |
| sphere | uniform on the unit sphere | radius |
| gaussian | N(0, I) | standard deviation of a coordinate |
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import special

from lab.theory.functions import Array

Name = Literal["ball", "sphere", "gaussian"]


@dataclass(frozen=True)
class Kernel:
    """A kernel by name. ValueError for an unknown name."""

    name: Name

    def __post_init__(self) -> None:
        if self.name not in get_args(Name):
            raise ValueError(f"kernel={self.name!r} must be one of {', '.join(get_args(Name))}")

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
        z: Array = special.ndtri(points[:, :dimension])
        if self.name == "gaussian":
            return z
        z /= np.maximum(np.sqrt((z**2).sum(1, keepdims=True)), 1e-300)
        return z if self.name == "sphere" else z * points[:, -1:] ** (1 / dimension)

    def sample(self, count: int, dimension: int, rng: np.random.Generator) -> Array:
        """Draw u, shape (count, dimension)."""
        points = rng.random((count, self.cube_dimension(dimension)))
        return self.from_cube(np.clip(points, 2.0**-53, 1 - 2.0**-53), dimension)

    def second_moment(self, dimension: int) -> float:
        """Return E[u_i²] of one coordinate."""
        return {"ball": 1 / (dimension + 2), "sphere": 1 / dimension, "gaussian": 1.0}[self.name]

    def cosine_mean(self, t: Array | float, dimension: int) -> Array:
        """Return E[cos(t·u_i)], t ≥ 0: the factor by which smoothing damps a wave."""
        t = np.asarray(t, float)
        if self.name == "gaussian":
            return np.asarray(np.exp(-(t**2) / 2))
        safe = np.where(t == 0, 1.0, t)
        order = dimension / 2 if self.name == "ball" else dimension / 2 - 1
        value = special.gamma(order + 1) * (2 / safe) ** order * special.jv(order, safe)
        return np.where(t == 0, 1.0, value)
