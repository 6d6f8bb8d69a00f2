"""Smoothing: f̂_δ(x) = E[f(x − δu)] for a named kernel u, by Monte Carlo and by quadrature."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special
from scipy.stats import qmc

from lab.theory.functions import Array
from lab.theory.kernels import Kernel

Method = Literal["quasi", "antithetic", "plain"]
REPLICATES = 32


@dataclass(frozen=True)
class Estimate:
    """A Monte Carlo mean, its standard error (same shape and unit), and the number of samples.

    The standard error is the spread of 32 independent replicates over √32.
    """

    value: Array
    standard_error: Array
    samples: int


def _check_noise_level(noise_level: float) -> None:
    if not (np.isfinite(noise_level) and noise_level >= 0):
        raise ValueError(f"noise_level={noise_level} must be a finite number ≥ 0")


def _cube_points(method: Method, count: int, dimension: int, rng: np.random.Generator) -> Array:
    if method == "quasi":
        sobol = qmc.Sobol(dimension, rng=rng)
        points = np.asarray(sobol.random_base2(int(np.log2(count))))
    else:
        points = rng.random((count, dimension))
    return np.asarray(np.clip(points, 2.0**-53, 1 - 2.0**-53))


def smooth(
    function: Callable[[Array], Array],
    x: Array,
    noise_level: float,
    kernel: Kernel,
    *,
    samples: int = 4096,
    method: Method = "quasi",
    seed: int = 0,
) -> Estimate:
    """Estimate E[function(x − δu)]: f̂_δ for a value, ∇f̂_δ for a gradient.

    `x` is (..., d), `function` maps (..., d) to (...) or (..., k), `noise_level` is δ in units
    of x. `method`: plain random points, antithetic pairs, or scrambled Sobol points. `samples`
    is rounded up to 32 replicates of a power of two. ValueError on an invalid argument.
    ∇f̂_δ = E[∇f(x − δu)] needs f Lipschitz. Source: slides, "目的関数の平滑化".
    """
    _check_noise_level(noise_level)
    if samples < 2 * REPLICATES:
        raise ValueError(f"samples={samples} must be at least {2 * REPLICATES}")
    if method not in ("quasi", "antithetic", "plain"):
        raise ValueError(f"method={method!r} must be quasi, antithetic or plain")
    x = np.asarray(x, float)
    d = x.shape[-1]
    per_replicate = 2 ** int(np.ceil(np.log2(samples / REPLICATES)))
    draws = per_replicate // 2 if method == "antithetic" else per_replicate
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(REPLICATES):
        points = _cube_points(method, draws, kernel.cube_dimension(d), rng)
        if method == "antithetic":
            points = np.concatenate([points, kernel.reflect(points, d)])
        u = kernel.from_cube(points, d).reshape(-1, *[1] * (x.ndim - 1), d)
        means.append(function(x - noise_level * u).mean(0))
    replicate_means = np.stack(means)
    error = replicate_means.std(0, ddof=1) / np.sqrt(REPLICATES)
    return Estimate(replicate_means.mean(0), error, REPLICATES * per_replicate)


def nodes(kernel: Kernel, dimension: int, order: int) -> tuple[Array, Array]:
    """Return quadrature points u (n, d) and weights (n,) of a ball, sphere or Gaussian kernel.

    The dimension is 1 or 2. The rule is Gauss–Legendre along the radius of the ball, and the
    trapezoid rule around the circle and along each axis of the Gaussian, cut at 8.5. There the
    trapezoid rule converges exponentially, also for waves much shorter than δ, where
    Gauss–Hermite fails. ValueError for another dimension.
    """
    if dimension not in (1, 2):
        raise ValueError(f"no quadrature for kernel={kernel.name!r} in dimension={dimension}")
    if kernel.name == "gaussian":
        t = np.linspace(-8.5, 8.5, order)
        w = np.exp(-(t**2) / 2)
        w /= w.sum()
        if dimension == 1:
            return t[:, None], w
        grid = np.stack(np.meshgrid(t, t, indexing="ij"), -1).reshape(-1, 2)
        return grid, np.outer(w, w).ravel()
    if dimension == 1:
        if kernel.name == "sphere":
            return np.array([[-1.0], [1.0]]), np.array([0.5, 0.5])
        t, w = special.roots_legendre(order)
        return t[:, None], w / 2
    angle = 2 * np.pi * np.arange(order) / order
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    if kernel.name == "sphere":
        return circle, np.full(order, 1 / order)
    t, w = special.roots_legendre(order)
    radius, weight = np.sqrt((t + 1) / 2), w / 2  # uniform in r²
    points = (radius[:, None, None] * circle).reshape(-1, 2)
    return points, np.repeat(weight / order, order)


def smooth_by_quadrature(
    function: Callable[[Array], Array],
    x: Array,
    noise_level: float,
    kernel: Kernel,
    order: int = 128,
) -> Array:
    """Return E[function(x − δu)] by quadrature, for x (..., d) with d = 1 or 2.

    It has no error bar: double `order` to see the error. ValueError as `nodes`.
    """
    _check_noise_level(noise_level)
    x = np.asarray(x, float)
    points, weights = nodes(kernel, x.shape[-1], order)
    moved = x - noise_level * points.reshape(-1, *[1] * (x.ndim - 1), x.shape[-1])
    return np.tensordot(weights, function(moved), 1)
