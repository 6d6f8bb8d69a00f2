"""The picture of docs/idea.md: python docs/idea.py writes docs/idea.png.

Above, a loss and its smoothed versions (a closed form: Rastrigin in one dimension with Gaussian
noise). Below, a plan of this project: one noise curve, shared between η and b in three ways.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from hydra import compose, initialize_config_dir

from igo.config.load import config_of, make_plan
from igo.ground.files import CONF
from igo.plans.plan import Plan
from igo.report.draw import plain_log

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")  # Okabe and Ito: safe for the colour-blind


def smoothed_rastrigin(x: np.ndarray, delta: float) -> np.ndarray:
    """E[f(x - δu)], u ~ N(0, 1), f = x² - 10 cos 2πx + 10, in closed form."""
    damping = np.exp(-2 * np.pi**2 * delta**2)
    return np.asarray(x**2 + delta**2 + 10 - 10 * damping * np.cos(2 * np.pi * x))


def plan(split: float) -> Plan:
    """The default run's plan with another split."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return make_plan(
            config_of(compose("config", ["p=0.5", f"split={split}", "epochs=40", "batch_size=32"]))
        )


def draw_smoothing(axes: Axes) -> None:
    """One loss, smoothed less and less."""
    x = np.linspace(-3.2, 3.2, 800)
    for delta, colour in zip((0.55, 0.3, 0.15, 0.0), COLOURS, strict=True):
        label = "δ = 0: the loss itself" if delta == 0 else f"δ = {delta:g}"
        axes.plot(x, smoothed_rastrigin(x, delta), color=colour, label=label)
    axes.set(xlabel="parameter x", ylabel="smoothed loss $\\hat f_\\delta(x)$", ylim=(-1, 38))
    axes.set_title("Noise of size δ smooths the loss", loc="left")
    axes.legend(frameon=False, fontsize=9)


def draw_plans(noise: Axes, rates: Axes, batches: Axes) -> None:
    """The same δ_m by three splits."""
    for split, colour, width in zip((1.0, 0.5, 0.0), COLOURS, (4, 2.4, 1), strict=False):
        rows = plan(split).rows
        m = [row.stage for row in rows]
        noise.step(m, [row.phi_m for row in rows], color=colour, lw=width, where="mid")
        label = f"split {split:g}"
        rates.step(m, [row.eta_m for row in rows], color=colour, where="mid", label=label)
        batches.step(m, [row.b_m for row in rows], color=colour, where="mid")
    noise.set_title("One noise curve (p = 0.5), three ways to get it", loc="left")
    noise.set(ylabel="$\\delta_m/\\delta_1$", ylim=(0, 1.05))
    rates.set(ylabel="$\\eta_m$", ylim=(0, 0.105))
    batches.set(ylabel="$b_m$", yscale="log", xlabel="stage m")
    plain_log(batches.yaxis)
    rates.legend(frameon=False, fontsize=9)


def main() -> None:
    """Draw the figure."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    figure, panels = plt.subplots(
        4, 1, figsize=(4.8, 8.4), height_ratios=(2.4, 1, 1, 1), layout="constrained"
    )
    draw_smoothing(panels[0])
    draw_plans(*panels[1:])
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1:3]:
        axes.tick_params(labelbottom=False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=140)


if __name__ == "__main__":
    main()
