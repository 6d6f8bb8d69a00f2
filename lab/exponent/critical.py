"""Question (v): is the critical batch of K(b) = K_min(1 + b_crit/b) the measured B_simple?

K is the number of updates to a target loss. McCandlish et al. (2018) derive this form for a
quadratic model with the best η for each b, and b_crit = B_simple = tr Σ/‖∇f‖² where the Hessian is
a multiple of the identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from igo.analysis.statistics import LEVEL, Array, Estimate
from lab.exponent.critical_runs import SMOOTHED_OVER, B

SEEDS = 6  # as planned
FACTOR = 2.0  # between b_crit and B_simple
MOST_CENSORED = 2  # cells with a run that did not arrive
DRAWS = 10_000
STUDIES, DRAWS_OF_STUDIES = 200, 500  # of the power
CRITICAL = np.exp(np.arange(math.log(0.1), math.log(1e5), 0.01))
CURVES = np.log1p(CRITICAL[:, None] / np.array(B))  # ln(1 + b_crit/b), (b_crit, B)


@dataclass(frozen=True)
class Power:
    """The share of simulated studies with each verdict, and their true b_crit/B_simple."""

    confirmed_if_equal: float
    refuted_if_equal: float
    refuted_if_fourfold: float
    confirmed_if_fourfold: float


@dataclass(frozen=True)
class Judged:
    """The fit to ln K, the measured B_simple, their ratio, the verdict and secondary results.

    For ``off`` 4,096 samples, half of the smoothing window, are subtracted from each K: smoothing
    delays the loss by so many samples. ``f`` and ``p_fit`` are of the lack of fit.
    """

    n: int
    least: float
    critical: Estimate
    scale: Estimate
    ratio: Estimate
    verdict: str
    censored: int
    f: float
    p_fit: float
    off: Estimate
    power: Power


def judge(updates: Array, censored: Array, scales: Array, seed: int = 0) -> Judged:
    """Judge K by the protocol's rule.

    Args:
        updates: K by B and seed, (8, seeds); for a censored run, the updates at its end.
        censored: whether a run did not arrive, (8, seeds).
        scales: B_simple of the run at b = 32, by seed, (seeds,).
        seed: of the bootstrap.
    """
    y = np.log(updates)
    seeds = y.shape[1]
    critical, scale = bootstrap(y, scales, DRAWS, seed)
    curve = np.log1p(critical[0] / np.array(B))
    least = float(np.exp((y.mean(1) - curve).mean()))
    cells = int(censored.any(axis=1).sum())
    ratio = estimate(critical / scale)
    lag = SMOOTHED_OVER / 2 / np.array(B)[:, None]
    off, _ = bootstrap(np.log(updates - lag), scales, DRAWS, seed)
    return Judged(
        seeds, least, estimate(critical), estimate(scale), ratio, verdict(ratio, cells), cells,
        *lack_of_fit(y), estimate(off), power(y, scales, critical[0], seed),
    )  # fmt: skip


def bootstrap(y: Array, scales: Array, draws: int, seed: int) -> tuple[Array, Array]:
    """b_crit and the median B_simple of all seeds, then of each draw of whole seeds."""
    seeds = y.shape[1]
    drawn = np.sort(np.random.default_rng(seed).integers(0, seeds, (draws, seeds)), axis=1)
    fitted, of_draw = np.unique(drawn, axis=0, return_inverse=True)  # equal draws are fitted once
    means = np.column_stack([y.mean(axis=1), y[:, fitted].mean(axis=2)])
    critical = CRITICAL[off_the_curve(means).argmin(axis=0)]
    medians = np.concatenate([[np.median(scales)], np.median(scales[drawn], axis=1)])
    return np.concatenate([critical[:1], critical[1:][of_draw.ravel()]]), medians


def off_the_curve(means: Array) -> Array:
    """Sum of squares of each column of ln K (8, k) off the curve of each b_crit, (b_crit, k)."""
    curves = CURVES - CURVES.mean(axis=1, keepdims=True)
    apart = means - means.mean(axis=0)
    squares = (curves**2).sum(axis=1)[:, None] - 2 * curves @ apart + (apart**2).sum(axis=0)
    return np.asarray(squares)


def estimate(draws: Array) -> Estimate:
    """The first number with the 95 % interval of the others."""
    low, high = np.quantile(draws[1:], [LEVEL / 2, 1 - LEVEL / 2])
    return Estimate(float(draws[0]), float(low), float(high))


def verdict(ratio: Estimate, censored: int) -> str:
    """The verdict by the interval of b_crit/B_simple and the number of cells with censored runs."""
    if censored > MOST_CENSORED:
        return "undecided"
    if ratio.low >= 1 / FACTOR and ratio.high <= FACTOR:
        return "confirmed"
    return "refuted" if ratio.high < 1 / FACTOR or ratio.low > FACTOR else "undecided"


def lack_of_fit(y: Array) -> tuple[float, float]:
    """F and p of the cells' means off the curve, against the spread between seeds."""
    cells, seeds = y.shape
    free, freedom = cells - 2, cells * (seeds - 1)
    off = seeds * float(off_the_curve(y.mean(axis=1)[:, None]).min()) / free
    within = float(((y - y.mean(axis=1, keepdims=True)) ** 2).sum()) / freedom
    f = off / within
    return f, float(stats.f.sf(f, free, freedom))


def power(y: Array, scales: Array, critical: float, seed: int) -> Power:
    """Verdicts of simulated studies. The curve fits; the spread between seeds is that of ``y``."""
    random = np.random.default_rng(seed)
    seeds = y.shape[1]
    curve = np.log1p(critical / np.array(B))[:, None]
    wider = math.sqrt(seeds / (seeds - 1))  # deviations from a mean are smaller than errors
    spread = (y - y.mean(axis=1, keepdims=True)) * wider
    of_scale = np.exp((np.log(scales) - np.log(scales).mean()) * wider)
    shares = {}
    for times in (1.0, 4.0):
        verdicts = []
        for _ in range(STUDIES):
            drawn = random.integers(0, seeds, seeds)
            study = curve + spread[:, drawn]
            measured = critical / times * of_scale[drawn]
            both = bootstrap(study, measured, DRAWS_OF_STUDIES, seed)
            verdicts.append(verdict(estimate(both[0] / both[1]), 0))
        shares[times] = {w: verdicts.count(w) / STUDIES for w in ("confirmed", "refuted")}
    return Power(
        shares[1.0]["confirmed"], shares[1.0]["refuted"],
        shares[4.0]["refuted"], shares[4.0]["confirmed"],
    )  # fmt: skip
