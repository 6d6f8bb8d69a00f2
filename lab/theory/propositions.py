"""Propositions 3.1–3.3 of the slides as formulas: |δ⁻|, d_m, p(a_m), and the decay-rate band."""

import math

import numpy as np

from lab.theory.functions import Array


def checked(a: Array | float) -> Array:
    """Return a_m as an array; ValueError for a_m ≤ √2, which Proposition 3.1 leaves out."""
    values = np.asarray(a, float)
    if not (values > np.sqrt(2)).all():
        raise ValueError(f"a={values} must be > √2 (Prop. 3.1)")
    return values


def printed_width_bounds(a: Array | float) -> tuple[Array, Array]:
    """Return the slides' bounds on d_m: 1 and a/(√(a² − 1) − 1). ValueError for a ≤ √2."""
    values = checked(a)
    return np.ones_like(values), values / (np.sqrt(values**2 - 1) - 1)


def delta_minus(distance: Array, u_norm: Array, cosine: Array, r: float, a: Array | float) -> Array:
    """Return |δ⁻| in units of x, NaN where the root does not exist; shapes broadcast.

    `distance` = ‖x* − x‖, `u_norm` = ‖u_m‖, `cosine` of the angle between u_m and x* − x, `r` the
    radius of strong convexity of f. ValueError for a ≤ √2 or r ≤ 0. Source: slides, Prop. 3.1.
    """
    a = checked(a)
    if r <= 0:
        raise ValueError(f"r={r} must be > 0")
    along = np.asarray(distance) * u_norm * cosine
    inside = along**2 - r**2 * (a**2 - 1)
    root = np.sqrt(np.where(inside >= 0, inside, np.nan))
    return np.abs(along - root)


def width(r: float, a: Array | float, delta: Array) -> Array:
    """Return d_m = a_m r/|δ⁻|. Source: slides, Prop. 3.1."""
    return np.asarray(np.asarray(a) * r / delta)


def exact_width_bounds(a: Array | float) -> tuple[Array, Array]:
    """Return the exact infimum and supremum of d_m for θ < π/2: a/√(a² − 1) and a/(a − 1).

    |δ⁻| falls from r√(a² − 1), where the root is double, to (a − 1)r at ‖x* − x‖‖u‖cos θ = a r.
    For θ > π/2 the printed formula gives the other root and d_m in (a/(a + 1), a/√(a² − 1)].
    """
    a = checked(a)
    return a / np.sqrt(a**2 - 1), a / (a - 1)


def existence_probability(
    distance: Array | float, u_norm: Array | float, r: float, a: Array | float
) -> Array:
    """Return p(a_m) = (2/π) arccos(r√(a² − 1)/(‖x* − x‖‖u_m‖)), 0 where the ratio exceeds 1.

    It takes θ uniform on [0, π], which holds for a uniform direction in dimension 2 only.
    ValueError for a ≤ √2. Source: slides, "δ⁻ が存在する確率".
    """
    a = checked(a)
    ratio = r * np.sqrt(a**2 - 1) / (np.asarray(distance) * u_norm)
    return np.asarray(2 / np.pi * np.arccos(np.minimum(ratio, 1.0)))


def sufficient_noise_level(gradient_norms: tuple[float, float], sigma: float, rate: float) -> float:
    """Return Prop. 3.2's smallest |δ_m|: 2 max‖∇f̂(x*)‖/(σ(1 − γ_m)), over levels m and m + 1.

    ValueError unless σ > 0 and γ_m in (0, 1). Source: slides, 命題 3.2.
    """
    if sigma <= 0 or not 0 < rate < 1:
        raise ValueError(f"sigma={sigma} must be > 0 and rate={rate} in (0, 1)")
    return 2 * max(gradient_norms) / (sigma * (1 - rate))


def optimal_decay_rates(stages: int, power: float) -> Array:
    """Return γ_m = ((M − m)/(M − m + 1))^p for m = 1..M (γ_M = 0). ValueError unless p > 0, M ≥ 1.

    The slides allow p in (0, 1]; larger p are polynomial decays, for comparison.
    Source: slides, Algorithm 3.
    """
    if stages < 1 or power <= 0:
        raise ValueError(f"stages={stages} must be ≥ 1 and power={power} > 0")
    remaining = stages - np.arange(1, stages + 1)
    return np.asarray((remaining / (remaining + 1)) ** power)


def largest_a(rate: float, *, printed: bool = True) -> float:
    """Return the largest a_m whose lowest 1/d_m is below the decay rate `rate`; ∞ if all are.

    The lowest 1/d_m is (√(a² − 1) − 1)/a of the slides (`printed`), or else the exact (a − 1)/a.
    """
    if rate >= 1:
        return math.inf
    if printed:  # (√(a² − 1) − 1)/a = γ  ⇔  (1 − γ²) a² − 2γ a − 2 = 0
        return (rate + math.sqrt(rate**2 + 2 * (1 - rate**2))) / (1 - rate**2)
    return 1 / (1 - rate)
