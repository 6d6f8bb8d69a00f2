"""Colours, panels, lines and axes of the report's figures, drawn once by matplotlib.

The page has a figure as SVG, and the files have it as PNG, PDF and SVG.
"""

import io
import math
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import polars as pl
import polars.selectors as cs
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    SymmetricalLogLocator,
)
from polars import DataFrame

from igo.ground.statistics import Array
from igo.report.output import csv_of

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#B8608F"
AMBER = "#C98A00"
SKY = "#3C9BCB"
INK = "#333333"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, AMBER, SKY, INK)
DASHES: Any = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
TEXT, SOFT = "#1c1f24", "#5b626b"
GRID = "#e6e6e0"

# Every figure here and in lab has these settings of matplotlib.
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "pdf.fonttype": 42,  # The text of a PDF stays searchable, as publishers ask.
    "axes.edgecolor": "#666666",
    "text.color": "#222222",
    "axes.labelcolor": "#222222",
}
# The report's figures have these settings besides.
LOOK: Any = {
    **STYLE,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "grid.color": GRID,
    "grid.alpha": 1,
    "axes.axisbelow": True,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "svg.fonttype": "none",
    "text.parse_math": False,  # A $ in the name of a file begins no formula.
}

WIDTH, HEIGHT = 4.0, 2.5  # Inches of a panel with its title, axes and labels.
ROOM = 0.75  # Inches of the height that title and axes take.
TEXT_LINE = 0.14  # Inches of a line of text.
LONGEST = 22  # Characters in a line of text of a label.
MOST_BANDS = 4  # More shaded intervals in one panel would hide each other.
ACCURACY = "test/accuracy"  # This metric is shown in per cent.
LOG_FROM = 3  # An axis is logarithmic from this ratio of the largest to the smallest mean.
Looks = dict[str, dict[str, Any]]  # The colour and the dashes of each label.


@dataclass(frozen=True)
class Figure:
    """A figure, its texts, and its data as its CSV holds them."""

    name: str
    title: str
    caption: str
    table: DataFrame
    drawing: Drawing

    def files(self) -> dict[str, bytes]:
        """The content of each file by suffix: the same bytes for the same data."""
        # No version and no date is written: the same data give the same bytes.
        undated: dict[str, Any] = {
            "png": {"Software": None},
            "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
            "svg": {"Creator": None, "Date": None},
        }
        files = {kind: self._saved(kind, dpi=150, metadata=undated[kind]) for kind in undated}
        return {"csv": csv_of(self.table), **files}

    def panels(self) -> list[str]:
        """Each panel as an element of the page."""
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        self.drawing.draw_without_rendering()
        self.drawing.set_layout_engine("none")  # A hidden panel keeps its room.
        elements = []
        for panel in self.drawing.axes:
            for any_panel in self.drawing.axes:
                any_panel.set_visible(any_panel is panel)
            extent = self.drawing.get_tightbbox().padded(0.04)
            text = self._saved("svg", transparent=True, metadata=no_metadata, bbox_inches=extent)
            elements.append(text[text.index(b"<svg") :].decode())
        return elements

    def _saved(self, kind: str, **options: Any) -> bytes:
        """The drawing as a file of a kind, with matplotlib's ``options`` for this kind."""
        file = io.BytesIO()
        # Ids in an SVG are random without a salt, and two figures of the page must not share ids.
        with mpl.rc_context({**LOOK, "svg.hashsalt": self.name}):
            self.drawing.savefig(file, format=kind, **options)
        return file.getvalue()


def panels(count: int, labels: Collection[str]) -> tuple[Drawing, list[Axes]]:
    """The empty panels of a figure, row by row, with room for labels beside their lines."""
    rows, columns = math.ceil(count / 2), min(count, 2)
    inches = WIDTH * columns, _height(labels) * rows
    drawing = Drawing(figsize=inches, layout="constrained")
    axes = list(drawing.subplots(rows, columns, squeeze=False).ravel())
    for unused in axes[count:]:
        unused.remove()
    return drawing, axes[:count]


def curves(
    ax: Axes, table: DataFrame, x: str, metric: str, looks: Looks, *, steps: bool = False
) -> None:
    """A line for each label, from one value to the next, with its 95 % intervals.

    Where there are more than MOST_BANDS lines, each has its last interval alone.
    """
    # A planned value belongs to its whole epoch, so the line changes between two epochs.
    step: Any = "mid" if steps else None
    drawstyle = "steps-mid" if steps else None
    table = _in_per_cent(table)
    lines = _lines(table, x, metric)
    for label, xs, ys, low, high in lines:
        ax.plot(xs, ys, label=label, drawstyle=drawstyle, **looks[label])
        colour = looks[label]["color"]
        if len(lines) <= MOST_BANDS:
            ax.fill_between(xs, low, high, color=colour, alpha=0.14, lw=0, step=step)
        else:
            reach = [(ys - low)[-1:], (high - ys)[-1:]]
            ax.errorbar(xs[-1:], ys[-1:], yerr=reach, ls="none", capsize=2, lw=1, color=colour)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    if lines:
        _limit(ax, table, metric)
        label_ends(ax, {line.label: line.end for line in lines}, looks)


def points(
    ax: Axes, table: DataFrame, x: str, metric: str, looks: Looks, *, log: bool = False
) -> None:
    """A point for each row with its 95 % interval, and a line through the points of a label.

    A logarithmic axis of x has a place for 0, too, if 0 is a value of x.
    """
    table = _in_per_cent(table)
    lines = _lines(table, x, metric)
    if log:
        values = table[x].drop_nulls().to_numpy()
        positive_values = values[values > 0]
        if len(positive_values) == len(values):
            ax.set_xscale("log")
        else:
            # From 0 to the decade of the smallest positive value, 1 at most, the axis is linear.
            decade = math.floor(math.log10(positive_values.min(initial=1)))
            ax.set_xscale("symlog", linthresh=10.0**decade)
    for label, xs, ys, low, high in lines:
        look = looks[label] | {"marker": "o", "ms": 4, "capsize": 2, "elinewidth": 1}
        ax.errorbar(xs, ys, yerr=[ys - low, high - ys], label=label, **look)
    if log:
        plain_log(ax.xaxis)
    label_ends(ax, {line.label: line.end for line in lines}, looks)


class _Line(NamedTuple):
    """What is drawn for a label. An end of an interval that is not known is NaN."""

    label: str
    xs: Array
    ys: Array
    low: Array
    high: Array

    @property
    def end(self) -> tuple[float, float]:
        """The last point of the line."""
        return self.xs[-1], self.ys[-1]


def _in_per_cent(table: DataFrame) -> DataFrame:
    """The table with the statistics of ACCURACY in per cent."""
    return table.with_columns(cs.starts_with(f"{ACCURACY}_") * 100)


def _lines(table: DataFrame, x: str, metric: str) -> list[_Line]:
    """The line of each label, through the rows in which x and the mean are known."""
    points = table.drop_nulls([x, f"{metric}_mean"])
    columns = (x, f"{metric}_mean", f"{metric}_low", f"{metric}_high")
    return [
        _Line(rows["label"][0], *rows.select(columns).to_numpy().T)
        for rows in points.partition_by("label", maintain_order=True)
    ]


def _limit(ax: Axes, table: DataFrame, metric: str) -> None:
    """Set the range of y by the means and, on a linear axis, by the last intervals, too.

    On a logarithmic axis an interval may leave the range: its lower end can be near 0. The first
    tenth of the epochs is left out for accuracies, so that the last accuracies are seen apart. Any
    other linear axis begins at 0.
    """
    is_accuracy = metric == ACCURACY
    if is_accuracy:
        # A curve that begins at 1 % would press all ends into one line.
        table = table.filter(pl.col("epoch") > pl.col("epoch").max() // 10)
    means = table[f"{metric}_mean"].drop_nulls()
    low, high = min(means), max(means)
    # η falls to 0 in many schedules, and a logarithmic axis shows no 0.
    can_be_log = not is_accuracy and metric != "eta_m" and low > 0
    if can_be_log and high / low >= LOG_FROM:
        # The room is 8 % of the axis: on a logarithmic one, this power of the ratio of its ends.
        factor = (high / low) ** 0.08
        ax.set_yscale("log")
        ax.set_ylim(low / factor, high * factor)
        plain_log(ax.yaxis)
        return
    last_rows = table.group_by("label").last()
    low = min([low, *last_rows[f"{metric}_low"].drop_nulls()])
    high = max([high, *last_rows[f"{metric}_high"].drop_nulls()])
    # Where all values are the same, the room is a share of this value.
    span = (high - low) or abs(high) or 1
    room = 0.1 * span
    if is_accuracy:
        # No accuracy is above 100 %, and a line at 100 % is seen whole.
        ax.set_ylim(low - room, min(high + room, 100 + room / 4))
    else:
        ax.set_ylim(min(low, 0), high + room)


def plain_log(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers, at 1, 2 and 5 where it is short."""
    low, high = sorted(axis.get_view_interval())
    # Over many decades the numbers at 2 and 5 would touch.
    steps = (1, 2, 5) if high / max(low, 1e-300) < 200 else (1,)
    if axis.get_scale() == "symlog":
        axis.set_major_locator(SymmetricalLogLocator(axis.get_transform()))
    else:
        axis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def label_ends(ax: Axes, ends: Mapping[str, tuple[float, float]], looks: Looks) -> None:
    """Write each label beside the end of its line, in its colour, no two on one another.

    ``ends`` has the last point of each line of this panel, and ``looks`` each label of the figure.
    """
    ax.autoscale_view()
    to_panel = ax.transScale + ax.transLimits  # Points become shares of the panel.
    points = {label: tuple(to_panel.transform(end)) for label, end in ends.items()}
    from_below = sorted(points, key=lambda label: (points[label][1], points[label][0], label))
    # The stack has the heights of labels that stand on one another, from 0 up.
    label_height = _text_lines(looks) * TEXT_LINE / (_height(looks) - ROOM)
    stack = np.arange(len(ends)) * label_height
    end_heights = np.array([points[label][1] for label in from_below])
    # A label that would touch the label below goes up.
    heights = np.maximum.accumulate(end_heights - stack) + stack
    # At the panel's top each label leaves room for the labels above it.
    heights = np.minimum(heights, 1 - stack[::-1])
    for label, height in zip(from_below, heights, strict=True):
        colour = looks[label]["color"]
        ax.annotate(
            textwrap.fill(label, LONGEST),
            points[label],
            (1.04, height),
            xycoords="axes fraction",
            color=colour,
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "ls": ":", "color": colour, "relpos": (0, 0.5)},
        )


def _height(labels: Collection[str]) -> float:
    """Inches of a panel whose labels have room."""
    return max(HEIGHT, ROOM + TEXT_LINE * _text_lines(labels) * (len(labels) + 1))


def _text_lines(labels: Collection[str]) -> int:
    """How many lines of text the longest label has."""
    return max((len(textwrap.wrap(label, LONGEST)) for label in labels), default=0)
