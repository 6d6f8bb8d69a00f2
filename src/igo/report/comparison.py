"""Settings compared seed by seed: which is higher, and whether they are equal."""

from __future__ import annotations

import itertools
import math
import statistics as standard
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl

from igo.analysis import statistics
from igo.analysis.statistics import LEAST_PAIRS, LEVEL, Array

SAME = 1e-12  # values that differ by less are equal
MOST_TESTED = 100_000  # test images; a larger common denominator of accuracies is ignored


@dataclass(frozen=True)
class Pair:
    """Two settings compared over the seeds that both have.

    Attributes:
        first: the number of the setting from whose values those of ``second`` are subtracted.
        second: the number of the other setting.
        n: number of common seeds.
        difference: mean of ``first`` − ``second``; None without a common seed.
        low: lower end of its 95 % interval (Student); None for n < 2 or no spread.
        high: upper end.
        sd: standard deviation of the n differences; None for n < 2.
        p: of the exact sign-flip test, two-sided; None for n < 2, or where all differences are 0.
        p_holm: p adjusted for all pairs of the comparison that have a p (Holm 1979).
        p_equal: p of the hypothesis that the difference is not within ±margin (TOST), adjusted by
            Holm as well; None for n < LEAST_PAIRS.
        detectable: the smallest true difference that n seeds find with 80 % power, at the level
            5 %/(number of pairs); None if n is too small for any verdict.
        seeds: number of seeds that find a true difference as large as the observed one with 80 %
            power; None if that is too many.
    """

    first: int
    second: int
    n: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    p: float | None = None
    p_holm: float | None = None
    p_equal: float | None = None
    detectable: float | None = None
    seeds: int | None = None

    @property
    def decided(self) -> bool:
        """Whether the test says which is higher."""
        return self.p_holm is not None and self.p_holm <= LEVEL

    @property
    def equal(self) -> bool:
        """Whether the equivalence test says that the difference is within the margin."""
        return self.p_equal is not None and self.p_equal <= LEVEL

    @property
    def identical(self) -> bool:
        """Whether the two settings reached the same value in every common seed, two or more."""
        return self.n > 1 and self.sd == 0 and self.difference == 0

    @property
    def verdict(self) -> str:
        """The result for ``first``, in a word or two."""
        if self.n < 2 or self.difference is None:
            return f"{'one' if self.n else 'no'} seed in common"
        if self.identical:
            return "identical"
        if self.decided:
            return ("higher" if self.difference > 0 else "lower") + ", within ±" * self.equal
        if self.equal:
            return "equal"
        return "too few seeds" if self.detectable is None else "undecided"


def compare(
    runs: pl.DataFrame, settings: Sequence[int], metric: str, margin: float | None = None
) -> list[Pair]:
    """Every pair of settings, over their common seeds.

    Args:
        runs: as in igo.report.results.Results; only counted runs are used.
        settings: two or more.
        metric: a column of runs.
        margin: of equivalence, in the unit of the metric; None for no such test.
    """
    values = by_seed(runs, settings, metric)
    least = statistics.least_sd(accuracy_step(runs, settings)) if "accuracy" in metric else 0.0
    pairs = list(itertools.combinations(settings, 2))
    return compared(pairs, [differences(values[a], values[b]) for a, b in pairs], margin, least)


def compared(
    pairs: Sequence[tuple[int, int]],
    samples: Sequence[Array],
    margin: float | None,
    least: float = 0.0,
) -> list[Pair]:
    """Test pairs of settings by ``samples``, the differences of each pair in its common seeds.

    A standard deviation below ``least`` counts as ``least``.
    """
    p_values = [statistics.sign_flip(d) if len(d) > 1 else None for d in samples]
    p_equal = [
        statistics.equivalence(d, margin, least) if margin and len(d) >= LEAST_PAIRS else None
        for d in samples
    ]
    level = LEVEL / max(1, sum(p is not None for p in p_values))
    tests = zip(p_values, statistics.holm(p_values), statistics.holm(p_equal), strict=True)
    return [
        Pair(*pair, len(d), p=p, p_holm=p_holm, p_equal=equal, **_spread(d, least, level))
        for pair, d, (p, p_holm, equal) in zip(pairs, samples, tests, strict=True)
    ]


def _spread(d: Array, least: float, level: float) -> dict[str, Any]:
    """The fields of a Pair that come from the mean, spread and number of the differences."""
    if len(d) < 2:
        return {"difference": float(d[0]) if len(d) else None}
    mean, apart = statistics.mean_of(d), float(np.ptp(d)) >= SAME
    sd = float(d.std(ddof=1)) if apart else 0.0
    return {
        "difference": mean.value,
        "low": mean.low if apart else None,
        "high": mean.high if apart else None,
        "sd": sd,
        "detectable": statistics.detectable(max(sd, least), len(d), level),
        "seeds": statistics.seeds_to_detect(mean.value, max(sd, least), level),
    }


def accuracy_step(runs: pl.DataFrame, settings: Collection[int]) -> float:
    """1/n_test: all test accuracies of these runs are multiples of it; 0 if no such number exists.

    If few accuracies happen to be multiples of a larger step, that step is returned.
    """
    compared_runs = runs.filter(pl.col("setting").is_in(list(settings)))
    tested = 1
    for name in ("test/accuracy", "test/accuracy_best"):
        for value in compared_runs[name].drop_nulls().unique():
            share = Fraction(value).limit_denominator(MOST_TESTED)
            tested = math.lcm(tested, share.denominator)
            if abs(share - Fraction(value)) > SAME or tested > MOST_TESTED:
                return 0.0
    return 1 / tested


def by_seed(
    runs: pl.DataFrame, settings: Collection[int], metric: str
) -> dict[int, dict[int, float]]:
    """The value of a metric for each setting and seed."""
    values: dict[int, dict[int, float]] = {setting: {} for setting in settings}
    usable = runs.filter("counted", pl.col(metric).is_not_null())
    for setting, seed, value in usable.select("setting", "seed", metric).iter_rows():
        if setting in values:
            values[setting][seed] = value
    return values


def differences(first: Mapping[int, float], second: Mapping[int, float]) -> Array:
    """``first`` − ``second`` for each common seed, of two settings or two means of settings."""
    seeds = sorted(first.keys() & second.keys())
    values = np.array([first[seed] - second[seed] for seed in seeds])
    return np.where(np.abs(values) < SAME, 0.0, values)


def mean_by_seed(values: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The mean over several settings, for each seed that all of them have."""
    seeds = set.intersection(*map(set, values)) if values else set()
    return {seed: standard.fmean(setting[seed] for setting in values) for seed in sorted(seeds)}
