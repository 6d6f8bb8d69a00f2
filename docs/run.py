"""The figure of docs/noise.md: python docs/run.py draws docs/run.svg.

Trains the run of `make train`, or reads its record where it is finished, and draws that record.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from hydra import compose, initialize_config_dir

from igo.config.load import config_of
from igo.ground.files import CONF, write_atomically
from igo.report.draw import BLUE, INK, STYLE, VERMILION, plain_log
from igo.runs.run import run

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

TYPED = ["schedule=graduated", "p=0.5"]
PAPER, LINE = "#FFFFFF", "#B0B0B0"
COLOURS = {  # Each on white paper, and on a dark screen.
    "ink": (INK, "#DDDDDD"),
    "paper": (PAPER, "#0D1117"),
    "line": (LINE, "#50565E"),
    "first": (BLUE, "#56A9E0"),
    "second": (VERMILION, "#F28A45"),
}
AT_THE_END: Any = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
Records = list[dict[str, Any]]


def records() -> Records:
    """Each epoch of the run."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        folder = run(config_of(compose("config", [*TYPED, "tracking=none"])))
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{**epoch, "planned": epoch["eta_m"] / math.sqrt(epoch["b_m"])} for epoch in epochs]


def draw_one(axes: Axes, epochs: Records, name: str, title: str, scale: float = 1) -> None:
    """One quantity, its last value at the line's end; in red with its interval if it has one."""
    number = [record["epoch"] for record in epochs]
    values = [scale * record[name] for record in epochs]
    colour = VERMILION if f"{name}_low" in epochs[0] else BLUE
    if colour == VERMILION:
        axes.set_yscale("log")
        low, high = ([record[f"{name}_{end}"] for record in epochs] for end in ("low", "high"))
        low, high = (np.array(end, dtype=float) for end in (low, high))  # NaN: no interval
        axes.fill_between(number, low, high, color=colour, alpha=0.2, lw=0)
        axes.set_ylim(min(values) / 3, max(values) * 3)  # an interval may go far beyond
    axes.plot(number, values, color=colour)
    axes.annotate(f"{values[-1]:.3g}", (number[-1], values[-1]), color=colour, **AT_THE_END)
    axes.set_title(title, loc="left")


def with_both_themes(svg: str) -> str:
    """The drawing with colours that follow the reader's theme, and light ones without one."""
    for name, (colour, _) in COLOURS.items():
        svg = svg.replace(colour.lower(), f"var(--{name}, {colour})")
    light, dark = (
        ";".join(f"--{name}:{colours[theme]}" for name, colours in COLOURS.items())
        for theme in (0, 1)
    )
    style = f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    start = svg.index(">", svg.index("<svg")) + 1
    return svg[:start] + style + svg[start:]


def main() -> None:
    """Draw the figure."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    epochs = records()
    inked = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    lined = dict.fromkeys(("axes.edgecolor", "grid.color"), LINE)
    blank = dict.fromkeys(("figure.facecolor", "axes.facecolor"), PAPER)
    with mpl.rc_context({**STYLE, **inked, **lined, **blank, "svg.hashsalt": "igo"}):
        figure, axes = plt.subplots(3, 2, figsize=(5, 5.4), layout="constrained", sharex=True)
        (planned, rates), (variance, batches), (noise, accuracy) = axes
        planned.set_yscale("log")
        draw_one(planned, epochs, "planned", "planned: $\\eta_m/\\sqrt{b_m}$")
        draw_one(variance, epochs, "gradient_variance", "measured: $C^2$")
        draw_one(noise, epochs, "delta_measured", "$\\delta = \\eta_m\\sqrt{C^2/b_m}$")
        draw_one(rates, epochs, "eta_m", "learning rate $\\eta_m$")
        draw_one(batches, epochs, "b_m", "batch size $b_m$")
        draw_one(accuracy, epochs, "test/accuracy", "test accuracy, %", 100)
        for below in axes[-1]:
            below.set(xlabel="epoch")
        for panel in figure.axes:
            panel.margins(x=0.01)
        plain_log(planned.yaxis)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    write_atomically(Path(__file__).with_suffix(".svg"), with_both_themes(file.getvalue()))


if __name__ == "__main__":
    main()
