"""Draw docs/dashboard.png: the panels of launch/dashboard.py with Methods 1 to 4 on CIFAR-100.

It is drawn from the definition of the dashboard and the archive of a study, and is no screen of
W&B. Panels that these runs, of a CPU, have no numbers for are left out.
"""

from __future__ import annotations

import argparse
import json
import runpy
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import yaml

from igo.ground.files import LAUNCH
from igo.report.draw import plain_log

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
RECORDS = HERE.parent / "results" / "records" / "cifar100_many.tar.xz"
NAMES = {0.0: "Method 3", 1.0: "Method 2", 0.415: "Method 4"}  # by split
Settings = dict[str, list[list[dict[str, Any]]]]  # the records of each run, by its setting


def settings() -> Settings:
    """The runs of the four methods, as the dashboard groups them: by the name of the setting."""
    configs, records = dict[str, Any](), dict[str, list[dict[str, Any]]]()
    with tarfile.open(RECORDS) as tar:
        for entry in tar:
            run, _, name = entry.name.partition("/")
            if run.endswith("-reversed"):
                continue
            if name == "config.yaml" and (file := tar.extractfile(entry)):
                configs[run] = yaml.safe_load(file)
            if name == "metrics.jsonl" and (file := tar.extractfile(entry)):
                records[run] = [json.loads(line) for line in file]
    runs: Settings = defaultdict(list)
    for run, config in configs.items():
        constant = config["schedule"]["profile"] == "constant"
        name = "Method 1 (constant)" if constant else NAMES[round(config["split"], 3)]
        runs[name].append(records[run])
    return dict(sorted(runs.items()))


def draw(axes: Axes, runs: Settings, x: str, names: list[str]) -> None:
    """The mean of each setting, and the standard deviation of its runs; a second name is dashed."""
    for colour, (setting, of_seeds) in zip(plt.cm.tab10.colors, runs.items(), strict=False):
        for name, dashes in zip(names, ("-", "--"), strict=False):
            rows = [[row.get(name) for row in run] for run in of_seeds]
            values = np.array(rows, dtype=float)
            there = np.isfinite(values).all(axis=0)
            if not there.any():
                continue
            places = np.array([row[x] for row in of_seeds[0]])[there]
            mean, sd = values[:, there].mean(axis=0), values[:, there].std(axis=0, ddof=1)
            axes.plot(places, mean, color=colour, lw=1.3, ls=dashes, label=setting)
            axes.fill_between(places, mean - sd, mean + sd, color=colour, alpha=0.2, lw=0)


def main() -> None:
    """Draw the picture."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    sections, runs = runpy.run_path(str(LAUNCH / "dashboard.py"))["LINES"], settings()
    first = next(iter(runs.values()))[0]
    logged = {name for row in first for name, value in row.items() if value is not None}
    shown = {
        section: [panel for panel in panels if {panel[1], panel[2][0]} <= logged]
        for section, panels in sections.items()
    }
    rows = [-(-len(panels) // 2) for panels in shown.values()]
    plt.rcParams |= {"font.size": 7, "axes.spines.top": False, "axes.spines.right": False}
    figure = plt.figure(figsize=(5.4, 1.7 * sum(rows)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, height_ratios=rows)
    for part, (section, panels), count in zip(parts, shown.items(), rows, strict=True):
        part.suptitle(section, x=0.01, ha="left", fontweight="bold")
        grid = part.subplots(count, 2, squeeze=False).flatten()
        for axes in grid[len(panels) :]:
            axes.axis("off")
        for axes, (title, x, names, is_log) in zip(grid, panels, strict=False):
            draw(axes, runs, x, names)
            axes.set_title(title, loc="left", fontsize=8)
            axes.set_xlabel(x)
            axes.locator_params(axis="x", nbins=5)
            if is_log:
                axes.set_yscale("log")
                plain_log(axes.yaxis)
    handles, labels = parts[0].axes[0].get_legend_handles_labels()
    grid[-1].legend(handles, labels, loc="center", frameon=False, title="one line a setting")
    figure.savefig(HERE / "dashboard.png", dpi=160, metadata={"Software": None})


if __name__ == "__main__":
    main()
