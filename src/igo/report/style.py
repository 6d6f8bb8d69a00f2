"""The look of figures: colours that colour-blind readers can tell apart, for paper and screens."""

from __future__ import annotations

from typing import Any, NamedTuple


class Colour(NamedTuple):
    """One colour on white paper and on a dark screen."""

    light: str
    dark: str


# Okabe and Ito's palette; lightened for dark screens.
BLUE = Colour("#0072B2", "#56A9E0")
VERMILION = Colour("#D55E00", "#F28A45")
GREEN = Colour("#009E73", "#3CC79C")
PURPLE = Colour("#B8608F", "#DE9BC1")
AMBER = Colour("#C98A00", "#EFBC4A")
SKY = Colour("#3C9BCB", "#8CCDF2")
INK = Colour("#333333", "#DDDDDD")
GREY = Colour("#8A8A8A", "#9A9A9A")
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, AMBER, SKY, INK)
DASHES: Any = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))

STYLE: Any = {  # settings of matplotlib
    "font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "axes.titlesize": 10,
    "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.5, "pdf.fonttype": 42,
    "axes.edgecolor": "#666666", "text.color": "#222222", "axes.labelcolor": "#222222",
}  # fmt: skip
