"""A figure as plain data, whatever draws it: panels of series, or a map of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from igo.analysis.report.families import Family
from igo.analysis.report.results import Row
from igo.analysis.style import DASHES, PALETTE, Colour

Numbers = Sequence[float | None]
MOST_BANDS = 4  # lines with a shaded interval in one panel: many shades make mud


@dataclass(frozen=True)
class Style:
    """How a setting looks in every panel of a figure."""

    colour: Colour
    dash: int = 0  # 0 is a whole line, higher ones are broken ever more


def look(index: int) -> Style:
    """The style of the n-th thing of a kind."""
    return Style(PALETTE[index % len(PALETTE)], index // len(PALETTE) % len(DASHES))


@dataclass(frozen=True)
class Axis:
    """Label and scale."""

    label: str
    log: bool = False
    percent: bool = False  # values are shares of 1, shown as per cent


@dataclass(frozen=True)
class Series:
    """Points in order; ``x`` by view. ``low`` and ``high`` are the 95 % interval of ``y``."""

    label: str
    style: Style
    x: dict[str, Numbers]
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()
    line: bool = True
    steps: bool = False  # holds its value from point to point
    markers: bool = False
    notes: Sequence[str] = ()  # of each point, what a reader asks who points at it


def points(table: pl.DataFrame, metric: str, x: Mapping[str, str]) -> dict[str, Any]:
    """A series' numbers: ``metric`` with its interval over the columns ``x``, by view."""
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
    """One pair of axes; ``x`` by view."""

    x: dict[str, Axis]
    y: Axis
    series: Sequence[Series]
    strips: Sequence[Strip] = ()

    @property
    def banded(self) -> bool:
        """Whether intervals are shaded along the lines."""
        return sum(any(one is not None for one in s.low) for s in self.series) <= MOST_BANDS


@dataclass(frozen=True)
class Map:
    """A value for each pair of a row and a column; None where there is no run.

    ``spread`` is the usual width of a value's interval: colours span no less, or they would show
    noise as contrast.
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
    def range(self) -> tuple[float, float]:
        """The least and the largest value."""
        values = [v for row in self.values for v in row if v is not None]
        return (min(values), max(values)) if values else (0.0, 1.0)

    def share(self, value: float) -> float:
        """Where a value lies between the ends of the colours, 0 to 1."""
        low, high = self.range
        span = max(high - low, self.spread) or 1.0
        return 0.5 + (value - (low + high) / 2) / span


@dataclass(frozen=True)
class Figure:
    """What a figure needs: its name for files, words, data, and panels or maps to draw.

    Attributes:
        views: names of the views that the panels' x has; the first is shown first.
        table: the data behind it, as its CSV holds it.
        settings: the numbers of the settings in it.
        published: whether published curves are in it.
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
    """A look for each setting; in a grid the colour tells p and the dash tells the split.

    That is as long as there are enough of both.
    """
    if family.kind == "grid":
        levels = sorted({row["p"] for row in rows.values()})
        splits = sorted({row["split"] for row in rows.values()}, reverse=True)
        if len(levels) <= len(PALETTE) and len(splits) <= len(DASHES):
            return {
                s: Style(PALETTE[levels.index(row["p"])], splits.index(row["split"]))
                for s, row in rows.items()
            }
    return {s: look(i) for i, s in enumerate(family.settings)}
