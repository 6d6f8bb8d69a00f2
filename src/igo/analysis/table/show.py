"""The summary of many runs as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from igo.analysis.table.names import (
    PARAMETERS,
    differing,
    schedule_name,
    shared,
    short,
    telling,
    why_null,
)
from igo.analysis.table.record import Row
from igo.analysis.table.table import constants, summarise
from igo.ground.words import counted

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
GAP = 2  # between columns
INTERVAL = "95 %"  # the title of each column of intervals
IN_WORDS = "setting"  # the title of the column that describes settings in words
Column = tuple[str, list[str]]


def show(runs: pl.DataFrame) -> None:
    """Print the summary of the runs, and the errors of failed runs."""
    show_summary(runs)
    _show_failures(runs)


def show_summary(runs: pl.DataFrame) -> None:
    """Print what the runs have in common, and a row for each setting.

    A terminal shows as many columns as fit, and the names of the hidden columns.
    """
    console = _console()
    summary = summarise(runs)
    states = runs["state"].value_counts().sort("count", "state", descending=[True, False])
    counts = ", ".join(f"{count} {state}" for state, count in states.iter_rows())
    say(f"{counted(len(runs), 'run')} ({counts}), {counted(len(summary), 'setting')}")
    common = constants(runs)
    if len(common):
        text = Text(f"all: {', '.join(shared(common, common))}", style="dim")
        console.print(text, soft_wrap=not console.is_terminal)
    columns = _columns(summary.head(MOST_SETTINGS), common, console.width)
    shown, left_out = _fitting(columns, console.width)
    console.print(_table(shown))
    if left_out:
        say(f"columns hidden in this narrow terminal: {', '.join(left_out)} (all in summary.csv)")
    if len(summary) > MOST_SETTINGS:
        say(f"{counted(len(summary) - MOST_SETTINGS, 'more setting')} in summary.csv")
    _legend([title for title, _ in shown], summary)
    for reason in why_null(runs):
        say(reason)


def _legend(titles: Sequence[str], summary: pl.DataFrame) -> None:
    has_intervals, has_best = INTERVAL in titles, _title("test/accuracy_best") in titles
    interval = ", [ ] the 95 % interval of the mean" if has_intervals else ""
    say(f"± is the standard deviation over seeds{interval}")
    best = ", accuracy_best of the best epoch" if has_best else ""
    say(f"accuracy and loss are of the last epoch{best}")
    accuracy = summary.select("test/accuracy_mean", "test/accuracy_low").rows()
    if has_intervals and any(mean is not None and low is None for mean, low in accuracy):
        say("no interval: one seed, or one value in all seeds")


def say(text: str) -> None:
    """Print a line and flush."""
    print(text, flush=True)


def _console() -> Console:
    """The terminal with its width; lines of any length for a file or a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=100_000)


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
    counts = [
        (name, [str(row[name]) for row in rows])
        for name in ("n", "unfinished", "repeated")
        if name == "n" or any(row[name] for row in rows)
    ]
    statistics: list[Column] = []
    for name, factor, form in SHOWN:
        if name.startswith("validation") and all(row[f"{name}_mean"] is None for row in rows):
            continue  # nothing was held out
        statistics.append((_title(name), [_statistic(row, name, factor, form) for row in rows]))
        if name != "updates":  # updates follow from the settings
            statistics.append((INTERVAL, [_interval(row, name, factor, form) for row in rows]))
    if _width([*settings, *counts, statistics[0]]) > width:
        settings = [(IN_WORDS, [", ".join(differing(row, names)) for row in rows])]
    return [*settings, *counts, *statistics]


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


def _interval(row: Row, name: str, factor: float, form: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "–" if low is None else f"[{low * factor:{form}}, {high * factor:{form}}]"


def _fitting(columns: Sequence[Column], width: int) -> tuple[Sequence[Column], list[str]]:
    """The columns that fit, at least up to the first statistic, and the titles of the others."""
    titles = [title for title, _ in columns]
    end = titles.index(_title(SHOWN[0][0])) + 1
    while end < len(columns) and _width(columns[: end + 1]) <= width:
        end += 1
    return columns[:end], [title for title in titles[end:] if title != INTERVAL]


def _width(columns: Sequence[Column]) -> int:
    widths = [max(len(text) for text in (title, *cells)) + GAP for title, cells in columns]
    return sum(widths) - GAP


def _table(columns: Sequence[Column]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0))
    for title, _ in columns:
        side: Literal["left", "right"] = "left" if title == IN_WORDS else "right"
        table.add_column(Text(title), justify=side, overflow="fold", no_wrap=side == "right")
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _show_failures(runs: pl.DataFrame) -> None:
    broken = runs.filter(pl.col("error").is_not_null())
    for name, state, error in broken.select("run", "state", "error").head(MOST_FAILURES).rows():
        say(f"{state}: {name}: {error}")
    if len(broken) > MOST_FAILURES:
        say(f"{len(broken) - MOST_FAILURES:,} more in table.csv")
