"""Final accuracy and loss over p × split, as maps."""

from __future__ import annotations

import statistics as standard

import polars as pl

from igo.analysis import statistics
from igo.analysis.table.table import statistics_of
from igo.report.chart import Figure, Map
from igo.report.families import Family
from igo.report.phrases import in_range
from igo.report.results import Results, Row


def maps(results: Results, family: Family) -> Figure:
    """Two maps, test accuracy and training loss, each cell with its interval."""
    rows = [results.row(setting) for setting in family.settings]
    table = results.settings.filter(pl.col("setting").is_in(family.settings)).sort("p", "split")
    shown = statistics_of(("test/accuracy", "train/loss"))
    return Figure(
        f"{family.name}_map",
        "Final accuracy over p × split",
        f"Means over seeds (n = {in_range([row['n'] for row in rows])}) at the last epoch, ± half"
        " the 95 % interval. split = 1 lowers the learning rate alone, split = 0 raises the batch"
        " size alone. δₘ is the same along each row.",
        table.select("p", "split", "n", *shown, "updates_mean"),
        family.settings,
        maps=[
            _map(rows, "test accuracy, %", "test/accuracy", 100, ".2f"),
            _map(rows, "training loss", "train/loss", 1, ".4f"),
        ],
    )


def _map(rows: list[Row], title: str, metric: str, factor: float, form: str) -> Map:
    cells = {(row["p"], row["split"]): row for row in reversed(rows)}
    powers, splits = sorted({p for p, _ in cells}), sorted({s for _, s in cells})
    means = {place: row[f"{metric}_mean"] for place, row in cells.items()}
    widths = [
        row[f"{metric}_high"] - row[f"{metric}_low"]
        for row in rows
        if row[f"{metric}_low"] is not None
    ]
    return Map(
        title,
        [f"{p:g}" for p in powers],
        [f"{s:.4g}" for s in splits],
        "p",
        "split: share of the decay carried by η",
        [
            [None if means.get((p, s)) is None else means[p, s] * factor for s in splits]
            for p in powers
        ],
        [[_text(cells.get((p, s)), metric, factor, form) for s in splits] for p in powers],
        small_is_good=metric == "train/loss",
        spread=factor * standard.median(widths) if widths else 0.0,
    )


def _text(cell: Row | None, metric: str, factor: float, form: str) -> str:
    if cell is None or cell[f"{metric}_mean"] is None:
        return "–"
    mean, low, high = (cell[f"{metric}_{statistic}"] for statistic in ("mean", "low", "high"))
    if low is None:
        return f"{mean * factor:{form}}"
    half = float(statistics.reach(cell[f"{metric}_sd"], cell["n"]))
    if high - low < 1.999 * half:  # with_intervals has cut the interval at 0 or 1
        return f"{mean * factor:{form}}\n[{low * factor:.3g}, {high * factor:.3g}]"
    return f"{mean * factor:{form}}\n± {half * factor:{form}}"
