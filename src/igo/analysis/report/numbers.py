"""Statistics of the report: paired comparisons over seeds, and whether δ alone decides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from igo.analysis.table.table import CONFIDENCE


@dataclass(frozen=True)
class Pair:
    """Two settings compared seed by seed.

    ``difference`` is the mean of ``first`` less ``second`` over the ``n`` seeds that both have,
    ``low`` and ``high`` its 95 % interval, ``p`` of the paired t test, ``p_holm`` adjusted for all
    pairs of the table (Holm 1979). None where n < 2, or where all differences are the same.
    """

    first: int
    second: int
    n: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None


def compare(runs: pl.DataFrame, settings: Sequence[int], metric: str) -> list[Pair]:
    """Every pair of settings by a paired t test over their common seeds.

    Args:
        runs: as in igo.analysis.report.runs.Material; counted ones are used.
        settings: two or more.
        metric: a column of runs.
    """
    usable = runs.filter("counted", pl.col(metric).is_not_null())
    values: dict[int, dict[int, float]] = {setting: {} for setting in settings}
    for setting, seed, value in usable.select("setting", "seed", metric).iter_rows():
        if setting in values:
            values[setting][seed] = value
    pairs = [_pair(a, b, values[a], values[b]) for a, b in itertools.combinations(settings, 2)]
    adjusted = holm([pair.p for pair in pairs])
    return [Pair(**{**pair.__dict__, "p_holm": p}) for pair, p in zip(pairs, adjusted, strict=True)]


def _pair(a: int, b: int, first: Mapping[int, float], second: Mapping[int, float]) -> Pair:
    seeds = sorted(first.keys() & second.keys())
    x = np.array([first[seed] for seed in seeds])
    y = np.array([second[seed] for seed in seeds])
    if len(seeds) < 2:
        difference = float(x[0] - y[0]) if seeds else None
        return Pair(a, b, len(seeds), difference, None, None, None, None)
    difference = float((x - y).mean())
    if np.ptp(x - y) < 1e-12:  # no spread: t would be infinite
        return Pair(a, b, len(seeds), difference, None, None, None, None)
    result = stats.ttest_rel(x, y)
    low, high = result.confidence_interval(CONFIDENCE)
    return Pair(a, b, len(seeds), difference, float(low), float(high), float(result.pvalue), None)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values (1979): max over the smaller ones of (k - rank + 1) p, at most 1."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, i) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        adjusted[i] = least
    return adjusted


def equal_means(samples: Sequence[Sequence[float]]) -> float | None:
    """p of the hypothesis that all means are equal, variances free (Alexander and Govern 1994).

    None where a sample has fewer than two values or no spread.
    """
    if len(samples) < 2 or any(len(one) < 2 or np.ptp(one) < 1e-12 for one in samples):
        return None
    return float(stats.alexandergovern(*samples).pvalue)


def share_explained(groups: Sequence[Sequence[float]]) -> float | None:
    """Share of the variance among all values that lies between groups, corrected for their number.

    Kelley's ε² (1935), 1 - (SS_within/(N - k))/(SS_total/(N - 1)): about 0 for groups by chance.
    None for no variance, or where no group has two values.
    """
    values = np.concatenate([np.asarray(group, float) for group in groups])
    total = float(((values - values.mean()) ** 2).sum())
    free = len(values) - len(groups)
    if total <= 0 or free < 1:
        return None
    within = sum(float(((np.asarray(g) - np.mean(g)) ** 2).sum()) for g in groups)
    return 1 - (within / free) / (total / (len(values) - 1))


def rank_agreement(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float] | None:
    """Kendall's τ of two orders and its p-value; None for fewer than three values, or no order."""
    if len(ours) < 3:
        return None
    result = stats.kendalltau(ours, theirs)
    tau, p = float(result.statistic), float(result.pvalue)
    return None if math.isnan(tau) else (tau, p)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Spearman's ρ and its p-value by permutations: all of them for up to seven pairs, else 9,999.

    The usual p-value is for many pairs: of four in one order it says 0, where it is 1/12.
    """

    def rho(order: np.ndarray) -> float:
        return float(stats.spearmanr(order, y).statistic)

    found = stats.permutation_test(
        (x,), rho, permutation_type="pairings", n_resamples=9_999, rng=np.random.default_rng(0)
    )
    return float(found.statistic), float(found.pvalue)
