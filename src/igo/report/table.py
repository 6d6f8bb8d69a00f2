"""The program `igo table`: it writes the table, and prints a row for each setting."""

from pathlib import Path

import polars as pl
from omegaconf import DictConfig
from polars import DataFrame
from rich.console import Console
from rich.table import Table
from rich.text import Text

from igo.ground.errors import counted
from igo.ground.files import Record, output_folder
from igo.report.differences import number, ratio
from igo.report.names import labels, shared, without_delta
from igo.report.reading import TOTALS, by_setting, constants, read_runs, write
from igo.report.results import mixed
from igo.report.target import NEEDED, check_target, needed, with_target
from igo.runs.find import find, is_run, named

LEGEND = (
    "seeds: finished runs, (+k): k more did not finish; ± is the standard deviation over seeds",
    "[ ] is the 95 % interval of the mean, –: none, from one seed or one value in all seeds",
    "accuracy and loss are of the last epoch; summary.csv has all statistics",
)


def run(composed: DictConfig) -> None:
    """Read the runs, write the table if there is a folder for it, print the summary."""
    names = named(composed.runs)
    check_target(composed.get("target"))
    folders = find(names)
    runs, settings = by_setting(read_runs(folders))
    runs = with_target(runs, folders, composed.get("target"))
    output = None if composed.output is None else output_folder(composed.output)
    path = Path(names[0])
    # A table of one folder of runs belongs into it; one of a single run, or of several folders, has
    # no place of its own.
    if output is None and len(names) == 1 and path.is_dir() and not is_run(path):
        output = path
    show(runs, settings)  # It comes first, as the folder may be another user's.
    show_errors(runs)
    if output:
        print(f"wrote {', '.join(map(str, write(runs, settings, output)))}")
    else:
        print("not written: runs is not one folder of runs (output=tables writes it)")


def states(runs: DataFrame) -> str:
    """How many runs have each state, the most first."""
    counts = runs["state"].value_counts().sort("count", "state", descending=[True, False])
    return ", ".join(f"{count:,} {state}" for state, count in counts.iter_rows())


def show_errors(runs: DataFrame) -> None:
    """Print a line for each run that failed or cannot be read."""
    rows = runs.filter(pl.col("error").is_not_null())
    for name, state, error in rows.select("run", "state", "error").rows():
        print(f"{state}: {name}: {error}")


def show(runs: DataFrame, settings: DataFrame) -> None:
    """Print what the runs have in common, and a row for each setting, see ``by_setting``."""
    console = Console(highlight=False)
    if not console.is_terminal:  # Lines in a file may have any length.
        console = Console(highlight=False, width=100_000)
    print(f"{counted(len(runs), 'run')} ({states(runs)}), {counted(len(settings), 'setting')}")
    if settings_of_all := constants(settings):
        text = ", ".join(shared(settings_of_all, settings_of_all))
        console.print(
            Text(f"all: {text}", style="dim"),
            soft_wrap=not console.is_terminal,
        )
    names = labels(settings)
    table = _table("setting", "seeds", "test/accuracy %", "95 %", "train/loss")
    for row in settings.to_dicts():
        # Rich would take what stands in brackets for markup, but not in a Text.
        low, high = row["test/accuracy_low"], row["test/accuracy_high"]
        table.add_row(
            Text(names[row["setting"]]),
            f"{row['n']} (+{row['unfinished']})" if row["unfinished"] else f"{row['n']}",
            _shown(row, "test/accuracy", ".2f", 100),
            "–" if low is None else Text(f"[{100 * low:.2f}, {100 * high:.2f}]"),
            _shown(row, "train/loss", ".4f"),
        )
    console.print(table)
    _show_totals(console, settings.filter(pl.col("n") > 0).to_dicts(), names)
    if {*NEEDED} <= {*runs.columns}:
        _show_needed(console, runs, names)
    for line in (*LEGEND, *without_delta(settings), *mixed(runs, names)):
        print(line)


def _show_totals(console: Console, rows: list[Record], labels: dict[int, str]) -> None:
    """Print what else differs between the rows of settings, and what is equal in all."""
    ratios = {name: {ratio(name, row, rows[0]) for row in rows} for name in TOTALS if rows}
    equal = [name for name, values in ratios.items() if values == {""}]
    columns = [name for name, values in ratios.items() if values > {""}]
    if columns:
        table = _table("what differs", *(TOTALS[name] for name in columns))
        for row in rows:
            totals = (number(row[f"{name}_mean"]) for name in columns)
            table.add_row(Text(labels[row["setting"]]), *totals)
        console.print(table)
    if equal:
        totals = (f"{TOTALS[name]} {number(rows[0][f'{name}_mean'])}" for name in equal)
        console.print(f"equal in all: {', '.join(totals)}")


def _show_needed(console: Console, runs: DataFrame, labels: dict[int, str]) -> None:
    """Print what each setting needs to reach the target."""
    table = _table("median to the target", "reached by", *NEEDED.values())
    for setting, label in labels.items():
        texts = needed(runs, setting).values()
        table.add_row(Text(label), *map(Text, texts))
    console.print(table)


def _table(first: str, *titles: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, overflow="fold")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _shown(row: Record, name: str, form: str, factor: int = 1) -> str:
    """``mean ± sd``; a deviation of zero is left out."""
    mean, deviation = row[f"{name}_mean"], row[f"{name}_sd"]
    if mean is None:
        return "–"
    spread = f" ± {deviation * factor:{form}}" if deviation else ""
    return f"{mean * factor:{form}}{spread}"
