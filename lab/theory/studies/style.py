"""The look of every figure: colours for colour-blind readers, readable labels, 150 dpi."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from numpy.typing import NDArray

mpl.use("Agg")

# Okabe and Ito's palette.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, SKY, YELLOW, BLACK = "#CC79A7", "#56B4E9", "#F0E442", "#000000"
COLOURS = [BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK, "#999999"]

mpl.rcParams.update(
    {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "axes.prop_cycle": cycler(color=COLOURS),
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.6,
        "savefig.dpi": 150,
    }
)


def panels(
    columns: int, rows: int = 1, width: float = 4.4, height: float = 3.4, **options: Any
) -> tuple[Figure, NDArray[np.object_]]:
    """Return a figure and its axes, flattened."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), layout="constrained", **options
    )
    return figure, np.atleast_1d(axes).ravel()


def save(drawn: Figure, path: Path) -> None:
    """Write a figure as PNG, and free it."""
    unfinished = path.with_name(f".{path.name}")
    drawn.savefig(unfinished, metadata={"Software": ""})
    unfinished.replace(path)
    plt.close("all")


def noise_colours(count: int) -> NDArray[np.float64]:
    """Return colours from dark (large noise) to light, for a sequence of δ."""
    return np.asarray(mpl.colormaps["viridis"](np.linspace(0.05, 0.85, count)))
