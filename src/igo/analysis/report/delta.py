"""Constant noise: final accuracy and loss against δ, and whether equal δ means equal results."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from igo.analysis import statistics
from igo.analysis.report.chart import Axis, Figure, Panel, Series, look, points
from igo.analysis.report.comparison import by_seed
from igo.analysis.report.families import Family, noise_ratio
from igo.analysis.report.phrases import in_range
from igo.analysis.report.results import Results
from igo.analysis.statistics import Array
from igo.analysis.table.table import statistics_of

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
    """Settings of one η/√b: their labels, means and the p-value of equal mean accuracy."""

    ratio: float
    labels: list[str]
    means: list[float]
    p: float | None
    p_holm: float | None = None


def against_delta(results: Results, family: Family) -> Figure:
    """A line for each batch size: where δ alone decides, they lie on one curve."""
    table = _table(results, family)
    of_b = table.partition_by("b", maintain_order=True)
    panels = [
        Panel(VIEWS, axis, [_series(own, metric, i) for i, own in enumerate(of_b)])
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


def _series(table: pl.DataFrame, metric: str, index: int) -> Series:
    notes = [f"{label} (n = {n})" for label, n in table.select("label", "n").rows()]
    numbers = points(table, metric, COLUMNS)
    return Series(f"b = {table['b'][0]}", look(index), **numbers, markers=True, notes=notes)


def equal_noise(results: Results, family: Family) -> list[EqualNoise]:
    """The groups of two or more settings with one η/√b, tested by Alexander and Govern's test."""
    values = by_seed(results.runs, family.settings, "test/accuracy")
    groups: dict[float, list[int]] = defaultdict(list)
    for setting in family.settings:
        if values[setting]:
            groups[noise_ratio(results.of(setting))].append(setting)
    found = []
    for ratio, members in sorted(groups.items()):
        if len(members) > 1:
            samples = [
                [own[seed] for seed in sorted(own)] for own in map(values.get, members) if own
            ]
            found.append(
                EqualNoise(
                    ratio,
                    [family.labels[setting] for setting in members],
                    [sum(sample) / len(sample) for sample in samples],
                    statistics.equal_means(samples),
                )
            )
    adjusted = statistics.holm([one.p for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, adjusted, strict=True)]


@dataclass(frozen=True)
class Shares:
    """Share of the variance among settings' mean accuracies between levels of δ, η and b.

    ``of`` by name; ``best`` explains more than each of the others in 97.5 % of the bootstrap's
    draws of seeds, None where none does, and then ``why``.
    """

    of: dict[str, float | None]
    best: str | None = None
    why: str = ""


def explained(results: Results, family: Family) -> Shares:
    """The shares, over the seeds that all settings have, and which is the largest by bootstrap."""
    rows = [results.of(setting) for setting in family.settings]
    rows = [row for row in rows if row["test/accuracy_mean"] is not None]
    levels = {
        "δ": [noise_ratio(row) for row in rows],
        "η": [float(row["learning_rate"]) for row in rows],
        "b": [float(row["batch_size"]) for row in rows],
    }
    values = by_seed(results.runs, [row["setting"] for row in rows], "test/accuracy")
    seeds = sorted(set.intersection(*(set(one) for one in values.values()))) if values else []
    if not seeds:
        return Shares({}, why="no seed is in all settings")
    table = np.array([[values[row["setting"]][seed] for seed in seeds] for row in rows])
    shares = {name: _share(table.mean(axis=1), level) for name, level in levels.items()}
    if len(seeds) < FEWEST_SEEDS:
        return Shares(shares, why=f"a bootstrap takes {FEWEST_SEEDS} seeds, here are {len(seeds)}")
    drawn = np.random.default_rng(0).integers(0, len(seeds), (DRAWS, len(seeds)))
    draws = {
        name: np.array([_share(table[:, own].mean(axis=1), level) or 0.0 for own in drawn])
        for name, level in levels.items()
    }
    wins = {
        one: min(float((draws[one] > draws[other]).mean()) for other in draws if other != one)
        for one in draws
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
    """A row a setting; ``delta_planned`` takes one C² for all, the median of those recorded."""
    own = results.curves.sort("setting", "epoch").group_by("setting", maintain_order=True)
    applied = own.agg(
        pl.col("b_m_mean").first().alias("b_m"),
        pl.col("eta_m_mean").first().alias("eta_m"),
        pl.col("delta_m_mean").first().alias("delta_recorded"),
        pl.col("delta_measured_mean").last().alias("delta_measured"),
    )
    rows = family.labelled.join(results.settings, on="setting").join(applied, on="setting")
    variance = ((pl.col("delta_recorded") / pl.col("eta_m")) ** 2 * pl.col("b_m")).median()
    planned = pl.col("eta_m") * (variance / pl.col("b_m")).sqrt()
    # With momentum δ is no multiple of η/√b: it is taken as recorded.
    plain = (pl.col("optimizer.name") == "sgd") & planned.is_not_null()
    return rows.select(
        "label",
        pl.col("learning_rate").alias("eta"),
        pl.col("batch_size").alias("b"),
        "b_m",
        pl.when(plain).then(planned).otherwise("delta_recorded").alias("delta_planned"),
        "delta_recorded",
        "delta_measured",
        "n",
        *statistics_of(METRICS),
    ).sort("b", "eta")
