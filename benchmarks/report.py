"""The output of the benchmarks: tables on the terminal, JSON and a figure in results/."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.ratios import Row, Spread
from igo.ground.files import write_atomically

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("igo", "torch", "torchvision", "timm", "numpy", "pillow")
NOTE = (
    "Real images: Fashion-MNIST, resized to 32x32x3 where the model is CIFAR's. Ratios are"
    " taken within a round."
)


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


def save(result: Row, path: Path) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False, default=asdict)
    write_atomically(path, text + "\n")


def show(title: str, rows: Sequence[Row]) -> None:
    """Print rows as a table; their keys are the columns."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for name, value in rows[0].items():
        number = isinstance(value, int | float | Spread)
        table.add_column(name.replace("_", " "), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    # Without a terminal rich assumes 80 columns and would cut the table.
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(table)


def _cell(value: object) -> str:
    if isinstance(value, Spread):
        return f"{value.median:,.4g} [{value.low:,.4g}, {value.high:,.4g}]"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return str(value)
