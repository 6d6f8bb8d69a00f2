"""How numbers are written in a report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from igo.analysis.report.comparison import Pair
from igo.analysis.report.results import Row
from igo.analysis.statistics import LEVEL, least_p

MINUS = "−"


def accuracy(row: Row) -> str:
    """``91.21 % [90.97, 91.45]``; without an interval where there is one seed."""
    mean, low, high = (row[f"test/accuracy_{what}"] for what in ("mean", "low", "high"))
    shown = f"{100 * mean:.2f} %"
    return shown if low is None else f"{shown} [{100 * low:.2f}, {100 * high:.2f}]"


def points(pair: Pair, sign: int = 1) -> str:
    """``+0.44 [−0.01, +0.90]``, in points of accuracy; ``sign`` −1 for second less first."""
    if pair.difference is None:
        return "–"
    shown = signed(100 * sign * pair.difference)
    if pair.low is None or pair.high is None:
        return shown
    ends = sorted((100 * sign * pair.low, 100 * sign * pair.high))
    return f"{shown} [{signed(ends[0])}, {signed(ends[1])}]"


def p_value(p: float | None) -> str:
    """Two digits, no false zero."""
    return "–" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def signed(value: float, form: str = ".2f") -> str:
    """With its sign, a true minus."""
    return f"{value:+{form}}".replace("-", MINUS)


def in_range(counts: Sequence[int]) -> str:
    """``5``, or ``3 to 5`` where they differ."""
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def least_seeds(tests: int) -> int:
    """Seeds from which the sign-flip test can decide at all, over so many tests."""
    return next(n for n in count(1) if least_p(n) <= LEVEL / tests or n > 64)
