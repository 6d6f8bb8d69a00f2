"""The figure of Lemma 2.1, with the paper's symbols."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from igo.config.names import DATASETS
from lab.figures import BLUE, GREY, PURPLE, VERMILION, drawn
from lab.noise.lemma import Row, finite_factor


def draw(n: int, tables: dict[str, list[Row]], dataset: str, path: Path) -> None:
    """E‖∇f_S - ∇f‖² against b; and C²(b) with BatchNorm in train mode."""
    variance = tables["lemma"][0]["c2_over_b"]  # b = 1
    with drawn(path, 4.1, 4.1) as (lemma_axes, batchnorm_axes):
        _lemma_points(lemma_axes, tables["lemma"], n, variance)
        _batchnorm_points(batchnorm_axes, tables["lemma_batchnorm"], variance)
        title = f"Lemma 2.1 on {DATASETS.get(dataset, dataset)}, n = {n:,}"
        lemma_axes.get_figure().suptitle(title, fontsize=11.5)  # type: ignore[union-attr]


def _lemma_points(ax: Axes, table: list[Row], n: int, variance: float) -> None:
    grid = np.unique(np.geomspace(1, n - 1, 400))
    ax.plot(grid, variance / grid, color=GREY, lw=1.2, label="$C^2/b$ (slope $-1$)")
    finite = variance / grid * finite_factor(grid, n)
    ax.plot(grid, finite, color=GREY, lw=1.2, ls="--", label="$(C^2/b)\\,(n-b)/(n-1)$")
    kinds = (
        ("with_replacement", BLUE, "o", "with replacement"),
        ("independent", VERMILION, "s", "without replacement"),
    )
    for sampling, colour, marker, label in kinds:
        rows = [r for r in table if r["sampling"] == sampling and r["mean"] > 1e-9 * variance / n]
        _points(ax, rows, "mean", ("low", "high"), color=colour, marker=marker, label=label)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="batch size $b$",
        ylim=(0.02 * variance / n, None),
        ylabel=r"$E\,\|\nabla f_S-\nabla f\|^2$",
        title="one-sample gradients (BatchNorm in eval mode)",
    )
    ax.legend(loc="lower left")


def _points(ax: Axes, rows: list[Row], name: str, interval: tuple[str, str], **look: Any) -> None:
    y = np.array([r[name] for r in rows])
    errors = [y - [r[interval[0]] for r in rows], [r[interval[1]] for r in rows] - y]
    b = [r["b"] for r in rows]
    ax.errorbar(b, y, yerr=errors, ls="none", ms=4, capsize=2, lw=1, mfc="none", **look)


def _batchnorm_points(ax: Axes, rows: list[Row], frozen: float) -> None:
    """b E‖·‖², a constant by Lemma 2.1."""
    _points(
        ax,
        rows,
        "c2",
        ("c2_low", "c2_high"),
        color=BLUE,
        marker="o",
        label="$C^2(b)$: $b\\,$Var of mini-batch gradients",
    )
    b = np.array([r["b"] for r in rows])
    bias = b * np.array([r["bias_square"] for r in rows])
    is_positive = bias > 0
    ax.plot(
        b[is_positive],
        bias[is_positive],
        color=VERMILION,
        marker="^",
        ls=":",
        mfc="none",
        label=r"$b\,\|E\,\nabla f_S-\nabla f\|^2$ (bias)",
    )
    largest = rows[-1]["c2"]
    ax.axhline(largest, color=GREY, lw=1, ls="--", label="Lemma 2.1: constant")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="batch size $b$",
        ylabel=r"$b\cdot$squared noise",
        title="as SGD has it (BatchNorm in train mode)",
    )
    ax.axhline(frozen, color=PURPLE, lw=1.2, ls="-.", label="$C^2$ of eval mode (above)")
    ax.set_ylim(top=60 * max(frozen, *(r["c2_high"] for r in rows)))
    ax.legend(loc="upper right")
