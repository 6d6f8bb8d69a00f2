"""Settings compared: their results seed by seed, and the ratios of their other totals.

A setting is given by its number, which is in the column ``setting`` of the tables of ``results``.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from polars import DataFrame, col

from igo.ground import statistics
from igo.ground.files import Record
from igo.ground.statistics import LEAST_SEEDS, LEVEL, NO_SPREAD, Array
from igo.report.settings import TOTALS

SAME = 1e-6  # Totals that differ by a smaller share are called equal.
# η or b of two settings that differ by a smaller share differ by rounding. An epoch has a whole
# number of batches, so b is rounded by up to some per cent, and η makes up for it.
LEAST = 0.05


@dataclass(frozen=True)
class Pair:
    """Two settings compared over the n seeds that both have.

    Attributes:
        n: number of common seeds.
        difference: mean of ``first`` − ``second``; None without a common seed.
        interval: (low, high), the 95 % interval of ``difference`` (Student); None for n < 2, and
            where all differences are the same.
        sd: standard deviation of the n differences; None for n < 2.
        p: of the exact sign-flip test, two-sided; None for n < 2, or where all differences are 0.
        p_equal: p of the hypothesis that the difference is not within ±margin (TOST); None for
            n < LEAST_SEEDS or without a margin.
        first: the number of the setting from whose values the values of ``second`` are subtracted.
        second: the number of the other setting.
        p_holm: p adjusted for all pairs of the comparison that have a p (Holm 1979).
        p_equal_holm: p_equal, adjusted in the same way.
        detectable: the smallest true difference that n seeds detect with 80 % power, at the level
            5 %/(number of pairs that have a p); None if n is too small for any verdict, or if all
            differences are the same.
    """

    n: int
    difference: float | None = None
    interval: tuple[float, float] | None = None
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
        """Whether ``first`` is ``higher``, ``lower`` or ``equal``; ``undecided`` by these seeds."""
        # A difference that is found is told, even one within the margin.
        if self.p_holm is not None and self.p_holm <= LEVEL:
            return "higher" if (self.difference or 0) > 0 else "lower"
        is_within = self.p_equal_holm is not None and self.p_equal_holm <= LEVEL
        # Differences that are all 0 have no p, and need no margin to be equal.
        is_same = self.difference == self.sd == 0
        return "equal" if is_within or is_same else "undecided"


def paired_test(differences: Array, margin: float | None) -> Pair:
    """The pair of two settings whose results have these differences, one for each common seed.

    What depends on other pairs, as an adjusted p does, is still None: ``adjusted`` adds it. The
    numbers of the two settings are still 0: ``compare`` sets them.
    ``margin`` is of the test of equality, in the unit of the differences; None for no such test.
    """
    n = len(differences)
    if n < 2:
        return Pair(n, difference=float(differences[0]) if n else None)
    # The sign-flip test counts signs, and the rounding of a difference of 0 has a sign.
    differences = np.where(np.abs(differences) < NO_SPREAD, 0.0, differences)
    mean = statistics.mean_of(differences)
    # Differences that are alike but for rounding have a deviation of 0.
    has_spread = float(np.ptp(differences)) >= NO_SPREAD
    p_equal = None
    # With fewer seeds the t test of equality could decide, and the sign-flip test could not. So
    # settings could be found equal, but never found different.
    if margin and n >= LEAST_SEEDS:
        p_equal = statistics.equivalence(differences, margin)
    return Pair(
        n,
        difference=mean.value,
        interval=(mean.low, mean.high) if has_spread else None,
        sd=float(differences.std(ddof=1)) if has_spread else 0.0,
        p=statistics.sign_flip(differences),
        p_equal=p_equal,
    )


def adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with Holm's p-values over all pairs, and the difference that each can detect."""
    p_holm = statistics.holm([pair.p for pair in pairs])
    p_equal_holm = statistics.holm([pair.p_equal for pair in pairs])
    # Holm multiplies the smallest p by the number of tests, and LEVEL is for the product. Without
    # any test the level is not used.
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
    runs: DataFrame,
    settings: Sequence[int],
    metric: str,
    margin: float | None = None,
    *,
    ranks: bool = False,
) -> list[Pair]:
    """Every pair of settings by a metric, which is a column of ``runs``.

    A pair is compared over the seeds of which both settings have a counted run. ``margin`` of
    the test of equality is in the unit of the metric; None for no such test. With ``ranks`` each
    difference is replaced by its sign, 1, 0 or −1: the test of a pair is then the sign test.
    """
    rows = runs.filter("counted", col(metric).is_not_null()).sort("seed")
    pairs = []
    for first, second in itertools.combinations(settings, 2):
        # Runs of one seed have the same initialisation and order of the samples.
        common_seeds = rows.filter(setting=first).join(rows.filter(setting=second), on="seed")
        # ``join`` adds _right to the names of the second setting's columns.
        minuends, subtrahends = common_seeds.select(metric, f"{metric}_right").to_numpy().T
        if ranks:
            # Updates to a target that is never reached are infinite, and ∞ − ∞ has no sign.
            differences = 1.0 * (minuends > subtrahends) - (minuends < subtrahends)
        else:
            differences = minuends - subtrahends
        pairs.append(replace(paired_test(differences, margin), first=first, second=second))
    return adjusted(pairs)


def ratio(name: str, first: Record, second: Record) -> float | None:
    """The mean of a total in one row of settings over the mean in another.

    Exactly 1 for totals that are called equal; None if a mean is 0, or null as it is not known.
    """
    dividend, divisor = first[f"{name}_mean"], second[f"{name}_mean"]
    if not dividend or not divisor:
        return None
    is_equal = math.isclose(dividend, divisor, rel_tol=SAME)
    return 1.0 if is_equal else float(dividend / divisor)


def ratios(first: Record, second: Record) -> str:
    """The TOTALS of a row of settings over those of another: ``updates ×0.5; equal: images``."""
    different, equal = [], []
    for name, words in TOTALS.items():
        quotient = ratio(name, first, second)
        if quotient == 1:
            equal.append(words)
        elif quotient is not None:
            different.append(f"{words} ×{quotient:.3g}")
    phrases = [", ".join(different), f"equal: {', '.join(equal)}" if equal else ""]
    return "; ".join(filter(None, phrases))


def differ_in_both(curves: DataFrame, first: int, second: int) -> bool:
    """Whether two settings differ in η and in b, and b of one changes from epoch to epoch.

    Then nothing tells whether η or b made a difference. ``curves`` has the means of η and b over
    the updates of each epoch. For runs of one epoch the answer is always no, as these means cannot
    be compared. Where b grows inside the epoch, most of its updates are early. So the mean of η
    differs even from that of a control which has the same η at each image.
    """
    # ``join`` adds _right to the names of the second setting's columns.
    epochs = curves.filter(setting=first).join(curves.filter(setting=second), on="epoch")
    names = ("b_m_mean", "b_m_mean_right", "eta_m_mean", "eta_m_mean_right")
    b, other_b, eta, other_eta = epochs.select(names).to_numpy().T
    # The difference may be LEAST of the second argument, in every epoch.
    are_close = partial(np.allclose, rtol=LEAST, atol=0)
    b_stays = are_close(b, b[:1]) and are_close(other_b, other_b[:1])
    return not (b_stays or are_close(b, other_b) or are_close(eta, other_eta))
