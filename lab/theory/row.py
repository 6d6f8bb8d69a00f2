"""A statement of the source as a test that reality can refuse.

A study measures frames (tables of numbers, one CSV each). A row reads them and returns checks:
numbers with the range that the statement asks for. The verdict follows from the checks alone, by
one rule for all rows, so no row can be written to agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from scipy import stats

Frames = Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Settings:
    """What a person can turn: output folder, seed, and the size of the comparison."""

    output: Path
    seed: int = 0
    starts: int = 20
    budget: int = 1000
    workers: int = 2


@dataclass(frozen=True)
class Check:
    """A number, its 95 % interval where it has one, and the range asked of it."""

    what: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    interval: tuple[float, float] | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the number lies in the range; None where its interval has an end of it inside."""
        least, most = self.interval or (self.value, self.value)
        if self.low <= least and most <= self.high:
            return True
        return False if most < self.low or least > self.high else None

    @property
    def number(self) -> str:
        """The number with its interval, as text."""
        text = _number(self.value)
        return (
            text if self.interval is None else f"{text} [{', '.join(map(_number, self.interval))}]"
        )

    @property
    def asked(self) -> str:
        """The range, as text."""
        if self.low == self.high:
            return f"= {_number(self.low)}"
        if math.isinf(self.high):
            return f"≥ {_number(self.low)}"
        if math.isinf(self.low):
            return f"≤ {_number(self.high)}"
        return f"{_number(self.low)} to {_number(self.high)}"


def _number(value: float) -> str:
    if float(value).is_integer() and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:.3g}"


@dataclass(frozen=True)
class Seen:
    """What a row found in the frames.

    `parts`: what the statement asks for, one check each. `controls`: the same check where the
    statement must fail, so each must fail too; where none is there, `no_control` says why.
    `note`: the mathematics behind the numbers, true whatever they are.
    """

    ran: str
    parts: Sequence[Check]
    controls: Sequence[Check] = ()
    note: str = ""
    no_control: str = ""

    @property
    def verdict(self) -> str:
        """agrees, in part, disagrees; undecided if a part is open or a control does not fail."""
        parts = {check.holds for check in self.parts}
        if any(control.holds is not False for control in self.controls):
            return "undecided"
        if {True, False} <= parts:
            return "in part"
        if None in parts or not parts:
            return "undecided"
        return "agrees" if parts == {True} else "disagrees"


VERDICTS = ("agrees", "in part", "disagrees", "undecided")


@dataclass(frozen=True)
class Row:
    """One statement: where it stands, what it says, its picture, and how the frames answer it."""

    source: str
    stated: str
    picture: str
    look: Callable[[Frames], Seen]


def statement(
    source: str, stated: str, picture: str = ""
) -> Callable[[Callable[[Frames], Seen]], Row]:
    """Make a row of the decorated function from frames to what is seen in them."""

    def make(look: Callable[[Frames], Seen]) -> Row:
        return Row(source, stated, picture, look)

    return make


@dataclass(frozen=True)
class Study:
    """Statements that share their measurements.

    `measure` makes the frames named in `frames`; `figures` maps a file name to what draws it from
    them (a Figure, or for .gif an animation); `rows` read them. `all_workers`: it uses every
    process by itself.
    """

    measure: Callable[[Settings], dict[str, pl.DataFrame]]
    frames: tuple[str, ...]
    figures: Mapping[str, Callable[[Frames], Any]]
    rows: tuple[Row, ...]
    all_workers: bool = False


def frame(records: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return records as a table, floats as the CSV will have them: six significant digits."""
    table = pl.DataFrame(records, infer_schema_length=None)
    floats = [name for name, kind in table.schema.items() if kind.is_float()]
    return table.with_columns(pl.col(floats).round_sig_figs(6))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for a success rate."""
    found = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def rate(what: str, successes: int, trials: int, low: float = 0.0, high: float = 1.0) -> Check:
    """Return the check of a success rate with Wilson's interval."""
    return Check(what, successes / trials, low, high, wilson(successes, trials))


def rate_gap(what: str, more: tuple[int, int], less: tuple[int, int], low: float = 0.0) -> Check:
    """Return the check of rate(more) − rate(less) > low; each is (successes, trials).

    The interval is Newcombe's hybrid score interval (1998), from the two Wilson intervals.
    """
    (a, b), (lower_a, upper_a), (lower_b, upper_b) = (
        (more[0] / more[1], less[0] / less[1]),
        wilson(*more),
        wilson(*less),
    )
    down = math.hypot(a - lower_a, upper_b - b)
    up = math.hypot(upper_a - a, b - lower_b)
    return Check(what, a - b, low, interval=(a - b - down, a - b + up))


def mean(
    what: str, values: Sequence[float] | pl.Series, low: float = -math.inf, high: float = math.inf
) -> Check:
    """Return the check of a mean with Student's t interval over the values."""
    sample = [float(v) for v in values]
    centre = sum(sample) / len(sample)
    error = float(stats.sem(sample))
    reach = float(stats.t.ppf(0.975, len(sample) - 1)) * error
    return Check(what, centre, low, high, (centre - reach, centre + reach))
