"""Figures of the studies, in the look of the report, as PNG."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from igo.report import draw

BLUE, VERMILION, GREEN, PURPLE, AMBER, SKY, INK = COLOURS = draw.PALETTE
GREY = "#8A8A8A"
WIDTH = 4.8  # inches of a figure


@contextmanager
def drawn(path: Path, *heights: float) -> Iterator[list[Axes]]:
    """Give panels of these heights in inches, one under another, to draw on; then write the figure.

    A telephone shows all of its width, so that the text is as large as that of the page.
    """
    with mpl.rc_context(draw.STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)
        yield list(panels.ravel())
        # Without matplotlib's version in the file, another version may write the same bytes.
        figure.savefig(path, dpi=150, metadata={"Software": None})


def legend_above(axes: Axes) -> None:
    """A legend in two columns between a panel and the one above it."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
