"""Draw docs/dashboard.png: what W&B has of a short sweep, in the panels of the saved dashboard.

Methods 1 to 4 train on digits, and `igo dashboard` saves its view, both with W&B's own client. It
talks to the stand-in server of the tests, so this is no screen of W&B. Panels for which these runs,
of a CPU, have no numbers are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from igo.report.draw import plain_log

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from wandb_server import OnlineRun, WandbServer

HERE = Path(__file__).parent

SWEEP = ("schedule=method1,method2,method3,method4", "seed=range(3)", "epochs=10")
COLOURS = ("#777777", "#0072B2", "#D55E00", "#009E73")
Settings = dict[str, list[OnlineRun]]  # the runs of each line, by its name
Panels = dict[str, list[dict[str, Any]]]  # the panels of each section


def streamed() -> tuple[Settings, Panels]:
    """What the server gets: the runs as the view groups them, and the panels of the view."""
    with tempfile.TemporaryDirectory() as folder, WandbServer() as server:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
        train = (str(HERE.parent / "src" / "train.py"), "-m", *SWEEP)
        for words in (train, ("-m", "igo", "dashboard", "tag=digits")):
            command = [sys.executable, *words]
            subprocess.run(command, cwd=folder, env=environment | server.online, check=True)
        (view,) = server.views.values()
    section = json.loads(view["spec"])["section"]
    (key,) = section["runSets"][0]["grouping"]
    settings: Settings = {}
    for run in server.runs.values():
        value = json.loads(run.settings["config"])
        for name in key["name"].split("."):
            value = value[name]
        settings.setdefault(value, []).append(run)
    sections = section["panelBankConfig"]["sections"]
    return dict(sorted(settings.items())), {x["name"]: x["panels"] for x in sections}


def numbers(runs: list[OnlineRun], name: str) -> np.ndarray:
    """A logged number of shape (runs, epochs), NaN where a run has none."""
    return np.array([[row.get(name) for row in run.rows] for run in runs], dtype=float)


def draw_lines(axes: Axes, settings: Settings, panel: dict[str, Any]) -> None:
    """The mean of each setting, and the standard deviation of its runs; a second name is dashed.

    An epoch counts where all of its runs have the number.
    """
    for colour, runs in zip(COLOURS, settings.values(), strict=True):
        x = numbers(runs, panel["xAxis"])[0]
        for name, dashes in zip(panel["metrics"], ("-", "--"), strict=False):
            values = numbers(runs, name)
            mean, sd = values.mean(axis=0), values.std(axis=0, ddof=1)
            axes.plot(x, mean, color=colour, lw=1.3, ls=dashes)
            axes.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.2, lw=0)
    axes.set_title(panel["chartTitle"], loc="left", fontsize=8)
    axes.set_xlabel(panel["xAxis"])
    axes.locator_params(axis="x", nbins=5)
    if panel.get("yLogScale"):
        axes.set_yscale("log")
        plain_log(axes.yaxis)


def is_drawn(panel: dict[str, Any], settings: Settings) -> bool:
    """Whether a panel is of lines, and some run has its first number."""
    if panel["viewType"] != "Run History Line Plot":
        return False
    name = panel["config"]["metrics"][0]
    return any(
        row.get(name) is not None for x in settings.values() for run in x for row in run.rows
    )


def main() -> None:
    """Draw the picture."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    settings, sections = streamed()
    shown = {
        section: [panel["config"] for panel in panels if is_drawn(panel, settings)]
        for section, panels in sections.items()
    }
    shown = {section: panels for section, panels in shown.items() if panels}
    rows = [-(-len(panels) // 2) for panels in shown.values()]
    plt.rcParams |= {"font.size": 7, "axes.spines.top": False, "axes.spines.right": False}
    figure = plt.figure(figsize=(5.4, 0.8 + 1.6 * sum(rows)), layout="constrained")
    legend, *parts = figure.subfigures(1 + len(rows), 1, height_ratios=(0.5, *rows))
    names = [f"{len(runs)} × {name}" for name, runs in settings.items()]
    lines = [plt.Line2D([], [], color=colour) for colour in COLOURS]
    legend.legend(lines, names, loc="upper left", frameon=False, borderpad=0, fontsize=6)
    for part, (section, panels), count in zip(parts, shown.items(), rows, strict=True):
        part.suptitle(section, x=0.01, ha="left", fontweight="bold")
        grid = part.subplots(count, 2, squeeze=False).flatten()
        for axes in grid[len(panels) :]:
            axes.axis("off")
        for axes, panel in zip(grid, panels, strict=False):
            draw_lines(axes, settings, panel)
    figure.savefig(HERE / "dashboard.png", dpi=160, metadata={"Software": None})


if __name__ == "__main__":
    main()
