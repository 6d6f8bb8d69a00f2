"""Propositions 3.1–3.3 and the noise schedules of the slides as formulas."""

import numpy as np
from scipy import stats

from lab.theory.smoothing import Array


def printed_width_bound(a: Array | float) -> Array:
    """Return the slides' upper bound on d_m, a/(√(a² − 1) − 1); the lower one is 1."""
    return np.asarray(a / (np.sqrt(np.square(a) - 1) - 1))


def exact_width_bounds(a: Array | float) -> tuple[Array, Array]:
    """Return the exact infimum and supremum of d_m for θ < π/2: a/√(a² − 1) and a/(a − 1).

    |δ⁻| falls from r√(a² − 1), where the root is double, to (a − 1)r at ‖x* − x‖‖u‖cos θ = a r.
    For θ > π/2 the printed formula gives the other root and d_m in (a/(a + 1), a/√(a² − 1)].
    """
    a = np.asarray(a, float)
    return a / np.sqrt(a**2 - 1), a / (a - 1)


def largest_a(rate: float) -> float:
    """Return the largest a_m whose printed floor of 1/d_m is below the decay rate."""
    return float((rate + np.sqrt(2 - rate**2)) / (1 - rate**2))


def delta_minus(distance: Array, u_norm: Array, cosine: Array, r: float, a: Array | float) -> Array:
    """Return |δ⁻| in units of x, NaN where the root does not exist; shapes broadcast.

    `distance` = ‖x* − x‖, `u_norm` = ‖u_m‖, `cosine` of the angle between u_m and x* − x, `r` the
    radius of strong convexity of f. Source: slides, Prop. 3.1.
    """
    along = np.asarray(distance) * u_norm * cosine
    discriminant = along**2 - r**2 * (np.asarray(a) ** 2 - 1)
    root = np.sqrt(np.where(discriminant >= 0, discriminant, np.nan))
    return np.abs(along - root)


def existence_probability(
    distance: Array | float, u_norm: Array | float, a: Array | float
) -> Array:
    """Return p(a_m) = (2/π) arccos(r√(a² − 1)/(‖x* − x‖‖u_m‖)), 0 where the ratio exceeds 1.

    `distance` is ‖x* − x‖/r, and `u_norm` ‖u_m‖. The formula takes θ uniform on [0, π], which holds
    for a uniform direction in dimension 2 only. Source: slides, "δ⁻ が存在する確率".
    """
    ratio = np.sqrt(np.asarray(a) ** 2 - 1) / (np.asarray(distance) * u_norm)
    return np.asarray(2 / np.pi * np.arccos(np.minimum(ratio, 1.0)))


def optimal_levels(delta_1: float, stages: int, power: float) -> Array:
    """Return δ_m, m = 1..M, of γ_m = ((M − m)/(M − m + 1))^p. Source: slides, Algorithm 3.

    The slides allow p in (0, 1]; larger p are polynomial decays, for comparison.
    """
    remaining = np.arange(stages - 1, 0, -1)
    rates = (remaining / (remaining + 1)) ** power
    return np.asarray(delta_1 * np.concatenate([[1.0], np.cumprod(rates)]))


def fitted_exponent(rounds: Array, errors: Array) -> tuple[float, float]:
    """Return the slope of log rounds on log 1/error and its standard error (least squares)."""
    x, y = -np.log(np.asarray(errors)), np.log(np.asarray(rounds, float))
    fit = stats.linregress(x, y)
    return float(fit.slope), float(fit.stderr)
