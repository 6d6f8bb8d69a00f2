"""A figure as plain data: panels of series, or maps of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from igo.analysis.style import DASHES, PALETTE, Colour
from igo.report.families import Family
from igo.report.results import Row

Numbers = Sequence[float | None]
MOST_BANDS = 4  # lines with a shaded interval in one panel; more shades would hide each other


@dataclass(frozen=True)
class Style:
    """How a setting looks in every panel of a figure."""

    colour: Colour
    dash: int = 0  # index of DASHES; 0 is a solid line


def look(index: int) -> Style:
    """The style of the n-th setting."""
    return Style(PALETTE[index % len(PALETTE)], index // len(PALETTE) % len(DASHES))


@dataclass(frozen=True)
class Axis:
    """The label and the scale of an axis."""

    label: str
    log: bool = False
    percent: bool = False  # values are shares of 1, shown as per cent


@dataclass(frozen=True)
class Series:
    """Points in order; ``x`` has values for each view, ``low`` to ``high`` is y's 95 % interval."""

    label: str
    style: Style
    x: dict[str, Numbers]
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()
    line: bool = True
    steps: bool = False  # the value is constant around each point
    markers: bool = False
    notes: Sequence[str] = ()  # a text for each point, shown when a reader points at it


def points(table: pl.DataFrame, metric: str, x: Mapping[str, str]) -> dict[str, Any]:
    """A series' numbers: ``metric`` with its interval, and the column ``x`` of each view."""
    return {
        "x": {view: table[column].to_list() for view, column in x.items()},
        "y": table[f"{metric}_mean"].to_list(),
        "low": table[f"{metric}_low"].to_list(),
        "high": table[f"{metric}_high"].to_list(),
    }


@dataclass(frozen=True)
class Strip:
    """A range of y that is shaded, such as an allowed band."""

    label: str
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """One pair of axes; ``x`` has an axis for each view."""

    x: dict[str, Axis]
    y: Axis
    series: Sequence[Series]
    strips: Sequence[Strip] = ()

    @property
    def banded(self) -> bool:
        """Whether intervals are shaded along the lines."""
        banded = [s for s in self.series if any(low is not None for low in s.low)]
        return len(banded) <= MOST_BANDS


@dataclass(frozen=True)
class Map:
    """A value for each pair of a row and a column; None where there is no run.

    ``spread`` is the usual width of a value's interval. The colours span at least this width, so
    that noise does not look like contrast.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    row_label: str
    column_label: str
    values: Sequence[Numbers]
    texts: Sequence[Sequence[str]]
    small_is_good: bool = False
    spread: float = 0.0

    @property
    def better(self) -> str:
        """Which values are better: ``smaller`` or ``larger``."""
        return "smaller" if self.small_is_good else "larger"

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest value."""
        values = [v for row in self.values for v in row if v is not None]
        return (min(values), max(values)) if values else (0.0, 1.0)

    def share(self, value: float) -> float:
        """The place of a value between the ends of the colours, 0 to 1."""
        low, high = self.range
        span = max(high - low, self.spread) or 1.0
        return 0.5 + (value - (low + high) / 2) / span


@dataclass(frozen=True)
class Figure:
    """A figure: its name for files, its texts, its data, and its panels or maps.

    Attributes:
        views: the names of the views in the panels' x; the first is shown first.
        table: the data, as the figure's CSV holds them.
        settings: the numbers of the settings in the figure.
        published: whether published curves are in the figure.
    """

    name: str
    title: str
    caption: str
    table: pl.DataFrame
    settings: Sequence[int]
    panels: Sequence[Panel] = ()
    views: Sequence[str] = ("",)
    maps: Sequence[Map] = ()
    published: bool = False


def styles(family: Family, rows: dict[int, Row]) -> dict[int, Style]:
    """A style for each setting; in a grid the colour shows p and the dash shows the split.

    A grid with more values than colours or dashes has the styles of any other family.
    """
    if family.kind == "grid":
        levels = sorted({row["p"] for row in rows.values()})
        splits = sorted({row["split"] for row in rows.values()}, reverse=True)
        if len(levels) <= len(PALETTE) and len(splits) <= len(DASHES):
            return {
                setting: Style(PALETTE[levels.index(row["p"])], splits.index(row["split"]))
                for setting, row in rows.items()
            }
    return {setting: look(i) for i, setting in enumerate(family.settings)}
