"""The program `igo table`: it prints a row for each setting."""

from collections.abc import Iterable, Sequence

from omegaconf import DictConfig
from polars import DataFrame, col
from rich.console import Console
from rich.table import Table
from rich.text import Text

from igo.ground.errors import counted
from igo.ground.files import Record
from igo.report.comparison import ratio
from igo.report.formats import fixed, interval, number
from igo.report.provenance import mixed
from igo.report.results import Results, read_results
from igo.report.settings import TOTALS, constants, labels, shared, without_delta
from igo.runs.find import find, named

LEGEND = (
    "seeds: finished, each once; (+k): k did not finish; ± is the standard deviation over seeds",
    "[ ] is the 95 % interval of the mean, –: none, from one seed or one value in all seeds",
    "accuracy and loss are of the last epoch; igo report writes all statistics as CSV, too",
)


def run(composed: DictConfig) -> None:
    """Read the runs, and print their table."""
    results = read_results(find(named(composed.runs)))
    print_summary(results)
    show_errors(results.runs)


def states(runs: DataFrame) -> str:
    """How many runs have each state, the most first."""
    counts = runs["state"].value_counts().sort("count", "state", descending=[True, False])
    return ", ".join(f"{count:,} {state}" for state, count in counts.iter_rows())


def show_errors(runs: DataFrame) -> None:
    """Print a line for each run that failed or cannot be read."""
    rows = runs.filter(col("error").is_not_null())
    for name, state, error in rows.select("run", "state", "error").rows():
        print(f"{state}: {name}: {error}")


def print_summary(results: Results) -> None:
    """Print what the runs have in common, a row for each setting, what else differs, and notes."""
    runs, settings = results.runs, results.settings
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 100_000  # Lines in a file may have any length.
    print(f"{counted(len(runs), 'run')} ({states(runs)}), {counted(len(settings), 'setting')}")
    in_common = constants(settings)
    if in_common:
        text = ", ".join(shared(row=in_common, names=in_common.keys()))
        console.print(Text(f"all: {text}", style="dim"))
    names = labels(settings)
    rows = settings.to_dicts()
    cells: list[tuple[str, ...]] = [
        (
            names[row["setting"]],
            f"{row['n']} (+{row['unfinished']})" if row["unfinished"] else f"{row['n']}",
            _mean_and_sd(row, "test/accuracy", ".2f", 100),
            interval(row["test/accuracy_low"], row["test/accuracy_high"]) or "–",
            _mean_and_sd(row, "train/loss", ".4f"),
        )
        for row in rows
    ]
    _print(console, ("setting", "seeds", "test/accuracy %", "95 %", "train/loss"), cells)
    _show_totals(console, [row for row in rows if row["n"]], names)
    # Sentences: why some settings have no δ, and which code and versions were mixed.
    notes = [*without_delta(settings), *mixed(runs.filter("counted"))]
    for line in (*LEGEND, *notes):
        print(line)


def _show_totals(console: Console, rows: list[Record], labels: dict[int, str]) -> None:
    """Print a table of the TOTALS that differ between rows of settings, and a line of the others.

    A total that is 0 or not known in the first row is left out, and so is every total if there are
    no rows. ``labels`` has a label for each setting.
    """
    columns, equal = [], []
    for name, words in TOTALS.items():
        # The first row's ratio to itself is 1, or None where there is none.
        ratios = {ratio(name, row, rows[0]) for row in rows}
        if ratios == {1}:
            equal.append(f"{words} {number(rows[0][f'{name}_mean'])}")
        elif 1 in ratios:
            columns.append(name)
    if columns:
        cells = [
            (labels[row["setting"]], *(number(row[f"{name}_mean"]) for name in columns))
            for row in rows
        ]
        _print(console, ("what differs", *(TOTALS[name] for name in columns)), cells)
    if equal:
        console.print(f"equal in all: {', '.join(equal)}")


def _print(console: Console, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, whose first column has labels, and whose others have numbers."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(titles[0], overflow="fold")
    for title in titles[1:]:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        # Rich would take what stands in brackets for markup, but not in a Text.
        table.add_row(*map(Text, row))
    console.print(table)


def _mean_and_sd(row: Record, metric: str, form: str, factor: int = 1) -> str:
    """``mean ± sd`` of a metric, as ``fixed`` writes them, without an sd that is 0 or null."""
    mean, deviation = row[f"{metric}_mean"], row[f"{metric}_sd"]
    return fixed(mean, form, factor) + (f" ± {fixed(deviation, form, factor)}" if deviation else "")
