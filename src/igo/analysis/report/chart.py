"""A figure as plain data, whatever draws it: panels of series, or a map of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from igo.analysis.report.families import Family
from igo.analysis.report.results import Row
from igo.analysis.style import DASHES, PALETTE, RAMP_DARK, RAMP_LIGHT, Colour

Numbers = Sequence[float | None]


@dataclass(frozen=True)
class Style:
    """How a setting looks in every panel of a figure."""

    colour: Colour
    dash: int = 0  # 0 is a whole line, higher ones are broken ever more


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
    title: str = ""


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
        """The values at the ends of the colours."""
        values = [v for row in self.values for v in row if v is not None]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        more = max(0.0, (self.spread or 1.0 * (high == low)) - (high - low)) / 2
        return low - more, high + more


@dataclass(frozen=True)
class Figure:
    """What a figure needs: its name for files, words, data, and panels or maps to draw.

    Attributes:
        views: names of the views that the panels' x has; the first is shown first.
        table: the data behind it, as its CSV holds it.
        settings: the numbers of the settings in it.
    """

    name: str
    title: str
    caption: str
    table: pl.DataFrame
    settings: Sequence[int]
    panels: Sequence[Panel] = ()
    views: Sequence[str] = ("",)
    maps: Sequence[Map] = field(default=())


def styles(family: Family, rows: dict[int, Row]) -> dict[int, Style]:
    """A look for each setting: p by a ramp from dark to light, the others by the palette.

    In a grid the colour tells p and the dash tells the split, as long as there are enough of both.
    """
    if family.kind == "grid":
        powers_of = sorted({rows[s]["p"] for s in family.settings})
        splits = sorted({rows[s]["split"] for s in family.settings}, reverse=True)
        if len(powers_of) <= len(PALETTE) and len(splits) <= len(DASHES):
            return {
                s: Style(PALETTE[powers_of.index(row["p"])], splits.index(row["split"]))
                for s, row in rows.items()
            }
    powers = [s for s in family.settings if _by_power(family, rows[s])]
    if len(powers) < 3 or len({rows[s]["p"] for s in powers}) < len(powers):
        powers = []
    others = [s for s in family.settings if s not in powers]
    found = {s: Style(_ramp(i, len(powers))) for i, s in enumerate(powers)}
    for i, setting in enumerate(others):
        palette = PALETTE[1:4:2] + PALETTE[2:3] + PALETTE[5:] if powers else PALETTE
        found[setting] = Style(palette[i % len(palette)], dash=i // len(palette) % len(DASHES))
    return found


def _by_power(family: Family, row: Row) -> bool:
    return family.kind == "schedules" and row["schedule.profile"] in ("graduated", "polynomial")


def _ramp(index: int, count: int) -> Colour:
    place = round(index * (len(RAMP_LIGHT) - 1) / max(count - 1, 1))
    return Colour(RAMP_LIGHT[place], RAMP_DARK[place])
