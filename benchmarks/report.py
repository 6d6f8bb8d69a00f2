"""The output of the benchmarks: tables on the terminal, JSON and a figure in results/."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.ratios import Row, Spread
from igo.ground.files import write_atomically

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("igo", "torch", "torchvision", "lightning", "numpy", "pillow", "wandb")
NOTE = (
    "Real images: Fashion-MNIST; the resnet18 cells read it in CIFAR-100's file format, resized to"
    " 32x32x3 with its own ten labels. The peers' workers outlive a change of batch size. A turn is"
    " an epoch of a part of the data; ratios are taken within a round."
)
OTHERS = {  # what a figure calls a contender, and its colour
    "plain": ("plain script", "#0072B2"),
    "lightning_trainer": ("Lightning", "#D55E00"),
    "bare": ("bare limit", "#777777"),
}


def facts(command: str) -> Row:
    """The command, date, commit, hardware and versions of a measurement."""
    from igo.config.schema import EngineConfig
    from igo.train import machine

    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "command": command,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit or None,
        "hardware": machine.hardware(machine.choose(EngineConfig())),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "note": NOTE,
    }


def folder() -> Path:
    """The folder of results for this kind of CPU, or for a GPU."""
    instructions = torch.backends.cpu.get_cpu_capability()
    if instructions == "AVX512" or torch.cuda.is_available():
        return RESULTS
    return RESULTS / instructions.lower()


def save(result: Row, path: Path) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False, default=asdict)
    write_atomically(path, text + "\n")


def show(title: str, rows: Sequence[Row]) -> None:
    """Print rows as a table; their keys are the columns."""
    if not rows:
        return
    table = Table(title=title, title_justify="left", header_style="bold")
    for name, value in rows[0].items():
        number = isinstance(value, int | float | Spread)
        table.add_column(name.replace("_", " "), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console = Console(highlight=False)
    # Without a terminal rich assumes 80 columns and would cut the table.
    (console if console.is_terminal else Console(width=160, highlight=False)).print(table)


def draw(results: Path, names: Sequence[str]) -> None:
    """Write contenders.png: a row for each cell that is there, a dot for each ratio of ours."""
    files = [path for name in names if (path := results / f"{name}.json").is_file()]
    if not files:
        return
    records = [json.loads(path.read_text()) for path in files]
    hardware = records[0]["facts"]["hardware"]
    name = hardware.get("gpu") or f"{hardware['cpu']}, {hardware.get('instructions', 'AVX512')}"
    figure = Figure(figsize=(7.5, 0.4 * len(files) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color="#333333", linewidth=1)
    rates = []
    for place, record in enumerate(records):
        rows = {row["contender"]: row for row in record["contenders"]}
        rates.append(Spread(**rows["ours"]["images_per_second"]).median)
        for i, (contender, (label, colour)) in enumerate(OTHERS.items()):
            ratio = Spread(**rows[contender]["ours_over_it"])
            error = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
            look: Any = {"color": colour, "fmt": "o", "markersize": 5, "capsize": 2}
            look["label"] = label if place == 0 else "_"
            axes.errorbar(ratio.median, place + 0.22 * (i - 1), xerr=error, **look)
    ticks = [f"{path.stem}: {rate:,.0f}/s" for path, rate in zip(files, rates, strict=True)]
    axes.set_yticks(range(len(files)), ticks)
    axes.invert_yaxis()
    axes.set_xlabel("igo’s images a second over those of another program: median and quartiles")
    axes.set_title(f"{name}, {hardware['threads']} CPU thread(s)", fontsize=10, loc="left")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(OTHERS), frameon=False)
    figure.savefig(results / "contenders.png", dpi=150)


def _cell(value: object) -> str:
    if isinstance(value, Spread):
        return f"{value.median:,.4g} [{value.low:,.4g}, {value.high:,.4g}]"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return str(value)
