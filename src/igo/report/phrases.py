"""Numbers as text in a report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from igo.analysis.statistics import LEVEL, least_p
from igo.report.comparison import Pair
from igo.report.results import Row

MINUS = "−"


def accuracy(row: Row) -> str:
    """``91.21 % [90.97, 91.45]``; one seed has no interval."""
    mean, low, high = (row[f"test/accuracy_{what}"] for what in ("mean", "low", "high"))
    shown = f"{100 * mean:.2f} %"
    return shown if low is None else f"{shown} [{100 * low:.2f}, {100 * high:.2f}]"


def points(pair: Pair) -> str:
    """``+0.44 [−0.01, +0.90]``, in points of accuracy."""
    if pair.difference is None:
        return "–"
    difference = signed(100 * pair.difference)
    if pair.low is None or pair.high is None:
        return difference
    return f"{difference} [{signed(100 * pair.low)}, {signed(100 * pair.high)}]"


def p_value(p: float | None) -> str:
    """Two digits; never 0."""
    return "–" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def signed(value: float, form: str = ".2f") -> str:
    """The number with its sign; a minus is ``−``."""
    return f"{value:+{form}}".replace("-", MINUS)


def in_range(counts: Sequence[int]) -> str:
    """``5``, or ``3 to 5`` where the counts differ."""
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def least_seeds(tests: int) -> int:
    """The fewest seeds with which the sign-flip test can decide one of so many tests."""
    return next(n for n in count(1) if least_p(n) <= LEVEL / tests or n > 64)
