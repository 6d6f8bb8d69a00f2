"""Statistics of runs: intervals, paired tests, equivalence, power.

SciPy has the distributions. Its ``stats`` takes a second to import, so each function imports what
it needs. The sign-flip test is written here because SciPy takes 1.4 s for 18 differences and 5 s
for 20.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

Array = NDArray[np.float64]

LEVEL = 0.05  # Every test has this level.
LEAST_SEEDS = 6  # With fewer seeds the sign-flip test cannot reach LEVEL, see least_p.
POWER = 0.8  # A "detectable" difference is found with this chance.
CONFIDENCE = 0.95
NO_SPREAD = 1e-12  # A smaller spread comes from rounding.
FEW_SIGNS, DRAWN_SAMPLES = 10, 4_000  # See _detectable.
MOST_SIGNS = 40  # Up to 40 differences the sign-flip test counts all signs, in 0.3 s.
DRAWN_SIGNS = 99_999  # With more differences the test draws signs at random.


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def reach(sd: ArrayLike, n: ArrayLike) -> Array:
    """Half the width of Student's 95 % interval of a mean, t s/√n; NaN for n < 2."""
    n = np.asarray(n, dtype=np.float64)
    degrees_of_freedom = np.where(n > 1, n - 1, np.nan)
    # 2.5 % of the distribution are above the interval, and 2.5 % below.
    t = stdtrit(degrees_of_freedom, (1 + CONFIDENCE) / 2)
    return np.asarray(t * np.asarray(sd) / np.sqrt(n))


def mean_of(values: ArrayLike) -> Estimate:
    """The mean of two values or more, with Student's t interval."""
    x = np.asarray(values, dtype=np.float64)
    mean, half = float(x.mean()), float(reach(x.std(ddof=1), len(x)))
    return Estimate(mean, mean - half, mean + half)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values (1979); None stays None and does not count as a test."""
    ranked = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(ranked):
        # The smallest p counts for all tests, the next for one test less. An adjusted p is never
        # below that of a smaller p.
        multiplied = min((len(ranked) - rank) * p, 1.0)
        largest = max(largest, multiplied)
        adjusted[i] = largest
    return adjusted


def sign_flip(differences: ArrayLike) -> float | None:
    """Two-sided p of the hypothesis that each difference is symmetric around 0 (Fisher 1935).

    The exact test: the share of all 2^n signs for which the mean is at least as far from 0 as with
    the given signs. This p is never below ``least_p(n)``. More than MOST_SIGNS differences are
    tested by DRAWN_SIGNS random signs. None for no differences, or where all are 0.
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[d != 0]
    if not len(d):
        return None
    # Sums that differ only by rounding are equally far from 0.
    bound = abs(d.sum()) - 1e-9 * np.abs(d).sum()
    if len(d) > MOST_SIGNS:
        random = np.random.default_rng(0)
        sums = (random.integers(0, 2, (DRAWN_SIGNS, len(d)), dtype=np.int8) * 2.0 - 1) @ d
        # The given signs count as one draw more, so p is never 0.
        return float((1 + (np.abs(sums) >= bound).sum()) / (1 + DRAWN_SIGNS))
    if bound <= 0:  # The mean is 0, and no other is nearer.
        return 1.0
    # A sum of all differences is a sum of the first half and one of the second half. Each half has
    # 2^(n/2) sums. A total is nearer to 0 if it is strictly between -bound and bound.
    sums, other_sums = (np.sort(_sums(half)) for half in np.array_split(d, 2))
    nearer = np.searchsorted(other_sums, bound - sums)
    nearer -= np.searchsorted(other_sums, -bound - sums, "right")
    total = 2.0 ** len(d)
    return (total - float(nearer.sum())) / total


def _sums(differences: Array) -> Array:
    """The 2^n sums of n differences, each with either sign."""
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums - difference, sums + difference])
    return sums


def least_p(n: int) -> float:
    """The smallest p of the sign-flip test for n differences.

    It is 2/2^n: at least the given signs and their opposites are as far from 0.
    """
    if n > MOST_SIGNS:
        return 1 / (1 + DRAWN_SIGNS)
    return 2.0 ** (1 - n) if n else 1.0


def least_seeds(tests: int) -> int:
    """The fewest seeds with which the sign-flip test can decide one of ``tests`` tests.

    The level of each test is LEVEL / tests. The search ends at 65 seeds, because above MOST_SIGNS
    differences ``least_p`` becomes no smaller.
    """
    return next(n for n in itertools.count(1) if least_p(n) <= LEVEL / tests or n > 64)


def equivalence(differences: ArrayLike, margin: float) -> float:
    """p of the hypothesis that the mean is not within ±margin: two one-sided t tests (TOST).

    The larger p of the two (Schuirmann 1987), for two differences or more.
    """
    d = np.asarray(differences, dtype=np.float64)
    standard_error = float(d.std(ddof=1)) / math.sqrt(len(d))
    distance = margin - abs(d.mean())  # from the mean to the nearer end, where p is larger
    if standard_error < NO_SPREAD:  # Then the mean is certain.
        return float(distance <= 0)
    return float(stdtr(len(d) - 1, -distance / standard_error))


def detectable(sd: float, n: int, level: float = LEVEL) -> float | None:
    """The smallest true difference that the sign-flip test finds with a chance of POWER.

    ``sd`` is that of the differences. None where n is too small: ``least_p(n)`` above ``level``.
    """
    if least_p(n) > level:
        return None
    return 0.0 if sd < NO_SPREAD else sd * _detectable(n, level)


@cache
def _detectable(n: int, level: float) -> float:
    """What ``detectable`` returns for normal differences whose standard deviation is 1.

    Up to n = FEW_SIGNS the power is the share of drawn samples in which the sign-flip test finds
    the effect. Above, the power is the paired t test's, which differs by 3 percentage points at
    most.
    """
    from scipy.optimize import brentq
    from scipy.stats import nct

    quantile = float(stdtrit(n - 1, 1 - level / 2))
    signs = np.array([*itertools.product((-1.0, 1.0), repeat=min(n, FEW_SIGNS))])
    normal = np.random.default_rng(0).standard_normal((DRAWN_SAMPLES, n))

    def excess_power(effect: float) -> float:
        """The chance to find an effect, less POWER."""
        if n > FEW_SIGNS:
            return float(nct.sf(quantile, n - 1, effect * math.sqrt(n))) - POWER
        samples = normal + effect
        # All signs are tried, so the absolute values stand for the sample. The share of signs with
        # a sum not below the sample's is the one-sided p.
        at_least = np.abs(samples) @ signs.T >= samples.sum(axis=1, keepdims=True) - NO_SPREAD
        return float((2 * at_least.mean(axis=1) <= level).mean()) - POWER

    unit = quantile / math.sqrt(n)  # This effect is found about half of the time.
    return float(brentq(excess_power, unit / 4, unit * 8, xtol=1e-6))
