"""How numbers and verdicts are said: accuracies, p-values, and what a comparison came to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

from igo.analysis.report.comparison import Pair
from igo.analysis.report.results import Row
from igo.analysis.statistics import LEVEL, least_p
from igo.words import counted

MINUS = "−"


def accuracy(row: Row) -> str:
    """``91.21 % [90.97, 91.45]``; without an interval where there is one seed."""
    mean, low, high = (row[f"test/accuracy_{what}"] for what in ("mean", "low", "high"))
    shown = f"{100 * mean:.2f} %"
    return shown if low is None else f"{shown} [{100 * low:.2f}, {100 * high:.2f}]"


def p_value(p: float | None) -> str:
    """Two digits, no false zero."""
    return "–" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def p_is(p: float | None) -> str:
    """``p = 0.031``."""
    return "not testable" if p is None else "p < 0.0001" if p < 1e-4 else f"p = {p_value(p)}"


def signed(value: float, form: str = ".2f") -> str:
    """With its sign, a true minus."""
    return f"{value:+{form}}".replace("-", MINUS)


def capital(text: str) -> str:
    """The first letter large, but of a symbol's."""
    return text if "=" in text else text[:1].upper() + text[1:]


def listed(names: Iterable[str]) -> str:
    """``a, b and c``."""
    *rest, last = names
    return f"{', '.join(rest)} and {last}" if rest else last


def least_seeds(tests: int) -> int:
    """Seeds from which the sign-flip test can decide at all, over so many tests."""
    return next(n for n in count(1) if least_p(n) <= LEVEL / tests or n > 64)


def verdict(pair: Pair, margin: float | None = None, minuend: int | None = None) -> str:
    """What a comparison came to, in words; ``margin`` in points of accuracy.

    ``higher`` is said of the first setting, or of ``minuend``.
    """
    if pair.n < 2:
        return f"{'one' if pair.n else 'no'} seed in common"
    if pair.identical:
        return "identical in every seed"
    within = "" if margin is None else f" within ±{margin:g} points"
    if pair.decided and pair.difference is not None:
        up = (pair.difference > 0) == (minuend in (None, pair.first))
        less = f", by less than {margin:g} points" if pair.equal and margin is not None else ""
        return ("higher" if up else "lower") + less
    if pair.equal:
        return f"equal{within}"
    if pair.detectable is None:
        return f"undecided: n = {pair.n} is too few for any verdict"
    return f"undecided with n = {pair.n}, detectable {100 * pair.detectable:.2f} points"


def gap(pair: Pair, minuend: int, margin: float | None = None) -> str:
    """A difference seen from one of its settings: points, interval, adjusted p, verdict."""
    if pair.difference is None:
        return verdict(pair)
    sign = 1 if pair.first == minuend else -1
    points = f"{signed(100 * sign * pair.difference)} points"
    if pair.low is not None and pair.high is not None:
        ends = sorted((100 * sign * pair.low, 100 * sign * pair.high))
        points += f" [{signed(ends[0])}, {signed(ends[1])}]"
    if pair.p is not None:
        points += f", adjusted {p_is(pair.p_holm)}, n = {pair.n}"
    return f"{points} ({verdict(pair, margin, minuend)})"


def tally(pairs: Sequence[Pair], margin: float | None = None) -> str:
    """How many differences a test decides, of how many, and why some have no test."""
    if not pairs:
        return ""
    tested = [pair for pair in pairs if pair.p is not None]
    apart = {
        "no seed in common": sum(pair.n == 0 for pair in pairs),
        "one seed in common": sum(pair.n == 1 for pair in pairs),
        "the same value in every seed": sum(pair.identical for pair in pairs),
    }
    why = "; ".join(
        f"{counted(number, 'pair')} {'has' if number == 1 else 'have'} {reason}"
        for reason, number in apart.items()
        if number
    )
    if not tested:
        return f"Nothing can be tested: {why}."
    alike = sum(pair.equal for pair in pairs)
    equal = f", {alike} {'is' if alike == 1 else 'are'} equal within ±{margin or 0:g} points"
    sentence = (
        f"Of {counted(len(pairs), 'difference')} in test accuracy {len(tested)} can be tested and"
        f" {sum(pair.decided for pair in tested)} are decided at 5 %"
        + (equal if margin is not None and alike else "")
        + " (exact sign-flip tests over common seeds, t tests for equality, Holm)"
        + (f"; {why}." if why else ".")
    )
    return f"{sentence} {reach(tested)}"


def reach(tested: Sequence[Pair]) -> str:
    """What the tests of some pairs can see at all."""
    low, high = min(pair.n for pair in tested), max(pair.n for pair in tested)
    seeds = f"{low} seeds" if low == high else f"{low} to {high} seeds"
    seen = sorted(100 * pair.detectable for pair in tested if pair.detectable is not None)
    over = f", adjusted for {counted(len(tested), 'pair')}" if len(tested) > 1 else ""
    if not seen:
        return (
            f"With {seeds} no verdict is possible{over}: the smallest p that there is,"
            f" {least_p(high):.2g}, is too large; {least_seeds(len(tested))} seeds is the least."
        )
    return (
        f"With {seeds} a true difference of {seen[len(seen) // 2]:.2f} points (median over pairs)"
        f" is found with a chance of 80 %{over}."
    )
