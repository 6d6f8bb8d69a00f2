"""The program `igo table`: it writes the table, and prints a row for each setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import polars as pl
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from igo.ground.files import output_folder
from igo.ground.words import counted
from igo.report.names import (
    PARAMETERS,
    differing,
    schedule_name,
    shared,
    short,
    telling,
    why_null,
)
from igo.report.table import Row, constants, read_runs, summarise, write
from igo.runs.find import find, is_run, named

MOST_SETTINGS = 100  # rows shown; all are in summary.csv
MOST_FAILURES = 10
SHOWN = (  # statistics from the most to the least important: name, factor, format
    ("test/accuracy", 100, ".2f"),
    ("test/accuracy_best", 100, ".2f"),
    ("validation/accuracy", 100, ".2f"),
    ("test/loss", 1, ".4f"),
    ("validation/loss", 1, ".4f"),
    ("train/loss", 1, ".4f"),
    ("updates", 1, ",.0f"),
    ("seconds", 1, ",.1f"),
)
INTERVAL = "95 %"  # of the mean test accuracy
IN_WORDS = "setting"  # the title of the column that describes settings in words
LEGEND = (
    "± is the standard deviation over seeds, [ ] the 95 % interval of the mean",
    "no interval: one seed, or one value in all seeds",
    "accuracy and loss are of the last epoch, accuracy_best of the best epoch",
)
Column = tuple[str, list[str]]


def run(composed: DictConfig) -> None:
    """Read the runs, write the table if there is a folder for it, print the summary."""
    names = named(composed.runs)
    runs = read_runs(find(names))
    output = None if composed.output is None else output_folder(composed.output)
    path = Path(names[0])
    if output is None and len(names) == 1 and path.is_dir() and not is_run(path):
        output = path
    paths = [] if output is None else write(runs, output)
    show(runs)
    if paths:
        say(f"wrote {', '.join(str(path) for path in paths)}")
    else:
        say("not written: runs is not one folder of runs (output=tables writes it)")


def show(runs: pl.DataFrame) -> None:
    """Print the summary of the runs, and the errors of failed runs."""
    show_summary(runs)
    broken = runs.filter(pl.col("error").is_not_null())
    for name, state, error in broken.select("run", "state", "error").head(MOST_FAILURES).rows():
        say(f"{state}: {name}: {error}")
    if len(broken) > MOST_FAILURES:
        say(f"{len(broken) - MOST_FAILURES:,} more in table.csv")


def show_summary(runs: pl.DataFrame) -> None:
    """Print what the runs have in common, and a row for each setting.

    A terminal shows as many columns as fit, and the names of the hidden columns.
    """
    console = Console(highlight=False)
    if not console.is_terminal:  # lines of any length
        console = Console(highlight=False, width=100_000)
    summary = summarise(runs)
    states = runs["state"].value_counts().sort("count", "state", descending=[True, False])
    counts = ", ".join(f"{count} {state}" for state, count in states.iter_rows())
    say(f"{counted(len(runs), 'run')} ({counts}), {counted(len(summary), 'setting')}")
    common = constants(runs)
    if common:
        text = Text(f"all: {', '.join(shared(common, common))}", style="dim")
        console.print(text, soft_wrap=not console.is_terminal)
    columns = _columns(summary.head(MOST_SETTINGS), common, console.width)
    least = [title for title, _ in columns].index(_title(SHOWN[0][0])) + 1
    hidden: list[str] = []
    while len(columns) > least and _width(columns) > console.width:
        hidden.insert(0, columns.pop()[0])
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title, _ in columns:
        words = title == IN_WORDS
        side: Literal["left", "right"] = "left" if words else "right"
        table.add_column(Text(title), justify=side, overflow="fold", no_wrap=not words)
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    if hidden:
        say(f"columns hidden in this narrow terminal: {', '.join(hidden)} (all in summary.csv)")
    if len(summary) > MOST_SETTINGS:
        say(f"{counted(len(summary) - MOST_SETTINGS, 'more setting')} in summary.csv")
    for line in (*LEGEND, *why_null(runs)):
        say(line)


def say(text: str) -> None:
    """Print a line and flush."""
    print(text, flush=True)


def _columns(summary: pl.DataFrame, common: Row, width: int) -> list[Column]:
    """Titles and cells: the settings that differ, n, then the statistics.

    If the settings' columns leave no room for a statistic, one column describes the settings.
    """
    rows = [common | row for row in summary.to_dicts()]
    names = list(telling(summary, summary.columns[: summary.columns.index("n")]))
    by_schedule = "schedule.profile" in names  # its column then has the parameters too
    settings = [
        (short(name), [
            schedule_name(row) if name == "schedule.profile" else _value(row[name])
            for row in rows
        ])
        for name in names
        if not (by_schedule and name in PARAMETERS)
    ]  # fmt: skip
    columns = [
        (name, [str(row[name]) for row in rows])
        for name in ("n", "unfinished", "repeated")
        if name == "n" or any(row[name] for row in rows)
    ]
    for name, factor, form in SHOWN:
        if not name.startswith("validation") or any(
            row[f"{name}_mean"] is not None for row in rows
        ):
            cells = [_statistic(row, name, factor, form) for row in rows]
            columns.append((_title(name), cells))
        if name == "test/accuracy":
            if _width([*settings, *columns]) > width:
                settings = [(IN_WORDS, [", ".join(differing(row, names)) for row in rows])]
            columns.append((INTERVAL, [_interval(row) for row in rows]))
    return [*settings, *columns]


def _title(metric: str) -> str:
    return f"{metric} %" if "accuracy" in metric else metric


def _value(value: object) -> str:
    """The value as on the command line, numbers to six digits."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _statistic(row: Row, name: str, factor: float, form: str) -> str:
    """``mean ± sd``; a deviation of zero, as of updates, is left out."""
    mean, deviation = row[f"{name}_mean"], row[f"{name}_sd"]
    if mean is None:
        return "–"
    spread = f" ± {deviation * factor:{form}}" if deviation else ""
    return f"{mean * factor:{form}}{spread}"


def _interval(row: Row) -> str:
    low, high = row["test/accuracy_low"], row["test/accuracy_high"]
    return "–" if low is None else f"[{100 * low:.2f}, {100 * high:.2f}]"


def _width(columns: Sequence[Column]) -> int:
    return sum(max(len(text) for text in (title, *cells)) + 2 for title, cells in columns) - 2
