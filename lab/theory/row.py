"""A statement of the source as a test that can fail.

A study measures frames (tables of numbers, one CSV each). A row is a function that reads them and
returns checks: numbers with the range that the statement needs. The verdict follows from the checks
alone, by the same rule for all rows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from scipy import stats

Frames = Mapping[str, pl.DataFrame]
Records = Sequence[Mapping[str, Any]]  # the lines of a frame
Tables = Sequence[Records]


@dataclass(frozen=True)
class Check:
    """A number, its 95 % interval if it has one, and the range that it must lie in."""

    quantity: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    interval: tuple[float, float] | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the number lies in the range; None if an end of the range is in its interval."""
        lowest, highest = self.interval or (self.value, self.value)
        if self.low <= lowest and highest <= self.high:
            return True
        return False if highest < self.low or lowest > self.high else None

    @property
    def number(self) -> str:
        """The number with its interval, as text."""
        value = _number(self.value)
        if self.interval is None:
            return value
        return f"{value} [{', '.join(map(_number, self.interval))}]"

    @property
    def asked(self) -> str:
        """The range, as text."""
        if math.isinf(self.high):
            return f"≥ {_number(self.low)}"
        if math.isinf(self.low):
            return f"≤ {_number(self.high)}"
        return f"{_number(self.low)} to {_number(self.high)}"


def _number(value: float) -> str:
    """Whole numbers in full, unless they have many digits; others with three digits."""
    if float(value).is_integer() and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:.3g}"


def checks(
    table: pl.DataFrame,
    quantity: str,
    column: str,
    low: float = -math.inf,
    high: float = math.inf,
    error: str = "",
) -> list[Check]:
    """Return a check of each line's number in a column.

    The quantity is a format string, which may have any columns in braces. `error` is a column of
    standard errors, from which the interval comes; "" for none.
    """
    found = []
    for line in table.iter_rows(named=True):
        value, interval = line[column], None
        if error:
            reach = 1.96 * line[error]
            interval = (value - reach, value + reach)
        found.append(Check(quantity.format(**line), value, low, high, interval))
    return found


def no_lines(quantity: str, table: pl.DataFrame) -> Check:
    """Return the check that a table is empty: that no case breaks a statement."""
    return Check(quantity, len(table), high=0)


@dataclass(frozen=True)
class Seen:
    """The result of a row.

    `parts` are the checks of the statement. `controls` are the same checks in cases where the
    statement is false: each of them must fail. `note` is the mathematics behind the numbers.
    """

    ran: str
    parts: Sequence[Check]
    controls: Sequence[Check] = ()
    note: str = ""

    @property
    def verdict(self) -> str:
        """agrees, in part or disagrees; undecided if a part is open or a control does not fail."""
        parts = {check.holds for check in self.parts}
        if any(control.holds is not False for control in self.controls):
            return "undecided"
        if {True, False} <= parts:
            return "in part"
        if None in parts or not parts:
            return "undecided"
        return "agrees" if parts == {True} else "disagrees"

    @property
    def deciding(self) -> Check:
        """The first number that decides: one that fails, else one that is open, else any."""
        by_result = {False: 0, None: 1, True: 2}
        return min(self.parts, key=lambda check: by_result[check.holds])


VERDICTS = ("disagrees", "in part", "undecided", "agrees")  # in the order of the page

Look = Callable[[Frames], Seen]


class Study:
    """Statements that share their measurements.

    The module's `measure` takes the seed and returns the records of each of the `frames`. `rows`
    are pairs: where the slides have a statement, and the function that checks it in the frames; its
    docstring is the statement.
    """

    def __init__(self, *frames: str) -> None:
        self.frames = frames
        self.rows: list[tuple[str, Look]] = []

    def statement(self, source: str) -> Callable[[Look], Look]:
        """Make a row of the decorated function."""

        def add(function: Look) -> Look:
            self.rows.append((source, function))
            return function

        return add


def frame(records: Records) -> pl.DataFrame:
    """Return records as a table; floats have six significant digits, as in the CSV."""
    table = pl.DataFrame(records, infer_schema_length=None)
    floats = [name for name, kind in table.schema.items() if kind.is_float()]
    return table.with_columns(pl.col(floats).round_sig_figs(6))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for a success rate."""
    interval = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def rate(quantity: str, successes: int, trials: int, low: float) -> Check:
    """Return the check that a success rate, with Wilson's interval, is at least `low`."""
    return Check(quantity, successes / trials, low, 1.0, wilson(successes, trials))


def rate_gap(
    quantity: str, wins: tuple[int, int], rival_wins: tuple[int, int], low: float = 0.0
) -> Check:
    """Return the check that a success rate less its rival's is at least `low`.

    `wins` and `rival_wins` are (successes, trials). The interval is Newcombe's hybrid score
    interval (1998), from the two Wilson intervals.
    """
    a, b = wins[0] / wins[1], rival_wins[0] / rival_wins[1]
    (lower_a, upper_a), (lower_b, upper_b) = wilson(*wins), wilson(*rival_wins)
    down = math.hypot(a - lower_a, upper_b - b)
    up = math.hypot(upper_a - a, b - lower_b)
    return Check(quantity, a - b, low, interval=(a - b - down, a - b + up))
