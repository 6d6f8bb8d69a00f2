"""The figure of Lemma 2.1, with the paper's symbols."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from igo.config.names import DATASETS
from lab.figures import BLUE, GREY, PURPLE, VERMILION, drawn
from lab.noise.lemma import Row

SAMPLINGS = {
    "with_replacement": (BLUE, "with replacement"),
    "independent": (VERMILION, "without replacement"),
}


def draw(tables: dict[str, list[Row]], dataset: str, path: Path) -> None:
    """E‖∇f_S - ∇f‖² against b; and C²(b) with BatchNorm in train mode."""
    with drawn(path, 4.1, 4.1) as (lemma_axes, batchnorm_axes):
        for sampling, (colour, label) in SAMPLINGS.items():
            rows = [row for row in tables["lemma"] if row["sampling"] == sampling]
            rows = [row for row in rows if row["c2_over_b_finite"] > 0]  # It is 0 at b = n.
            _points(lemma_axes, rows, ("mean", "low", "high"), colour, label)
            b, lemma = np.transpose([(row["b"], row["c2_over_b_finite"]) for row in rows])
            lemma_axes.plot(b, lemma, color=GREY, lw=1.2)
        title = f"{DATASETS.get(dataset, dataset)}: one-sample gradients, and Lemma 2.1 (lines)"
        lemma_axes.set(yscale="log", ylabel=r"$E\,\|\nabla f_S-\nabla f\|^2$", title=title)
        rows, interval = tables["lemma_batchnorm"], ("c2", "c2_low", "c2_high")
        _points(batchnorm_axes, rows, interval, BLUE, "$b\\,$Var of mini-batch gradients")
        variance = tables["lemma"][0]["c2_over_b"]  # The first row has b = 1, where C²/b is C².
        batchnorm_axes.axhline(variance, color=PURPLE, ls="--", label="$C^2$ in eval mode")
        batchnorm_axes.set(yscale="log", ylabel="$C^2(b)$", title="BatchNorm in train mode")
        for axes in (lemma_axes, batchnorm_axes):
            axes.set(xscale="log", xlabel="batch size $b$")
            axes.legend()


def _points(
    axes: Axes, rows: list[Row], names: tuple[str, str, str], colour: str, label: str
) -> None:
    """Draw a number of each row over b, by the names of its mean, low end and high end."""
    b, y, low, high = np.transpose([[row[name] for name in ("b", *names)] for row in rows])
    errors = (y - low, high - y)
    axes.errorbar(b, y, yerr=errors, fmt="o", ms=4, mfc="none", color=colour, label=label)
