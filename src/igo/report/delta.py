"""Constant noise: final accuracy and loss against δ, and whether equal δ means equal results."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import polars as pl

from igo.analysis import statistics
from igo.analysis.statistics import Array
from igo.analysis.table.table import statistics_of
from igo.report import comparison
from igo.report.chart import Axis, Figure, Panel, Series, look, points
from igo.report.families import Family, noise_ratio
from igo.report.phrases import in_range
from igo.report.results import Results

FEWEST_SEEDS, DRAWS = 5, 1000  # of the bootstrap
VIEWS = {
    "planned δ": Axis("δ = η√(C²/b), C² before training", log=True),
    "measured δ": Axis("δ measured in the last epoch", log=True),
    "η": Axis("learning rate η alone", log=True),
}
COLUMNS = {"planned δ": "delta_planned", "measured δ": "delta_measured", "η": "eta"}
METRICS = {
    "test/accuracy": Axis("test accuracy, %", percent=True),
    "train/loss": Axis("training loss", log=True),
}


@dataclass(frozen=True)
class EqualNoise:
    """Settings of one η/√b: their labels, their means, and p of "all means are equal"."""

    labels: list[str]
    means: list[float]
    p: float | None
    p_holm: float | None


def against_delta(results: Results, family: Family) -> Figure:
    """A line for each batch size. If δ alone decides, all lines lie on one curve."""
    table = _table(results, family)
    by_batch_size = table.partition_by("b", maintain_order=True)
    panels = [
        Panel(VIEWS, axis, [_series(rows, metric, i) for i, rows in enumerate(by_batch_size)])
        for metric, axis in METRICS.items()
    ]
    return Figure(
        f"{family.name}_delta",
        "Constant noise: accuracy and loss against δ",
        f"Means over seeds (n = {in_range(table['n'].to_list())}) at the last epoch with 95 %"
        " intervals; a line for each batch size. If the noise level alone decides, the lines lie on"
        " one another against δ. The planned δ takes one C² for all settings, the median of those"
        " measured before training; the measured δ takes each run’s own.",
        table,
        family.settings,
        panels,
        tuple(VIEWS),
    )


def _series(rows: pl.DataFrame, metric: str, index: int) -> Series:
    notes = [f"{label} (n = {n})" for label, n in rows.select("label", "n").rows()]
    numbers = points(rows, metric, COLUMNS)
    return Series(f"b = {rows['b'][0]}", look(index), **numbers, markers=True, notes=notes)


def equal_noise(results: Results, family: Family) -> list[EqualNoise]:
    """Test each group of two or more settings with one η/√b (Alexander and Govern's test)."""
    values = comparison.by_seed(results.runs, family.settings, "test/accuracy")
    samples: dict[float, dict[str, list[float]]] = defaultdict(dict)
    for setting in family.settings:
        if by_seed := values[setting]:
            sample = [by_seed[seed] for seed in sorted(by_seed)]
            samples[noise_ratio(results.row(setting))][family.labels[setting]] = sample
    groups = [group for _, group in sorted(samples.items()) if len(group) > 1]
    p_values = [statistics.equal_means([*group.values()]) for group in groups]
    return [
        EqualNoise(list(group), [sum(x) / len(x) for x in group.values()], p, p_holm)
        for group, p, p_holm in zip(groups, p_values, statistics.holm(p_values), strict=True)
    ]


@dataclass(frozen=True)
class Shares:
    """How much of the variance of the settings' mean accuracies δ, η and b explain.

    Attributes:
        by_name: for δ, η and b, the share of the variance between its levels.
        best: the name that explains more than each of the others in 97.5 % of the bootstrap's
            draws of seeds; None if no name does.
        why: why ``best`` is None.
    """

    by_name: dict[str, float | None]
    best: str | None = None
    why: str = ""


def explained(results: Results, family: Family) -> Shares:
    """The shares, over the seeds that all settings have; a bootstrap decides which is largest."""
    rows = [results.row(setting) for setting in family.settings]
    rows = [row for row in rows if row["test/accuracy_mean"] is not None]
    levels = {
        "δ": [noise_ratio(row) for row in rows],
        "η": [float(row["learning_rate"]) for row in rows],
        "b": [float(row["batch_size"]) for row in rows],
    }
    values = comparison.by_seed(results.runs, [row["setting"] for row in rows], "test/accuracy")
    seeds = sorted(set.intersection(*map(set, values.values()))) if values else []
    if not seeds:
        return Shares({}, why="no seed is in all settings")
    table = np.array([[values[row["setting"]][seed] for seed in seeds] for row in rows])
    shares = {name: _share(table.mean(axis=1), level) for name, level in levels.items()}
    if len(seeds) < FEWEST_SEEDS:
        return Shares(shares, why=f"the bootstrap needs {FEWEST_SEEDS} seeds, not {len(seeds)}")
    resampled = np.random.default_rng(0).integers(0, len(seeds), (DRAWS, len(seeds)))
    draws = {
        name: np.array([_share(table[:, draw].mean(axis=1), level) or 0.0 for draw in resampled])
        for name, level in levels.items()
    }
    wins = {
        name: min(float((draws[name] > draws[other]).mean()) for other in draws if other != name)
        for name in draws
    }
    best = max(wins, key=wins.__getitem__)
    if wins[best] >= 1 - statistics.LEVEL / 2:
        return Shares(shares, best)
    return Shares(shares, why="none explains most in 97.5 % of bootstrap draws")


def _share(means: Array, levels: list[float]) -> float | None:
    groups: dict[float, list[float]] = defaultdict(list)
    for level, mean in zip(levels, means, strict=True):
        groups[level].append(float(mean))
    return statistics.share_explained(list(groups.values()))


def _table(results: Results, family: Family) -> pl.DataFrame:
    """A row for each setting. ``delta_planned`` uses the median of C² for all settings."""
    by_setting = results.curves.sort("setting", "epoch").group_by("setting", maintain_order=True)
    applied = by_setting.agg(
        pl.col("b_m_mean").first().alias("b_m"),
        pl.col("eta_m_mean").first().alias("eta_m"),
        pl.col("delta_m_mean").first().alias("delta_recorded"),
        pl.col("delta_measured_mean").last().alias("delta_measured"),
    )
    rows = family.labelled.join(results.settings, on="setting").join(applied, on="setting")
    variance = ((pl.col("delta_recorded") / pl.col("eta_m")) ** 2 * pl.col("b_m")).median()
    planned = pl.col("eta_m") * (variance / pl.col("b_m")).sqrt()
    # With momentum δ is not proportional to η/√b, so the recorded δ is taken.
    is_plain_sgd = (pl.col("optimizer.name") == "sgd") & planned.is_not_null()
    return rows.select(
        "label",
        pl.col("learning_rate").alias("eta"),
        pl.col("batch_size").alias("b"),
        "b_m",
        pl.when(is_plain_sgd).then(planned).otherwise("delta_recorded").alias("delta_planned"),
        "delta_recorded",
        "delta_measured",
        "n",
        *statistics_of(METRICS),
    ).sort("b", "eta")
