"""Smoothing, f̂_δ(x) = E[f(x − δu)]: the law of u (the kernel), and its Monte Carlo estimate.

The kernels are `ball`, uniform on the closed unit ball of R^d (the slides'; δ is a radius), and
`gaussian`, N(0, I) (δ is the standard deviation of a coordinate).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.stats import qmc

Array = NDArray[np.float64]
Name = Literal["ball", "gaussian"]
Method = Literal["plain", "sobol"]
REPLICATES = 32


@dataclass(frozen=True)
class Kernel:
    """A kernel by name."""

    name: Name

    def cube_dimension(self, dimension: int) -> int:
        """Return the number of uniform numbers that a u needs."""
        return dimension + 1 if self.name == "ball" else dimension

    def from_cube(self, points: Array, dimension: int) -> Array:
        """Map uniform points (n, cube_dimension) to samples u (n, dimension)."""
        points = np.clip(points, 2.0**-53, 1 - 2.0**-53)
        z: Array = special.ndtri(points[:, :dimension])
        if self.name == "gaussian":
            return z
        z /= np.maximum(np.sqrt((z**2).sum(1, keepdims=True)), 1e-300)
        return z * points[:, -1:] ** (1 / dimension)

    def sample(self, count: int, dimension: int, rng: np.random.Generator) -> Array:
        """Draw u, shape (count, dimension)."""
        return self.from_cube(rng.random((count, self.cube_dimension(dimension))), dimension)

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


BALL, GAUSSIAN = Kernel("ball"), Kernel("gaussian")


def smooth(
    function: Callable[[Array], Array],
    x: Array,
    noise_level: float,
    kernel: Kernel,
    *,
    samples: int = 4096,
    method: Method = "sobol",
    seed: int = 0,
) -> tuple[Array, Array]:
    """Estimate E[function(x − δu)], f̂_δ for a value; return it and its standard error.

    `x` is (..., d), `function` maps (..., d) to (...) or (..., k), `noise_level` is δ in units of
    x. Points are plain random ones or scrambled Sobol points, `samples` in 32 replicates of a power
    of two; the standard error is their spread over √32. Source: slides, "目的関数の平滑化".
    """
    d = x.shape[-1]
    count = 2 ** int(np.ceil(np.log2(samples / REPLICATES)))
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(REPLICATES):
        if method == "sobol":
            sobol = qmc.Sobol(kernel.cube_dimension(d), rng=rng)
            points = np.asarray(sobol.random_base2(int(np.log2(count))))
        else:
            points = rng.random((count, kernel.cube_dimension(d)))
        u = kernel.from_cube(points, d).reshape(-1, *[1] * (x.ndim - 1), d)
        means.append(function(x - noise_level * u).mean(0))
    replicates = np.stack(means)
    return replicates.mean(0), replicates.std(0, ddof=1) / np.sqrt(REPLICATES)
