"""Figures as PNG and PDF, the same bytes for the same data."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from igo.analysis.style import DASHES, GREEN, MAP, STYLE
from igo.report.chart import Figure, Map, Panel, Series

SIZE = (4.6, 3.3)  # inches, of a panel
LEGEND_LINE = 0.2  # inches
# The part of the colour map that is used: start and length. Its ends do not show on paper.
DARKEST, DEPTH = 0.12, 0.83
LOG_RANGE = 1e4  # largest over smallest value that a logarithmic y axis shows


def render(figure: Figure) -> dict[str, bytes]:
    """Draw a figure; return the content of the PNG and the PDF file by suffix."""
    with mpl.rc_context({**STYLE, "text.parse_math": False}):  # a $ in a file name is no formula
        drawing = _maps(figure) if figure.maps else _panels(figure)
        drawing.suptitle(figure.title, fontsize=11.5)
        png, pdf = io.BytesIO(), io.BytesIO()
        drawing.savefig(png, format="png", dpi=150, metadata={"Software": None})
        dateless = {"Creator": None, "Producer": None, "CreationDate": None}
        drawing.savefig(pdf, format="pdf", metadata=dateless)
    return {"png": png.getvalue(), "pdf": pdf.getvalue()}


def _panels(figure: Figure) -> Drawing:
    """Draw each panel in each view; several views are columns."""
    cells = [(panel, view) for panel in figure.panels for view in figure.views]
    columns = len(figure.views) if len(figure.views) > 1 else min(len(cells), 3)
    rows = -(-len(cells) // columns)
    handles = {
        series.label: mpl.lines.Line2D([], [], **_look(series))
        for panel in figure.panels
        for series in panel.series
    }
    legend_columns = 2 * columns
    height = SIZE[1] * rows + LEGEND_LINE * -(-len(handles) // legend_columns) + 0.5
    drawing = Drawing(figsize=(SIZE[0] * columns, height), layout="constrained")
    axes = list(drawing.subplots(rows, columns, squeeze=False).ravel())
    for ax, (panel, view) in zip(axes, cells, strict=True):
        _panel(ax, panel, view)
    if len(handles) > 1:
        drawing.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=legend_columns
        )
    return drawing


def _look(series: Series) -> dict[str, Any]:
    return {
        "color": series.style.colour.light,
        "ls": DASHES[series.style.dash] if series.line else "none",
        "drawstyle": "steps-mid" if series.steps else "default",
        "marker": "o" if series.markers else None,
        "ms": 4,
    }


def _panel(ax: Axes, panel: Panel, view: str) -> None:
    axis = panel.x[view]
    for strip in panel.strips:
        ax.axhspan(strip.low, strip.high, color=GREEN.light, alpha=0.09, lw=0)
        ax.text(1.01, strip.low, strip.label, va="bottom", fontsize=8, color="#00664A",
                transform=ax.get_yaxis_transform())  # fmt: skip
    for series in panel.series:
        if view in series.x:
            _draw_series(ax, series, view, panel)
    ax.set(xlabel=axis.label, ylabel=panel.y.label)
    for log, scale, side in ((axis.log, "xscale", ax.xaxis), (panel.y.log, "yscale", ax.yaxis)):
        if log:
            ax.set(**{scale: "log"})
            side.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
            side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            side.set_minor_formatter(NullFormatter())
    if not axis.log:
        ax.xaxis.set_major_formatter(
            FuncFormatter(lambda v, _: f"{v / 1000:g}k" if abs(v) >= 10_000 else f"{v:g}")
        )
    if panel.strips:
        ax.set(xlim=(0, 1), ylim=(0, 1.03))
    elif (ends := limits(panel)) is not None:
        ax.set_ylim(ends)
    if panel.y.percent:
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))


def limits(panel: Panel) -> tuple[float, float] | None:
    """The range of y: it holds the means, and for accuracies also the drawn intervals.

    The first tenth of an accuracy's line is ignored, so that the differences at its end are seen.
    None if matplotlib chooses the range.
    """
    kept = []
    for series in panel.series:
        skipped = len(series.y) // 10 if panel.y.percent and series.line else 0
        shown = [*series.y[skipped:]]
        if panel.y.percent:
            first = skipped if panel.banded or series.markers else -1
            shown += [*series.low[first:], *series.high[first:]]
        kept += [y for y in shown if y is not None and not (panel.y.log and y <= 0)]
    if not kept:
        return None
    low, high = min(kept), max(kept)
    if panel.y.log:
        return (high / LOG_RANGE, high * 1.5) if low < high / LOG_RANGE else None
    edge = 0.08 * ((high - low) or abs(high) or 1)
    return low - edge, high + edge


def _draw_series(ax: Axes, series: Series, view: str, panel: Panel) -> None:
    x, y = _array(series.x[view]), _array(series.y)
    look = _look(series)
    ax.plot(x, y, **look)
    if not any(low is not None for low in series.low):
        return
    low, high = _array(series.low), _array(series.high)
    if panel.y.log:  # an interval may reach below zero
        low = np.where(low > 0, low, y / 1e3)
    if series.markers or not panel.banded:
        shown = slice(None) if series.markers else slice(-1, None)  # a line has one at its end
        reach = np.array([y - low, high - y])[:, shown]
        ax.errorbar(x[shown], y[shown], yerr=reach, ls="none", capsize=2, lw=1, color=look["color"])
        return
    step: Literal["mid"] | None = "mid" if series.steps else None
    ax.fill_between(x, low, high, color=look["color"], alpha=0.13, lw=0, step=step)


def _array(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _maps(figure: Figure) -> Drawing:
    first = figure.maps[0]
    width = max(4.2, 1.0 * len(first.columns) + 1.8)
    height = max(3.0, 0.55 * len(first.rows) + 1.6)
    drawing = Drawing(figsize=(width * len(figure.maps), height), layout="constrained")
    axes = list(drawing.subplots(1, len(figure.maps), squeeze=False).ravel())
    for ax, cells in zip(axes, figure.maps, strict=True):
        _map(ax, cells)
    return drawing


def _map(ax: Axes, cells: Map) -> None:
    colours = cell_colours(cells)
    ax.imshow([[mpl.colors.to_rgb(c) for c in row] for row in colours], aspect="auto")
    for i, row in enumerate(cells.texts):
        for j, text in enumerate(row):
            ax.text(j, i, text, ha="center", va="center", fontsize=8, color=ink_on(colours[i][j]))
    ax.set_xticks(range(len(cells.columns)), cells.columns)
    ax.set_yticks(range(len(cells.rows)), cells.rows)
    title = f"{cells.title} ({cells.better} is better)"
    ax.set(xlabel=cells.column_label, ylabel=cells.row_label, title=title)
    ax.grid(visible=False)


def cell_colours(cells: Map) -> list[list[str]]:
    """A colour for each cell, #rrggbb: lighter for larger values, grey where there is no value."""
    return [
        ["#cccccc" if value is None else colour_at(cells.share(value)) for value in row]
        for row in cells.values
    ]


def colour_at(share: float) -> str:
    """The colour of a map at a share of its range."""
    return str(mpl.colors.to_hex(mpl.colormaps[MAP](DARKEST + DEPTH * share)))


def luminance(colour: str) -> float:
    """The relative luminance of #rrggbb, as WCAG defines it."""
    channels = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in mpl.colors.to_rgb(colour)
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], channels))


def ink_on(background: str) -> str:
    """Black or white, whichever has the higher contrast with the background."""
    return "#000000" if luminance(background) > 0.179 else "#ffffff"
