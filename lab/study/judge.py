"""The protocol's tests: from values by seed to a statistic, its interval, its power and a verdict.

Differences are in points of test accuracy. ``paired`` and ``order`` return plain numbers.
``adjusted`` adjusts the p-values of a question together. ``verdict`` needs the adjusted numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from igo.report import comparison, statistics
from igo.report.statistics import LEVEL, Array

Numbers = dict[str, Any]  # by name, as in results/rows.yaml
MARGIN = 0.5  # points of test accuracy
DRAWS = 2_000


def interval(numbers: Numbers) -> list[float]:
    """The statistic and the ends of its interval."""
    return [numbers[name] for name in ("statistic", "low", "high")]


def paired(first: Array, second: Array) -> Numbers:
    """Two arms seed by seed: their means, the difference, its interval, spread and p-values."""
    found = comparison.pair(np.asarray(first) - np.asarray(second), MARGIN)
    return {
        "n": found.n, "first": float(np.mean(first)), "second": float(np.mean(second)),
        "statistic": found.difference, "low": found.low, "high": found.high, "sd": found.sd,
        "p": found.p, "p_equal": found.p_equal,
    }  # fmt: skip


def order(arms: Array, published: Sequence[float], seed: int = 0) -> Numbers:
    """Kendall's τ between the means of arms (arms, seeds) and published values.

    The p-value is two-sided, over all orders. The interval is a bootstrap over seeds.
    """
    tau = stats.kendalltau(arms.mean(axis=1), published, method="exact")
    resampled_taus = stats.bootstrap(
        tuple(arms), lambda *drawn: stats.kendalltau(np.mean(drawn, axis=1), published).statistic,
        n_resamples=DRAWS, paired=True, vectorized=False, method="percentile",
        rng=np.random.default_rng(seed),
    ).bootstrap_distribution  # fmt: skip
    low, high = np.nanquantile(resampled_taus, [0.025, 0.975])
    return {
        "n": arms.shape[1], "statistic": float(tau.statistic), "low": float(low),
        "high": float(high), "p": float(tau.pvalue),
    }  # fmt: skip


def adjusted(family: Sequence[Numbers]) -> None:
    """Add to the numbers of one question: Holm's adjusted p-values, and what n seeds can detect."""
    for name in ("p", "p_equal"):
        for numbers, p in zip(
            family, statistics.holm([numbers.get(name) for numbers in family]), strict=True
        ):
            if name in numbers:
                numbers[f"{name}_adjusted"] = p
    tests = max(1, sum(numbers.get("p") is not None for numbers in family))
    for numbers in family:
        if "sd" in numbers:
            numbers["detectable"] = statistics.detectable(
                numbers["sd"], numbers["n"], LEVEL / tests
            )
            equal = statistics.seeds_to_equate(MARGIN, numbers["sd"], LEVEL / tests)
            numbers["seeds_to_equate"] = equal


def verdict(test: str, numbers: Numbers) -> str:
    """Confirmed, refuted or undecided, by the protocol.

    Args:
        test: above, equal or order.
        numbers: adjusted numbers.
    """
    sure, equal = (
        numbers.get(name) is not None and numbers[name] <= LEVEL
        for name in ("p_adjusted", "p_equal_adjusted")
    )
    up, down = sure and numbers["statistic"] > 0, sure and numbers["statistic"] < 0
    confirmed, refuted = {
        "above": (up, down or equal),
        "equal": (equal, up or down),
        "order": (up, numbers["high"] < 0),
    }[test]
    return "confirmed" if confirmed else "refuted" if refuted else "undecided"
