"""Final accuracy and loss over p × split, as maps."""

from __future__ import annotations

import statistics as standard

import polars as pl

from igo.analysis import statistics
from igo.analysis.report.chart import Figure, Map
from igo.analysis.report.curves import seeds_of
from igo.analysis.report.families import Family
from igo.analysis.report.results import Results, Row
from igo.analysis.table.table import statistics_of


def maps(results: Results, family: Family) -> Figure:
    """Two maps, test accuracy and training loss, each cell with its interval."""
    rows = [results.of(setting) for setting in family.settings]
    found = {(row["p"], row["split"]): row for row in reversed(rows)}
    powers, splits = sorted({p for p, _ in found}), sorted({s for _, s in found})

    def one(title: str, metric: str, factor: float, form: str, small_is_good: bool) -> Map:
        cells = [[found.get((p, s)) for s in splits] for p in powers]
        return Map(
            title,
            [f"{p:g}" for p in powers],
            [f"{s:.4g}" for s in splits],
            "p",
            "split: share of the decay carried by η",
            [[_mean(cell, metric, factor) for cell in line] for line in cells],
            [[_text(cell, metric, factor, form) for cell in line] for line in cells],
            small_is_good,
            _spread(list(found.values()), metric) * factor,
        )

    return Figure(
        f"{family.name}_map",
        "Final accuracy over p × split",
        f"Mean over seeds ({seeds_of(results, family.settings)}) at the last epoch and half the"
        " width of its 95 % interval. split = 1 lowers the learning rate alone, split = 0 raises"
        " the batch size alone; the noise level δₘ is the same along each row.",
        _table(results, family),
        family.settings,
        maps=[
            one("test accuracy, %", "test/accuracy", 100, ".2f", small_is_good=False),
            one("training loss", "train/loss", 1, ".4f", small_is_good=True),
        ],
    )


def _spread(rows: list[Row], metric: str) -> float:
    """The median width of their intervals; 0 where none has one."""
    widths = [row[f"{metric}_high"] - row[f"{metric}_low"] for row in rows if row[f"{metric}_low"]
              is not None]  # fmt: skip
    return standard.median(widths) if widths else 0.0


def _mean(cell: Row | None, metric: str, factor: float) -> float | None:
    value = None if cell is None else cell[f"{metric}_mean"]
    return None if value is None else value * factor


def _text(cell: Row | None, metric: str, factor: float, form: str) -> str:
    mean = _mean(cell, metric, factor)
    if cell is None or mean is None:
        return "–"
    low, high = cell[f"{metric}_low"], cell[f"{metric}_high"]
    if low is None:
        return f"{mean:{form}}"
    half = float(statistics.reach(cell[f"{metric}_sd"], cell["n"])) * factor
    if high - low < 1.999 * half / factor:  # cut where a share ends
        return f"{mean:{form}}\n[{low * factor:.3g}, {high * factor:.3g}]"
    return f"{mean:{form}}\n± {half:{form}}"


def _table(results: Results, family: Family) -> pl.DataFrame:
    statistics = statistics_of(("test/accuracy", "train/loss"))
    own = results.settings.filter(pl.col("setting").is_in(family.settings))
    return own.sort("p", "split").select("p", "split", "n", *statistics, "updates_mean")
