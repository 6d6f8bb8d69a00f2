"""Colours, panels, lines and axes of the report's figures, drawn once by matplotlib.

The page has a figure as SVG, and the files have it as PNG, PDF and SVG. A panel is drawn from a
table with a column ``label``: the rows of one label are a line. A metric is the columns of its mean
(``…_mean``) and of the ends of its 95 % interval (``…_low``, ``…_high``).
"""

import io
import math
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike
from polars import DataFrame
from polars.selectors import starts_with

from igo.ground.statistics import Array

# Okabe and Ito's palette, which colour-blind readers can tell apart. Here PURPLE, AMBER and
# SKY are darker than theirs, and INK stands for black.
BLUE, VERMILION, GREEN, PURPLE, AMBER, SKY, INK = PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#B8608F",
    "#C98A00",
    "#3C9BCB",
    "#333333",
)
# A full line, and dashes as matplotlib has them: (offset, (lengths of a dash, a gap, …)).
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
    "svg.fonttype": "none",  # The text of an SVG stays text: it is not drawn as outlines.
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

    def pictures(self) -> dict[str, bytes]:
        """The content of the figure's PNG, PDF and SVG by suffix: the same for the same data."""
        # Without these entries no version and no date is written.
        undated: dict[str, Any] = {
            "png": {"Software": None},
            "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
            "svg": {"Creator": None, "Date": None},
        }
        return {kind: self._saved(kind, dpi=150, metadata=undated[kind]) for kind in undated}

    def elements(self) -> list[str]:
        """Each panel as an SVG element of the page. The drawing then shows its last panel alone."""
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        # A hidden panel would lose its room to the others if they were laid out again.
        self.drawing.draw_without_rendering()
        self.drawing.set_layout_engine("none")
        elements = []
        for panel in self.drawing.axes:
            for any_panel in self.drawing.axes:
                any_panel.set_visible(any_panel is panel)
            extent = self.drawing.get_tightbbox().padded(0.04)  # Inches.
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
    """A drawing with empty panels, two in a row, with room for labels beside the lines."""
    rows, columns = math.ceil(count / 2), min(count, 2)
    inches = WIDTH * columns, _height(labels) * rows
    drawing = Drawing(figsize=inches, layout="constrained")
    return drawing, [drawing.add_subplot(rows, columns, i + 1) for i in range(count)]


def curves(
    ax: Axes, table: DataFrame, x: str, metric: str, looks: Looks, *, steps: bool = False
) -> None:
    """Draw a metric against x, a line for each label, with the 95 % intervals as bands.

    Where there are more than MOST_BANDS lines, each has the interval of its last point alone. With
    ``steps`` a line keeps its value around each point.
    """
    # A planned value belongs to its whole epoch, so the line changes between two epochs. A band and
    # a line have two names for this.
    step: Any = "mid" if steps else None
    drawstyle = "steps-mid" if steps else None
    table = _in_per_cent(table)
    lines = _lines(table, x, metric)
    for label, (xs, ys, low, high) in lines.items():
        ax.plot(xs, ys, label=label, drawstyle=drawstyle, **looks[label])
        colour = looks[label]["color"]
        if len(lines) <= MOST_BANDS:
            ax.fill_between(xs, low, high, color=colour, alpha=0.14, lw=0, step=step)
        else:
            # The slices keep the last number as an array, which matplotlib asks for.
            reach = [(ys - low)[-1:], (high - ys)[-1:]]
            ax.errorbar(xs[-1:], ys[-1:], yerr=reach, ls="none", capsize=2, lw=1, color=colour)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    if lines:
        _limit(ax, table, metric)
        label_ends(ax, _ends(lines), looks)


def points(
    ax: Axes, table: DataFrame, x: str, metric: str, looks: Looks, *, log: bool = False
) -> None:
    """Draw a point for each row with its 95 % interval, and a line through those of a label.

    A logarithmic axis of x has a place for 0, too, if 0 is a value of x.
    """
    lines = _lines(_in_per_cent(table), x, metric)
    if log:
        values = table[x].drop_nulls().to_numpy()
        positive_values = values[values > 0]
        if len(positive_values) == len(values):
            ax.set_xscale("log")
        else:
            # A symmetrical logarithmic axis is linear from 0 to ``linthresh``, and logarithmic
            # above. ``linthresh`` is the power of ten at or below the smallest positive value, and
            # 1 at most.
            decade = math.floor(math.log10(positive_values.min(initial=1)))
            ax.set_xscale("symlog", linthresh=10.0**decade)
    for label, (xs, ys, low, high) in lines.items():
        look = looks[label] | {"marker": "o", "ms": 4, "capsize": 2, "elinewidth": 1}
        ax.errorbar(xs, ys, yerr=[ys - low, high - ys], label=label, **look)
    if log:
        plain_log(ax.xaxis)
    label_ends(ax, _ends(lines), looks)


def _in_per_cent(table: DataFrame) -> DataFrame:
    """The table with the statistics of ACCURACY in per cent."""
    return table.with_columns(starts_with(f"{ACCURACY}_") * 100)


def _lines(table: DataFrame, x: str, metric: str) -> dict[str, Array]:
    """The line of each label: an array with a column for each point.

    Its four rows are x, the mean, and the lower and upper ends of the interval; an end that is not
    known is NaN. Points whose x or mean is not known are left out.
    """
    columns = [x, f"{metric}_mean", f"{metric}_low", f"{metric}_high"]
    known_points = table.drop_nulls(columns[:2])
    lines = known_points.group_by("label", maintain_order=True)
    return {label: rows.select(columns).to_numpy().T for (label,), rows in lines}


def _ends(lines: dict[str, Array]) -> dict[str, Array]:
    """The last point (x, mean) of each line, by label."""
    return {label: line[:2, -1] for label, line in lines.items()}


def _limit(ax: Axes, table: DataFrame, metric: str) -> None:
    """Set the range of y, and make the axis logarithmic where the means differ much.

    A logarithmic axis has the range of the means: an interval may leave it, as its lower end can
    be near 0. A linear axis has the range of the means and of the last interval of each line. It
    begins at 0, but for accuracies: there the range leaves out the first tenth of the epochs, so
    that the last accuracies are seen apart.
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
        # The room at either end is 8 % of the axis. On a logarithmic axis a share of its length is
        # a power of the ratio of its ends.
        factor = (high / low) ** 0.08
        ax.set_yscale("log")
        ax.set_ylim(low / factor, high * factor)
        plain_log(ax.yaxis)
        return
    last_rows = table.group_by("label").last()
    low = min([low, *last_rows[f"{metric}_low"].drop_nulls()])
    high = max([high, *last_rows[f"{metric}_high"].drop_nulls()])
    # Where all values are the same, the room is a share of this value, or of 1 if it is 0.
    span = (high - low) or abs(high) or 1
    room = 0.1 * span
    if is_accuracy:
        # No accuracy is above 100 %. A little room there shows a line at 100 % in its full width.
        ax.set_ylim(low - room, min(high + room, 100 + room / 4))
    else:
        ax.set_ylim(min(low, 0), high + room)


def plain_log(axis: Any) -> None:
    """Label a logarithmic x or y axis with plain numbers: 1, 10, 100, and 2 and 5 if there is room.

    A symmetrical logarithmic axis (symlog) keeps its places of numbers.
    """
    if axis.get_scale() == "log":
        low, high = sorted(axis.get_view_interval())
        # Over more than some two decades the numbers at 2 and 5 would touch.
        steps = (1, 2, 5) if high / low < 200 else (1,)
        axis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def label_ends(ax: Axes, ends: Mapping[str, ArrayLike], looks: Looks) -> None:
    """Write each label beside the end of its line, in its colour, no two on one another.

    ``ends`` has the last point (x, y) of each line of this panel, and ``looks`` each label of the
    figure. Set the panel's ranges before: a label's height is a share of the panel.
    """
    ax.autoscale_view()  # Ranges that nobody set follow from the lines.
    to_panel = ax.transScale + ax.transLimits  # Points become shares of the panel.
    points = {label: tuple(to_panel.transform(end)) for label, end in ends.items()}
    from_below = sorted(points, key=lambda label: (points[label][1], points[label][0], label))
    # Labels that stand on one another from the panel's bottom up have these heights.
    label_height = _text_lines(looks) * TEXT_LINE / (_height(looks) - ROOM)
    stack = np.arange(len(ends)) * label_height
    end_heights = np.array([points[label][1] for label in from_below])
    # A label is at the height of its end, or directly above the label below it if that is higher:
    # height_i = max(end_i, height_{i-1} + label_height). When the stack, i × label_height, is
    # subtracted from each, this is a running maximum.
    heights = np.maximum.accumulate(end_heights - stack) + stack
    # No label is so high that the labels above it would leave the panel: they hang from its top.
    heights = np.minimum(heights, 1 - stack[::-1])
    for label, height in zip(from_below, heights, strict=True):
        colour = looks[label]["color"]
        ax.annotate(
            textwrap.fill(label, LONGEST),
            points[label],
            (1.04, height),  # A little to the right of the panel.
            xycoords="axes fraction",
            color=colour,
            fontsize=8,
            va="center",
            # A dotted line leads from the middle of the label's left side to the end of its line.
            arrowprops={"arrowstyle": "-", "ls": ":", "color": colour, "relpos": (0, 0.5)},
        )


def _height(labels: Collection[str]) -> float:
    """Inches of a panel in which all labels have room, one above another, with one to spare."""
    return max(HEIGHT, ROOM + TEXT_LINE * _text_lines(labels) * (len(labels) + 1))


def _text_lines(labels: Collection[str]) -> int:
    """How many lines of text the longest label has."""
    return max((len(textwrap.wrap(label, LONGEST)) for label in labels), default=0)
