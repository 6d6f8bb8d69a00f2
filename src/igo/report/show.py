"""The program `igo table`: it writes the table, and prints a row for each setting."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from igo.ground.files import output_folder
from igo.ground.words import counted
from igo.report.names import labels, shared, without_delta
from igo.report.table import Row, by_setting, constants, read_runs, write
from igo.runs.find import find, is_run, named

WIDE = 120  # columns of a terminal that has room for every statistic
SHOWN = {  # statistics in the order of their importance, by factor and format
    "test/accuracy": (100, ".2f"),
    "validation/accuracy": (100, ".2f"),
    "test/loss": (1, ".4f"),
    "train/loss": (1, ".4f"),
    "updates": (1, ",.0f"),
    "seconds": (1, ",.1f"),
}
LEGEND = (
    "± is the standard deviation over seeds, [ ] the 95 % interval of the mean",
    "– under 95 %: no interval, from one seed or one value in all seeds",
    "accuracy and loss are of the last epoch; summary.csv has all statistics",
)


def run(composed: DictConfig) -> None:
    """Read the runs, write the table if there is a folder for it, print the summary."""
    names = named(composed.runs)
    runs = read_runs(find(names))
    output = None if composed.output is None else output_folder(composed.output)
    path = Path(names[0])
    if output is None and len(names) == 1 and path.is_dir() and not is_run(path):
        output = path
    paths = [] if output is None else write(runs, output)
    show_summary(runs)
    show_errors(runs)
    if paths:
        say(f"wrote {', '.join(str(path) for path in paths)}")
    else:
        say("not written: runs is not one folder of runs (output=tables writes it)")


def show_errors(runs: pl.DataFrame) -> None:
    """Print a line for each run that failed or cannot be read."""
    broken = runs.filter(pl.col("error").is_not_null())
    for name, state, error in broken.select("run", "state", "error").rows():
        say(f"{state}: {name}: {error}")


def show_summary(runs: pl.DataFrame) -> None:
    """Print what the runs have in common, and a row for each setting.

    A terminal that is not WIDE shows the test accuracy only.
    """
    console = Console(highlight=False)
    if not console.is_terminal:  # lines of any length
        console = Console(highlight=False, width=100_000)
    settings = by_setting(runs)[1]
    states = runs["state"].value_counts().sort("count", "state", descending=[True, False])
    counts = ", ".join(f"{count} {state}" for state, count in states.iter_rows())
    say(f"{counted(len(runs), 'run')} ({counts}), {counted(len(settings), 'setting')}")
    if common := constants(settings):
        text = Text(f"all: {', '.join(shared(common, common))}", style="dim")
        console.print(text, soft_wrap=not console.is_terminal)
    rows = settings.to_dicts()
    columns = {"setting": list(labels(settings).values())}
    for name in ("n", "unfinished", "repeated"):
        if name == "n" or any(row[name] for row in rows):
            columns[name] = [str(row[name]) for row in rows]
    for name in list(SHOWN) if console.width >= WIDE else ["test/accuracy"]:
        if any(row[f"{name}_mean"] is not None for row in rows):
            columns[f"{name} %" if "accuracy" in name else name] = [_shown(r, name) for r in rows]
        if name == "test/accuracy":
            columns["95 %"] = [
                "–" if row[f"{name}_low"] is None
                else f"[{100 * row[f'{name}_low']:.2f}, {100 * row[f'{name}_high']:.2f}]"
                for row in rows
            ]  # fmt: skip
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in columns:
        setting = title == "setting"
        table.add_column(
            title, justify="left" if setting else "right", no_wrap=not setting, overflow="fold"
        )
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    for line in (*LEGEND, *without_delta(settings)):
        say(line)


def say(text: str) -> None:
    """Print a line and flush."""
    print(text, flush=True)


def _shown(row: Row, name: str) -> str:
    """``mean ± sd``; a deviation of zero, as of updates, is left out."""
    factor, form = SHOWN[name]
    mean, deviation = row[f"{name}_mean"], row[f"{name}_sd"]
    if mean is None:
        return "–"
    spread = f" ± {deviation * factor:{form}}" if deviation else ""
    return f"{mean * factor:{form}}{spread}"
