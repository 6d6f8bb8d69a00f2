"""Constant noise: final accuracy and loss against δ, and whether equal δ means equal results."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from igo.analysis.report import numbers
from igo.analysis.report.chart import DASHES, PALETTE, Axis, Figure, Panel, Series, Style
from igo.analysis.report.curves import seeds_of
from igo.analysis.report.families import Family, noise_ratio
from igo.analysis.report.runs import Material, Row

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


def against_delta(material: Material, family: Family) -> Figure:
    """A line for each batch size: where δ alone decides, they lie on one curve."""
    rows = [material.of(setting) for setting in family.settings]
    table = _table(material, family, rows)
    batch_sizes = sorted({row["batch_size"] for row in rows})
    looks = {
        b: Style(PALETTE[i % len(PALETTE)], dash=i // len(PALETTE) % DASHES)
        for i, b in enumerate(batch_sizes)
    }
    panels = [
        Panel(VIEWS, axis, [_series(table, metric, b, looks[b]) for b in batch_sizes])
        for metric, axis in METRICS.items()
    ]
    return Figure(
        f"{family.name}_delta",
        "Constant noise: accuracy and loss against δ",
        f"Means over seeds ({seeds_of(material, family.settings)}) at the last epoch with 95 %"
        " intervals; a line for each batch size. Where the noise level alone decides, the lines"
        " lie on one another against δ, and apart against η alone. The planned δ takes one C² for"
        " all settings, the median of those measured before training"
        f" ({_variance(material, rows):.4g}), so that equal η/√b is one δ; the"
        " measured one takes each run's own.",
        table,
        family.settings,
        panels,
        tuple(VIEWS),
    )


def equal_noise(material: Material, family: Family) -> list[EqualNoise]:
    """The groups of two or more settings with one η/√b, tested by Alexander and Govern's test."""
    groups: dict[float, list[int]] = defaultdict(list)
    for setting in family.settings:
        groups[noise_ratio(material.of(setting))].append(setting)
    found = []
    for ratio, members in sorted(groups.items()):
        known = [(s, values) for s in members if (values := _accuracies(material, s))]
        settings, samples = [s for s, _ in known], [values for _, values in known]
        if len(settings) < 2:
            continue
        found.append(
            EqualNoise(
                ratio,
                [family.labels[setting] for setting in settings],
                [sum(sample) / len(sample) for sample in samples],
                numbers.equal_means(samples),
            )
        )
    adjusted = numbers.holm([one.p for one in found])
    return [EqualNoise(**{**f.__dict__, "p_holm": p}) for f, p in zip(found, adjusted, strict=True)]


def explained(material: Material, family: Family) -> dict[str, float | None]:
    """Share of the variance among the settings' mean accuracies between levels of δ, η and b."""
    rows = [material.of(setting) for setting in family.settings]
    rows = [row for row in rows if row["test/accuracy_mean"] is not None]
    by: dict[str, Callable[[Row], float]] = {
        "δ": noise_ratio,
        "η": lambda row: float(row["learning_rate"]),
        "b": lambda row: float(row["batch_size"]),
    }
    shares = {}
    for name, level in by.items():
        groups: dict[float, list[float]] = defaultdict(list)
        for row in rows:
            groups[level(row)].append(row["test/accuracy_mean"])
        shares[name] = numbers.share_explained(list(groups.values())) if rows else None
    return shares


def _accuracies(material: Material, setting: int) -> list[float]:
    runs = material.runs.filter("counted", setting=setting).sort("seed")
    return runs["test/accuracy"].drop_nulls().to_list()


def _first_last(
    material: Material, setting: int
) -> tuple[float | None, float | None, float | None]:
    """Mean δ_m and C² as planned in the first epoch, mean measured δ in the last."""
    points = material.curves.filter(setting=setting).sort("epoch")
    delta = points["delta_m_mean"][0]
    row = material.of(setting)
    variance = None if delta is None else (delta / row["learning_rate"]) ** 2 * row["batch_size"]
    return delta, variance, points["delta_measured_mean"][-1]


def _variance(material: Material, rows: list[Row]) -> float:
    """One C² for all: the median of (δ_1/η)² b over the settings; NaN where none is recorded."""
    found = [_first_last(material, row["setting"])[1] for row in rows]
    median = pl.Series([one for one in found if one is not None], dtype=pl.Float64).median()
    return float(median) if isinstance(median, float) else math.nan


def _table(material: Material, family: Family, rows: list[Row]) -> pl.DataFrame:
    variance = _variance(material, rows)
    records = []
    for row in rows:
        recorded, _, measured = _first_last(material, row["setting"])
        plain = row["optimizer.name"] == "sgd" and not math.isnan(variance)
        records.append(
            {
                "label": family.labels[row["setting"]],
                "eta": row["learning_rate"],
                "b": row["batch_size"],
                "eta_over_sqrt_b": noise_ratio(row),
                # with momentum δ is no multiple of η/√b: it is taken as recorded
                "delta_planned": noise_ratio(row) * math.sqrt(variance) if plain else recorded,
                "delta_recorded": recorded,
                "delta_measured": measured,
                "n": row["n"],
            }
            | {f"{m}_{w}": row[f"{m}_{w}"] for m in METRICS for w in ("mean", "sd", "low", "high")}
        )
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
