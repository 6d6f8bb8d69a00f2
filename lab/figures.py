"""Figures of the studies, in the look of the report, as PNG."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from igo.report import draw

BLUE, VERMILION, GREEN, PURPLE, AMBER, SKY, INK = COLOURS = [c.light for c in draw.PALETTE]
GREY = "#8A8A8A"


@contextmanager
def drawn(
    path: Path, columns: int, width: float, height: float, rows: int = 1
) -> Iterator[list[Axes]]:
    """Give the axes of rows of panels to draw on, one after another; then write the figure.

    `width` and `height` are of a panel, in inches.
    """
    with mpl.rc_context(draw.STYLE):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        yield list(figure.subplots(rows, columns, squeeze=False).ravel())
        figure.savefig(path, dpi=150, metadata={"Software": None})
