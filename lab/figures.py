"""Figures of the studies, in the look of the report, as PNG."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from igo.ground.statistics import Estimate
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
        figure.savefig(path, dpi=150, metadata={"Software": None})


def forests(axes: Axes, claims: Sequence[str], groups: Mapping[str, Sequence[Estimate]]) -> None:
    """Differences with 95 % intervals under the name of each claim, a colour for each group."""
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
    axes.set_yticks([])
    axes.set_ylim(-len(claims) + 0.4, 0.8)
    for place, claim in zip(places, claims, strict=True):
        axes.text(0.01, place + 0.5, claim, transform=axes.get_yaxis_transform(), va="center")
    legend_above(axes)


def legend_above(axes: Axes) -> None:
    """A legend in two columns between a panel and the one above it."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
