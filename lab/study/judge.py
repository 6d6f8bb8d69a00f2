"""The protocol's tests: from values by seed to a statistic, its interval, its power and a verdict.

Differences are in points of test accuracy. Each function returns plain numbers; the p-values of a
question are adjusted together, by ``adjusted``, and only then is there a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from igo.analysis import statistics
from igo.analysis.statistics import LEAST_PAIRS, LEVEL, Array
from lab.study import noise_law

Found = dict[str, Any]
MARGIN = 0.5  # points of test accuracy
DRAWS = 2_000
LEAST_EXPLAINED = 0.8  # of one curve, for its exponent to be judged


def paired(first: Array, second: Array) -> Found:
    """Two arms seed by seed: their means, the difference, its interval, spread and p-values."""
    d = np.asarray(first) - np.asarray(second)
    mean = statistics.mean_of(d)
    enough = len(d) >= LEAST_PAIRS  # fewer may agree by chance, as accuracies come in steps
    one_sided = float(stats.t.ppf(1 - LEVEL, len(d) - 1)) * float(stats.sem(d))
    return {
        "n": len(d), "first": float(np.mean(first)), "second": float(np.mean(second)),
        "statistic": mean.value, "low": mean.low, "high": mean.high, "sd": float(d.std(ddof=1)),
        "p": statistics.sign_flip(d),
        "p_equal": statistics.equivalence(d, MARGIN) if enough else None,
        "least": mean.value - one_sided if enough else -math.inf,
    }  # fmt: skip


def order(arms: Array, published: Sequence[float], seed: int = 0) -> Found:
    """Kendall's τ between the means of arms (arms, seeds) and published values.

    The p-value is of all orders, two-sided; the interval a bootstrap over seeds.
    """
    tau = stats.kendalltau(arms.mean(axis=1), published, method="exact")
    drawn = stats.bootstrap(
        tuple(arms), lambda *own: stats.kendalltau(np.mean(own, axis=1), published).statistic,
        n_resamples=DRAWS, paired=True, vectorized=False, method="percentile",
        rng=np.random.default_rng(seed),
    ).bootstrap_distribution  # fmt: skip
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return {
        "n": arms.shape[1], "statistic": float(tau.statistic), "low": float(low),
        "high": float(high), "p": float(tau.pvalue),
    }  # fmt: skip


def law(eta: Sequence[float], b: Sequence[float], losses: Array) -> Found:
    """ρ̂ of losses (settings, seeds), see ``noise_law``."""
    found = noise_law.fit(eta, b, np.log(losses))
    rho = found.exponent
    return {
        "n": losses.shape[1], "statistic": rho.value, "low": rho.low, "high": rho.high,
        "explained": found.explained,
    }  # fmt: skip


def adjusted(found: Sequence[Found]) -> None:
    """Holm's adjustment, in place, of the p-values of one question; then what n can detect."""
    for name in ("p", "p_equal"):
        for one, p in zip(found, statistics.holm([f.get(name) for f in found]), strict=True):
            if name in one:
                one[f"{name}_adjusted"] = p
    tests = max(1, sum(one.get("p") is not None for one in found))
    for one in found:
        if "sd" in one:
            one["detectable"] = statistics.detectable(one["sd"], one["n"], LEVEL / tests)
            equal = statistics.seeds_to_equate(MARGIN, one["sd"], LEVEL / tests)
            one["seeds_to_equate"] = equal


def verdict(test: str, found: Found, rival: float | None = None, claim: float = 0.0) -> str:
    """Confirmed, refuted or undecided, by the protocol.

    Args:
        test: above, below, equal, not_lower, order or law.
        found: adjusted numbers.
        rival: the exponent that the claimed one is told from (law).
        claim: the claimed exponent (law).
    """
    if test == "law":
        return _of_law(found, claim, rival)
    sure, equal = (
        found.get(name) is not None and found[name] <= LEVEL
        for name in ("p_adjusted", "p_equal_adjusted")
    )
    up, down = sure and found["statistic"] > 0, sure and found["statistic"] < 0
    confirmed, refuted = {
        "above": (up, down or equal),
        "below": (down, up),
        "equal": (equal, up or down),
        "not_lower": (found.get("least", 0) > -MARGIN, down),
        "order": (up, found["high"] < 0),
    }[test]
    return "confirmed" if confirmed else "refuted" if refuted else "undecided"


def _of_law(found: Found, claim: float, rival: float | None) -> str:
    if found["explained"] < LEAST_EXPLAINED:
        return "undecided"
    if not found["low"] <= claim <= found["high"]:
        return "refuted"
    told_apart = rival is None or not found["low"] <= rival <= found["high"]
    return "confirmed" if told_apart else "undecided"
