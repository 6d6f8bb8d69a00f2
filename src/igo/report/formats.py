"""Numbers and words as the table, the report and the studies write them.

The report's templates have each function as a filter.
"""

import math
import re
from collections.abc import Collection

from igo.report.comparison import Pair


def number(value: float | None) -> str:
    """``0.4243``, four digits, or ``15,650``, whole; ``never`` for ∞, and ``–`` for None."""
    if value is None:
        return "–"
    if value == math.inf:
        return "never"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def fixed(value: float | None, form: str, factor: float = 1) -> str:
    """A number times the factor in a form such as ``.2f``; ``–`` for None."""
    return "–" if value is None else f"{value * factor:{form}}"


def signed(value: float, form: str = ".2f") -> str:
    """The number with its sign; a minus is ``−``."""
    return f"{value:+{form}}".replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    """``[37.23, 38.60]``, an interval of shares in per cent; "" without one."""
    return "" if low is None or high is None else f"[{100 * low:.2f}, {100 * high:.2f}]"


def difference(pair: Pair, form: str = ".2f", factor: float = 100) -> str:
    """The mean difference of a pair and its interval, if any: ``+0.44 [−0.01, +0.90]``.

    It is ``–`` for a pair without a common seed. The default ``factor`` turns a difference of
    accuracies, which are shares, into points.
    """
    if pair.difference is None:
        return "–"
    mean = signed(factor * pair.difference, form)
    if pair.interval is None:
        return mean
    low, high = (signed(factor * end, form) for end in pair.interval)
    return f"{mean} [{low}, {high}]"


def p_value(p: float | None) -> str:
    """A p in two digits, and never 0; ``–`` for None."""
    if p is None:
        return "–"
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def tied(text: str) -> str:
    """A text in which ``p = 0.5``, ``η₁ 0.1`` and ``91 %`` do not break into two lines."""
    return re.sub(r" (?=[=%≤>×])|(?<=[=≤>×₁βM]) ", "\u00a0", text)


def in_range(counts: Collection[int]) -> str:
    """``5``, or ``3 to 5`` where the counts differ."""
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"
