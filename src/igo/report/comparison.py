"""Settings compared seed by seed: for the report, a sweep's end and lab/study."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from igo.ground import statistics
from igo.ground.statistics import LEAST_SEEDS, LEVEL, NO_SPREAD, Array


@dataclass(frozen=True)
class Pair:
    """Two settings compared over the n seeds that both have.

    Attributes:
        n: number of common seeds.
        difference: mean of ``first`` − ``second``; None without a common seed.
        low: lower end of the 95 % interval of ``difference`` (Student); None for n < 2.
        high: upper end of this interval.
        sd: standard deviation of the n differences; None for n < 2.
        p: of the exact sign-flip test, two-sided; None for n < 2, or where all differences are 0.
        p_equal: p of the hypothesis that the difference is not within ±margin (TOST); None for
            n < LEAST_SEEDS or without a margin.
        first: the number of the setting from whose values the values of ``second`` are subtracted.
        second: the number of the other setting.
        p_holm: p adjusted for all pairs of the comparison that have a p (Holm 1979).
        p_equal_holm: p_equal, adjusted in the same way.
        detectable: the smallest true difference that n seeds detect with 80 % power, at the level
            5 %/(number of pairs); None if n is too small for any verdict, or without spread.
    """

    n: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    p: float | None = None
    p_equal: float | None = None
    first: int = 0
    second: int = 0
    p_holm: float | None = None
    p_equal_holm: float | None = None
    detectable: float | None = None

    @property
    def verdict(self) -> str:
        """What the tests say of ``first``: ``higher``, ``lower``, ``equal`` or ``undecided``."""
        # A difference that is found is told, even one within the margin.
        if self.p_holm is not None and self.p_holm <= LEVEL:
            return "higher" if (self.difference or 0) > 0 else "lower"
        is_within = self.p_equal_holm is not None and self.p_equal_holm <= LEVEL
        # Differences that are all 0 have no p, and need no margin to be equal.
        is_same = self.difference == self.sd == 0
        return "equal" if is_within or is_same else "undecided"


def paired_test(differences: Array, margin: float | None) -> Pair:
    """The tests of one pair, by the difference of each seed. ``adjusted`` adds the other entries.

    ``margin`` of equivalence is in the unit of the differences; None for no such test.
    """
    n = len(differences)
    if n < 2:
        return Pair(n, float(differences[0]) if n else None)
    # 0.9 - 0.8 and 0.8 - 0.7 differ in the last bit, and the sign-flip test counts signs.
    differences = np.where(np.abs(differences) < NO_SPREAD, 0.0, differences)
    mean = statistics.mean_of(differences)
    has_spread = float(np.ptp(differences)) >= NO_SPREAD
    p_equal = None
    # With fewer seeds the t test of equality could decide, and the sign-flip test could not.
    if margin and n >= LEAST_SEEDS:
        p_equal = statistics.equivalence(differences, margin)
    return Pair(
        n,
        difference=mean.value,
        low=mean.low,
        high=mean.high,
        sd=float(differences.std(ddof=1)) if has_spread else 0.0,
        p=statistics.sign_flip(differences),
        p_equal=p_equal,
    )


def adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with Holm's p-values over all pairs, and the difference that each can detect."""
    p_holm = statistics.holm([pair.p for pair in pairs])
    p_equal_holm = statistics.holm([pair.p_equal for pair in pairs])
    # Holm multiplies the smallest p by the number of tests, so that p must reach this level.
    level = LEVEL / max(1, sum(pair.p is not None for pair in pairs))
    return [
        replace(
            pair,
            p_holm=p,
            p_equal_holm=p_equal,
            detectable=statistics.detectable(pair.sd, pair.n, level) if pair.sd else None,
        )
        for pair, p, p_equal in zip(pairs, p_holm, p_equal_holm, strict=True)
    ]


def compare(
    runs: pl.DataFrame,
    settings: Sequence[int],
    metric: str,
    margin: float | None = None,
    *,
    ranks: bool = False,
) -> list[Pair]:
    """Every pair of settings, over the common seeds of their counted runs.

    ``margin`` of equivalence is in the unit of the metric; None for no such test. With ``ranks``
    a difference is 1 where the first value is larger, −1 where the second is, else 0. This is the
    sign test.
    """
    rows = runs.filter("counted", pl.col(metric).is_not_null()).sort("seed")
    pairs = []
    for first, second in itertools.combinations(settings, 2):
        # Runs of one seed have the same initialisation and order of the samples.
        common_seeds = rows.filter(setting=first).join(rows.filter(setting=second), on="seed")
        minuends, subtrahends = common_seeds.select(metric, f"{metric}_right").to_numpy().T
        if ranks:  # Values may be infinite, as updates to a target that is never reached are.
            is_higher, is_lower = minuends > subtrahends, minuends < subtrahends
            differences = is_higher.astype(float) - is_lower
        else:
            differences = minuends - subtrahends
        pairs.append(replace(paired_test(differences, margin), first=first, second=second))
    return adjusted(pairs)
