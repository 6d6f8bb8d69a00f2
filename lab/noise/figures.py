"""The figures of the studies, with the paper's symbols and colours for colour-blind readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from igo.report import style
from igo.report.names import DATASETS
from igo.report.statistics import Array
from lab.noise import Findings, Row
from lab.noise.quantities import ball_marginal, finite_factor

BLUE, ORANGE, GREEN, PURPLE, GREY = (
    colour.light for colour in (style.BLUE, style.VERMILION, style.GREEN, style.PURPLE, style.GREY)
)


def _drawn(
    panels: int, path: Path, title: str, draw: Callable[[list[Axes]], None], rows: int = 1
) -> None:
    with mpl.rc_context(style.STYLE):
        figure = Figure(figsize=(4.6 * panels, 4.1 * rows), layout="constrained")
        draw(list(figure.subplots(rows, panels, squeeze=False).ravel()))
        figure.suptitle(title, fontsize=11.5)
        figure.savefig(path, dpi=150)


def lemma(findings: Findings, dataset: str, path: Path) -> None:
    """E‖∇f_S - ∇f‖² against b; and C²(b) with BatchNorm in train mode."""

    def draw(axes: list[Axes]) -> None:
        _lemma_points(axes[0], findings.tables["lemma"], findings.n)
        variance = findings.tables["lemma"][0]["c2_over_b"]  # b = 1
        _batchnorm_points(axes[1], findings.tables["lemma_batchnorm"], variance)

    title = f"Lemma 2.1 on {DATASETS.get(dataset, dataset)}, n = {findings.n:,}"
    _drawn(2, path, title, draw)


def _lemma_points(ax: Axes, table: list[Row], n: int) -> None:
    variance = table[0]["c2_over_b"]  # b = 1
    grid = np.unique(np.geomspace(1, n - 1, 400))
    ax.plot(grid, variance / grid, color=GREY, lw=1.2, label="$C^2/b$ (slope $-1$)")
    finite = [variance / b * finite_factor(b, n) for b in grid]
    ax.plot(grid, finite, color=GREY, lw=1.2, ls="--", label="$(C^2/b)\\,(n-b)/(n-1)$")
    kinds = (("with_replacement", BLUE, "o", "with replacement"),
             ("independent", ORANGE, "s", "without replacement"))  # fmt: skip
    for sampling, colour, marker, label in kinds:
        rows = [r for r in table if r["sampling"] == sampling and r["mean"] > 1e-9 * variance / n]
        _points(ax, rows, "mean", ("low", "high"), color=colour, marker=marker, label=label)
    ax.set(xscale="log", yscale="log", xlabel="batch size $b$", ylim=(0.02 * variance / n, None),
           ylabel=r"$E\,\|\nabla f_S-\nabla f\|^2$",
           title="one-sample gradients (BatchNorm in eval mode)")  # fmt: skip
    ax.legend(loc="lower left")


def _points(ax: Axes, rows: list[Row], name: str, interval: tuple[str, str], **style: Any) -> None:
    y = np.array([r[name] for r in rows])
    errors = [y - [r[interval[0]] for r in rows], [r[interval[1]] for r in rows] - y]
    b = [r["b"] for r in rows]
    ax.errorbar(b, y, yerr=errors, ls="none", ms=4, capsize=2, lw=1, mfc="none", **style)


def _batchnorm_points(ax: Axes, rows: list[Row], frozen: float) -> None:
    """b E‖·‖², a constant by Lemma 2.1."""
    _points(ax, rows, "c2", ("c2_low", "c2_high"), color=BLUE, marker="o",
            label="$C^2(b)$: $b\\,$Var of mini-batch gradients")  # fmt: skip
    b = np.array([r["b"] for r in rows])
    bias = b * np.array([r["bias_square"] for r in rows])
    kept = bias > 0
    ax.plot(b[kept], bias[kept], color=ORANGE, marker="^", ls=":", mfc="none",
            label=r"$b\,\|E\,\nabla f_S-\nabla f\|^2$ (bias)")  # fmt: skip
    largest = rows[-1]["c2"]
    ax.axhline(largest, color=GREY, lw=1, ls="--", label="Lemma 2.1: constant")
    ax.set(xscale="log", yscale="log", xlabel="batch size $b$",
           ylabel=r"$b\cdot$squared noise",
           title="as SGD has it (BatchNorm in train mode)")  # fmt: skip
    ax.axhline(frozen, color=PURPLE, lw=1.2, ls="-.", label="$C^2$ of eval mode (left)")
    ax.set_ylim(top=60 * max(frozen, *(r["c2_high"] for r in rows)))
    ax.legend(loc="upper right")


def omega(findings: Findings, dataset: str, path: Path) -> None:
    """Radius, projections on random and leading directions, spectrum; after the last epoch."""
    last = max(findings.arrays, key=int)
    arrays = findings.arrays[last]

    def draw(axes: list[Axes]) -> None:
        _radii(axes[0], arrays)
        _random_directions(axes[1], arrays)
        _leading_direction(axes[2], arrays)
        _spectra(axes[3], findings)

    title = f"The noise ω on {DATASETS.get(dataset, dataset)}, n = {findings.n:,}"
    _drawn(2, path, f"{title}; the first three panels are after epoch {last}", draw, rows=2)


def _shades(count: int) -> list[Any]:
    return list(mpl.colormaps["viridis"](np.linspace(0.05, 0.85, count)))


def _radii(ax: Axes, arrays: dict[str, Any]) -> None:
    most = max(np.quantile(of_b["radii"], 0.995) for of_b in arrays["by_b"].values())
    bins = np.linspace(0, most, 60).tolist()
    for (b, of_b), colour in zip(arrays["by_b"].items(), _shades(4), strict=True):
        ax.hist(of_b["radii"], bins=bins, density=True, histtype="step", color=colour, lw=1.4,
                label=f"$b={b}$")  # fmt: skip
    ax.axvline(1, color=ORANGE, lw=1.5, ls="--", label="sphere; ball to $1/d$")
    ax.set(xlabel=r"$\|\omega\|\sqrt{b}/C$", ylabel="density", title="radius")
    ax.legend()


def _random_directions(ax: Axes, arrays: dict[str, Any]) -> None:
    bins = np.linspace(-4, 4, 65).tolist()
    d = arrays["d"]
    for (b, of_b), colour in zip(arrays["by_b"].items(), _shades(4), strict=True):
        pooled = of_b["projections"] / of_b["projections"].std(axis=0)
        ax.hist(pooled.ravel(), bins=bins, density=True, histtype="step", color=colour, lw=1.4,
                label=f"$b={b}$")  # fmt: skip
    x = np.linspace(-4, 4, 300)
    ax.plot(x, stats.norm.pdf(x), color="black", lw=1.2, label="Gaussian")
    ball = ball_marginal(d)
    ax.plot(x, ball.pdf(x / np.sqrt(d)) / np.sqrt(d), color=ORANGE, lw=1.5, ls="--",
            label="unit ball's marginal")  # fmt: skip
    ax.set(xlabel=r"$\langle\omega,v\rangle$ / its sd", ylabel="density", yscale="log",
           ylim=(1e-4, 1.5), title="20 random directions $v$")  # fmt: skip
    ax.legend(loc="lower center")


def _leading_direction(ax: Axes, arrays: dict[str, Any]) -> None:
    d = arrays["d"]
    for (b, of_b), colour in zip(arrays["by_b"].items(), _shades(4), strict=True):
        values: Array = np.sort(of_b["leading"] / of_b["leading"].std())
        expected = stats.norm.ppf((np.arange(len(values)) + 0.5) / len(values))
        width = of_b["leading"].std() * np.sqrt(d)
        ax.plot(
            expected, values, color=colour, lw=1.5, label=f"$b={b}$: {width:.0f} × isotropic sd"
        )
    ax.plot([-3.2, 3.2], [-3.2, 3.2], color="black", lw=1, ls="--", label="Gaussian")
    ax.set(xlabel="Gaussian quantile", ylabel=r"quantile of $\langle\omega,v_1\rangle$ / its sd",
           title="leading direction $v_1$ of the noise")  # fmt: skip
    ax.legend(loc="upper left")


def _spectra(ax: Axes, findings: Findings) -> None:
    colours = (BLUE, GREEN, ORANGE, PURPLE)
    rows = findings.tables["omega_directions"]
    for row, colour in zip(rows, colours, strict=False):
        shares = findings.arrays[str(row["epoch"])]["shares"]
        label = f"epoch {row['epoch']}: effective rank {row['effective_rank']:.0f}"
        ax.plot(np.arange(1, len(shares)), np.cumsum(shares)[:-1], color=colour, lw=1.5,
                label=label)  # fmt: skip
    rank = rows[0]["isotropic_rank"]
    grid = np.geomspace(1, rank, 200)
    ax.plot(grid, grid / rank, color=GREY, lw=1.2, ls="--", label=f"isotropic (rank {rank:,})")
    ax.set(xscale="log", xlabel="directions", ylabel="share of $C^2$ in them",
           ylim=(0, 1.45), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1],
           title="how many directions hold the noise")  # fmt: skip
    ax.legend(loc="upper left")
