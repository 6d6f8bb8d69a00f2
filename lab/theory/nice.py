"""Is a function of one dimension σ-nice, or new σ-nice, along a sequence of noise levels?

Both definitions are about a continuum. The checkers use the given noise levels and finitely many
points of each neighbourhood. So they can refute that a definition holds, and cannot prove it.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import optimize

from lab.theory.functions import Function
from lab.theory.smoothing import Array


class Level(NamedTuple):
    """The numbers of a noise level.

    `x_star` is how far its `minimisers` are from 0. Condition (i): `distance` is the largest from a
    minimiser of f̂_δm to the nearest minimiser of f̂_δm+1, `allowed` what it may be; the last level
    has none. Condition (ii): `largest_sigma` is the smallest curvature of f̂_δ in the neighbourhood
    of radius `radius`.
    """

    delta: float
    x_star: float
    minimisers: int
    distance: float
    allowed: float
    i_holds: bool
    radius: float
    largest_sigma: float
    ii_holds: bool

    @property
    def holds(self) -> bool:
        """Whether both conditions hold."""
        return self.i_holds and self.ii_holds


@cache
def minimisers(function: Function, noise_level: float) -> Array:
    """Return the global minimisers of f̂_δ that a multi-start search finds, shape (k,).

    L-BFGS-B starts from the 24 best points of an even grid over the domain. Values within 1e-7 of
    the best count as minimal, and points within 1e-4 of one another as the same.
    """
    grid = np.linspace(*function.domain, 2001)
    ends = []  # the value and the place of each
    for start in grid[function.value(grid, noise_level).argsort()[:24]]:
        result = optimize.minimize(
            lambda x: function.value(x, noise_level).item(),
            start,
            jac=lambda x: function.gradient(x, noise_level),
            method="L-BFGS-B",
            bounds=[function.domain],
            options={"ftol": 1e-15, "gtol": 1e-10},
        )
        ends.append((result.fun, result.x.item()))
    lowest, _ = min(ends)
    unique: list[float] = []
    for value, x in ends:
        if value <= lowest + 1e-7 and all(abs(x - other) > 1e-4 for other in unique):
            unique.append(x)
    return np.array(unique)


def smallest_curvature(
    function: Function, noise_level: float, centres: Array | float, radius: float
) -> float:
    """Return the smallest curvature of f̂_δ in the balls about one centre, or about several, (k,).

    Each ball has 401 points.
    """
    points = np.add.outer(centres, radius * np.linspace(-1, 1, 401))
    return float(function.second_derivative(points, noise_level).min())


def check_sigma_nice(
    function: Function, noise_levels: Sequence[float] | Array, sigma: float
) -> list[Level]:
    """Check Hazan et al.'s σ-nice conditions at every given δ (each is compared with δ/2).

    (i) every x*_δ has an x*_{δ/2} within δ/2; (ii) f̂_δ is σ-strongly convex on N(x*_δ; 3δ).
    Source: slides, "σ-nice 関数".
    """
    return [
        _level(function, delta, delta / 2, minimisers(function, delta), 3.0, sigma)
        for delta in noise_levels
    ]


def check_new_sigma_nice(
    function: Function, noise_levels: Sequence[float] | Array, sigma: float, width: float = 1.0
) -> list[Level]:
    """Check the new σ-nice conditions along δ_1 > δ_2 > …, with one d_m = `width`.

    (i) ‖x*_δm − x*_δm+1‖ ≤ δ_m − δ_m+1; (ii) f̂_δm is σ-strongly convex on N(x*; d_m δ_m) around
    the minimiser x* of f itself. The Lipschitz condition is not checked. Source: slides, "New
    σ-nice 関数".
    """
    optimum = minimisers(function, 0.0)
    return [
        _level(function, delta, next_delta, optimum, width, sigma)
        for delta, next_delta in zip(noise_levels, [*noise_levels[1:], None], strict=True)
    ]


def _level(
    function: Function,
    delta: float,
    next_delta: float | None,
    centres: Array,
    width: float,
    sigma: float,
) -> Level:
    """Check a noise level: (i) against the next one, None for the last; (ii) about the centres.

    (ii) is σ-strong convexity within `width` times δ of each centre.
    """
    minima, distance, allowance = minimisers(function, delta), 0.0, np.inf
    if next_delta is not None:
        gaps = np.abs(np.subtract.outer(minima, minimisers(function, next_delta)))
        distance, allowance = float(gaps.min(1).max()), float(delta - next_delta)
    radius = width * delta
    curvature = smallest_curvature(function, delta, centres, radius)
    return Level(
        delta=delta,
        x_star=float(np.abs(minima).max()),
        minimisers=len(minima),
        distance=distance,
        allowed=allowance,
        i_holds=distance <= allowance * (1 + 1e-9) + 1e-9,
        radius=radius,
        largest_sigma=curvature,
        ii_holds=curvature >= sigma,
    )


def bands(
    function: Function, noise_levels: Array, radius_factor: float = 0.0
) -> list[tuple[float, float]]:
    """Return the intervals of δ in which f̂_δ is not convex on N(0; radius_factor·δ).

    The intervals' ends are found to 1e-9, by bisection where the sign of the smallest curvature
    changes between neighbours in `noise_levels` (increasing). An interval may also begin with the
    first level or end with the last.
    """

    def curvature_at(level: float) -> float:
        return smallest_curvature(function, level, 0.0, radius_factor * level)

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
