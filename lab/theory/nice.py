"""Is a function σ-nice, or new σ-nice, along a sequence of noise levels? Where does it fail?

Both definitions are about a continuum. The checkers use the given noise levels and finitely many
points of each neighbourhood. So they can refute that a definition holds, and cannot prove it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy.stats import qmc

from lab.theory.functions import Function
from lab.theory.smoothing import Array


@dataclass(frozen=True)
class Level:
    """The numbers of a noise level.

    Condition (i): `distance` is the largest from a minimiser of f̂_δm to the nearest minimiser of
    f̂_δm+1, `allowed` what it may be; the last level has none. Condition (ii): `largest_sigma` is
    the smallest curvature of f̂_δ in the neighbourhood of radius `radius`.
    """

    delta: float
    minimisers: Array
    distance: float
    allowed: float
    radius: float
    largest_sigma: float
    sigma: float

    @property
    def moves_little(self) -> bool:
        """Whether condition (i) holds."""
        return bool(self.distance <= self.allowed * (1 + 1e-9) + 1e-9)

    @property
    def is_convex(self) -> bool:
        """Whether condition (ii) holds."""
        return self.largest_sigma >= self.sigma


def _ball_points(centre: Array, radius: float) -> Array:
    """Return points in the ball: an even grid in one dimension, else Sobol points."""
    d = centre.size
    if d == 1:
        return np.asarray(centre + radius * np.linspace(-1, 1, 401)[:, None])
    q = qmc.Sobol(d + 1, rng=0).random_base2(10)
    z = np.asarray(qmc.scale(q[:, :d], -1, 1))
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-300)
    shell = centre + radius * z * np.concatenate([q[:512, d:] ** (1 / d), np.ones((512, 1))])
    return np.concatenate([centre[None], shell])


def minimisers(function: Function, noise_level: float) -> Array:
    """Return the global minimisers of f̂_δ that a multi-start search finds, shape (k, d).

    L-BFGS-B starts from the 24 best points of an even grid (d = 1) or of Sobol points over the
    domain. Values within 1e-7 of the best count as minimal.
    """
    low, high = function.domain
    d = function.dimension
    if d == 1:
        grid = np.linspace(low, high, 2001)[:, None]
    else:
        sobol = qmc.Sobol(d, rng=0).random_base2(11)
        grid = np.concatenate([np.zeros((1, d)), qmc.scale(sobol, low, high)])
    values = function.value(grid, noise_level).sum(-1)
    polished = []
    for start in grid[np.argsort(values)[:24]]:
        result = optimize.minimize(
            lambda x: float(function.value(x, noise_level).sum()),
            start,
            jac=lambda x: function.gradient(x, noise_level),
            method="L-BFGS-B",
            bounds=[(low, high)] * d,
            options={"ftol": 1e-15, "gtol": 1e-10},
        )
        polished.append((float(result.fun), np.asarray(result.x)))
    best = min(value for value, _ in polished)
    unique: list[Array] = []
    for value, x in polished:
        is_new = all(np.linalg.norm(x - y) > 1e-4 for y in unique)
        if value <= best + 1e-7 and is_new:
            unique.append(x)
    return np.stack(unique)


def weakest(function: Function, noise_level: float, centres: Array, radius: float) -> float:
    """Return the smallest curvature of f̂_δ in the balls about `centres` (k, d)."""
    points = np.concatenate([_ball_points(centre, radius) for centre in centres])
    return float(function.second_derivative(points, noise_level).min())


def _farthest(points: Array, other_points: Array) -> float:
    distances = np.linalg.norm(points[:, None] - other_points[None], axis=-1)
    return float(distances.min(1).max())


def check_sigma_nice(
    function: Function, noise_levels: Sequence[float], sigma: float
) -> list[Level]:
    """Check Hazan et al.'s σ-nice conditions at every given δ (each is compared with δ/2).

    (i) every x*_δ has an x*_{δ/2} within δ/2; (ii) f̂_δ is σ-strongly convex on N(x*_δ; 3δ).
    Source: slides, "σ-nice 関数".
    """
    levels = []
    for delta in noise_levels:
        minima, minima_of_half = minimisers(function, delta), minimisers(function, delta / 2)
        curvature = weakest(function, delta, minima, 3 * delta)
        distance = _farthest(minima, minima_of_half)
        levels.append(Level(delta, minima, distance, delta / 2, 3 * delta, curvature, sigma))
    return levels


def check_new_sigma_nice(
    function: Function, noise_levels: Sequence[float], width: float, sigma: float
) -> list[Level]:
    """Check the new σ-nice conditions along δ_1 > δ_2 > …, with one d_m = `width`.

    (i) ‖x*_δm − x*_δm+1‖ ≤ δ_m − δ_m+1; (ii) f̂_δm is σ-strongly convex on N(x*; d_m δ_m) around
    the minimiser x* of f itself. The Lipschitz condition is not checked. Source: slides, "New
    σ-nice 関数".
    """
    optimum = minimisers(function, 0.0)
    minima = [minimisers(function, delta) for delta in noise_levels]
    levels = []
    for m, delta in enumerate(noise_levels):
        curvature = weakest(function, delta, optimum, width * delta)
        distance, allowance = 0.0, np.inf
        if m + 1 < len(minima):
            distance = _farthest(minima[m], minima[m + 1])
            allowance = delta - noise_levels[m + 1]
        levels.append(Level(delta, minima[m], distance, allowance, width * delta, curvature, sigma))
    return levels


def bands(
    function: Function, noise_levels: Array, centre: Array, radius_factor: float = 0.0
) -> list[tuple[float, float]]:
    """Return the intervals of δ in which f̂_δ is not convex on N(`centre`; radius_factor·δ).

    Bisection between neighbouring `noise_levels` (increasing) finds the ends to 1e-9.
    """

    def curvature_at(level: float) -> float:
        return weakest(function, level, centre[None], radius_factor * level)

    curvatures = [curvature_at(level) for level in noise_levels]
    ends = [float(noise_levels[0])] if curvatures[0] < 0 else []
    for i in range(len(noise_levels) - 1):
        if (curvatures[i] < 0) != (curvatures[i + 1] < 0):
            ends.append(
                optimize.bisect(curvature_at, noise_levels[i], noise_levels[i + 1], xtol=1e-9)
            )
    if curvatures[-1] < 0:
        ends.append(float(noise_levels[-1]))
    return list(zip(ends[::2], ends[1::2], strict=True))
