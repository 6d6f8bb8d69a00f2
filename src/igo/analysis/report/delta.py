"""Constant noise: final accuracy and loss against δ, and whether equal δ means equal results."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from igo.analysis import statistics
from igo.analysis.report.chart import Axis, Figure, Panel, Series, Style
from igo.analysis.report.comparison import by_seed
from igo.analysis.report.curves import seeds_of
from igo.analysis.report.families import Family, noise_ratio
from igo.analysis.report.results import Results, Row
from igo.analysis.statistics import Array
from igo.analysis.style import DASHES, PALETTE
from igo.analysis.table.table import statistics_of

FEWEST_SEEDS, DRAWS = 5, 1000  # of the bootstrap
VIEWS = {
    "planned δ": Axis("δ = η√(C²/b), C² before training", log=True),
    "measured δ": Axis("δ measured in the last epoch", log=True),
    "η": Axis("learning rate η alone", log=True),
}
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
    rows = [results.of(setting) for setting in family.settings]
    table = _table(results, family, rows)
    batch_sizes = sorted({row["batch_size"] for row in rows})
    looks = {
        b: Style(PALETTE[i % len(PALETTE)], dash=i // len(PALETTE) % len(DASHES))
        for i, b in enumerate(batch_sizes)
    }
    panels = [
        Panel(VIEWS, axis, [_series(table, metric, b, looks[b]) for b in batch_sizes])
        for metric, axis in METRICS.items()
    ]
    return Figure(
        f"{family.name}_delta",
        "Constant noise: accuracy and loss against δ",
        f"Means over seeds ({seeds_of(results, family.settings)}) at the last epoch with 95 %"
        " intervals; a line for each batch size. Where the noise level alone decides, the lines"
        " lie on one another against δ, and apart against η alone. The planned δ takes one C² for"
        " all settings, the median of those measured before training"
        f" ({_variance(results, rows):.4g}), so that equal η/√b is one δ, but for whole numbers of"
        " batches (b is n/k); the measured one takes each run's own.",
        table,
        family.settings,
        panels,
        tuple(VIEWS),
    )


def equal_noise(results: Results, family: Family) -> list[EqualNoise]:
    """The groups of two or more settings with one η/√b, tested by Alexander and Govern's test."""
    groups: dict[float, list[int]] = defaultdict(list)
    for setting in family.settings:
        groups[noise_ratio(results.of(setting))].append(setting)
    found = []
    for ratio, members in sorted(groups.items()):
        known = [(s, values) for s in members if (values := _accuracies(results, s))]
        settings, samples = [s for s, _ in known], [values for _, values in known]
        if len(settings) < 2:
            continue
        found.append(
            EqualNoise(
                ratio,
                [family.labels[setting] for setting in settings],
                [sum(sample) / len(sample) for sample in samples],
                statistics.equal_means(samples),
            )
        )
    adjusted = statistics.holm([one.p for one in found])
    return [EqualNoise(**{**f.__dict__, "p_holm": p}) for f, p in zip(found, adjusted, strict=True)]


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
    by: dict[str, Callable[[Row], float]] = {
        "δ": noise_ratio,
        "η": lambda row: float(row["learning_rate"]),
        "b": lambda row: float(row["batch_size"]),
    }
    levels = {name: [level(row) for row in rows] for name, level in by.items()}
    values = by_seed(results.runs, [row["setting"] for row in rows], "test/accuracy")
    seeds = sorted(set.intersection(*(set(one) for one in values.values()))) if values else []
    if not seeds:
        return Shares({}, why="no seed is in all settings")
    table = np.array([[values[row["setting"]][seed] for seed in seeds] for row in rows])
    shares = {name: _share(table.mean(axis=1), level) for name, level in levels.items()}
    if len(seeds) < FEWEST_SEEDS:
        why = f"n = {len(seeds)} is too few for a bootstrap over seeds ({FEWEST_SEEDS})"
        return Shares(shares, why=why)
    random, wins = np.random.default_rng(0), dict.fromkeys(shares, math.inf)
    draws = [
        {name: _share(table[:, drawn].mean(axis=1), level) for name, level in levels.items()}
        for drawn in random.integers(0, len(seeds), (DRAWS, len(seeds)))
    ]
    for one, other in itertools.permutations(shares, 2):
        ahead = [(d[one] or 0) > (d[other] or 0) for d in draws]
        wins[one] = min(wins[one], sum(ahead) / DRAWS)
    best = max(wins, key=wins.__getitem__)
    if wins[best] >= 1 - statistics.LEVEL / 2:
        return Shares(shares, best)
    why = f"no share is the largest in 97.5 % of bootstrap draws of the {len(seeds)} seeds"
    return Shares(shares, why=why)


def _share(means: Array, levels: list[float]) -> float | None:
    groups: dict[float, list[float]] = defaultdict(list)
    for level, mean in zip(levels, means, strict=True):
        groups[level].append(float(mean))
    return statistics.share_explained(list(groups.values()))


def _accuracies(results: Results, setting: int) -> list[float]:
    runs = results.runs.filter("counted", setting=setting).sort("seed")
    return runs["test/accuracy"].drop_nulls().to_list()


@dataclass(frozen=True)
class _Applied:
    """What was applied, means over seeds; the measured δ of the last epoch, else of the first."""

    eta: float
    b: float  # n/k, a real number
    delta: float | None
    measured: float | None

    @property
    def variance(self) -> float | None:
        """C² as it was measured before training."""
        return None if self.delta is None else (self.delta / self.eta) ** 2 * self.b


def _applied(results: Results, setting: int) -> _Applied:
    points = results.curves.filter(setting=setting).sort("epoch")
    first = points.row(0, named=True)
    eta, b, delta = (first[f"{name}_mean"] for name in ("eta_m", "b_m", "delta_m"))
    return _Applied(eta, b, delta, points["delta_measured_mean"][-1])


def _variance(results: Results, rows: list[Row]) -> float:
    """One C² for all: the median over the settings; NaN where none is recorded."""
    found = [_applied(results, row["setting"]).variance for row in rows]
    median = pl.Series([one for one in found if one is not None], dtype=pl.Float64).median()
    return float(median) if isinstance(median, float) else math.nan


def _table(results: Results, family: Family, rows: list[Row]) -> pl.DataFrame:
    variance = _variance(results, rows)
    records = []
    for row in rows:
        applied = _applied(results, row["setting"])
        plain = row["optimizer.name"] == "sgd" and not math.isnan(variance)
        records.append(
            {
                "label": family.labels[row["setting"]],
                "eta": row["learning_rate"],
                "b": row["batch_size"],
                "b_m": applied.b,
                # with momentum δ is no multiple of η/√b: it is taken as recorded
                "delta_planned": applied.eta * math.sqrt(variance / applied.b) if plain
                else applied.delta,
                "delta_recorded": applied.delta,
                "delta_measured": applied.measured,
                "n": row["n"],
            }
            | {name: row[name] for name in statistics_of(METRICS)}
        )  # fmt: skip
    return pl.DataFrame(records).sort("b", "eta")


def _series(table: pl.DataFrame, metric: str, b: int, look: Style) -> Series:
    points = table.filter(b=b)
    return Series(
        f"b = {b}",
        look,
        {
            "planned δ": points["delta_planned"].to_list(),
            "measured δ": points["delta_measured"].to_list(),
            "η": points["eta"].to_list(),
        },
        points[f"{metric}_mean"].to_list(),
        points[f"{metric}_low"].to_list(),
        points[f"{metric}_high"].to_list(),
        markers=True,
        notes=[f"{label} (n = {n})" for label, n in points.select("label", "n").rows()],
    )
