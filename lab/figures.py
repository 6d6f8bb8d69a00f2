"""Figures of the studies, in the look of the report, as PNG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from igo.ground.statistics import Estimate
from igo.report import draw

BLUE, VERMILION, GREEN, PURPLE, AMBER, SKY, INK = COLOURS = [c.light for c in draw.PALETTE]
GREY = "#8A8A8A"


@contextmanager
def drawn(path: Path, columns: int, width: float, height: float) -> Iterator[list[Axes]]:
    """Give the axes of a row of panels to draw on; then write the figure.

    `width` and `height` are of a panel, in inches.
    """
    with mpl.rc_context(draw.STYLE):
        figure = Figure(figsize=(width * columns, height), layout="constrained")
        yield list(figure.subplots(1, columns, squeeze=False).ravel())
        figure.savefig(path, dpi=150, metadata={"Software": None})


def forests(axes: Axes, claims: Sequence[str], groups: Mapping[str, Sequence[Estimate]]) -> None:
    """Differences with 95 % intervals: a line for each claim, in it a colour for each group."""
    places = -np.arange(len(claims))
    for number, ((name, estimates), colour) in enumerate(
        zip(groups.items(), COLOURS, strict=False)
    ):
        x, low, high = np.transpose(
            [(estimate.value, estimate.low, estimate.high) for estimate in estimates]
        )
        y = places - 0.7 / len(groups) * (number - (len(groups) - 1) / 2)
        axes.errorbar(x, y, xerr=(x - low, high - x), fmt="o", ms=3.5, color=colour, label=name)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(places, claims)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
