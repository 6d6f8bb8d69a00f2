"""Sharpness, δ and accuracy against each other, for runs that have a sharpness.json."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from igo.analysis import statistics
from igo.analysis.style import PALETTE
from igo.analysis.table.table import means, statistics_of, with_intervals
from igo.report import chart, families
from igo.report.chart import Axis, Figure, Panel, Series
from igo.report.families import Family
from igo.report.phrases import in_range
from igo.report.results import SHARPNESS, Results

NAMES = {"worst_case": "adaptive worst-case sharpness"}
ACCURACY = "test/accuracy"
# Settings that differ in these are not compared.
TASK = ("dataset.name", "dataset.samples", "model.name", "model.width")


@dataclass(frozen=True)
class Correlation:
    """A measure of sharpness: its figure, and Spearman's ρ with test accuracy over settings.

    ``rho`` is None for fewer than four settings, or if all are equal. ``within`` is Spearman's ρ
    over runs after the mean of each run's setting is subtracted.
    """

    name: str
    figure: Figure
    rho: float | None
    p: float | None
    settings: int
    within: float | None


def sharpness(results: Results) -> list[Correlation]:
    """A correlation for each task (see TASK) and each measure that two of its settings have."""
    correlations: list[Correlation] = []
    for measure in SHARPNESS:
        measured = results.runs.filter("counted", pl.col(measure).is_not_null())["setting"].unique()
        usable = results.settings.filter(pl.col("setting").is_in(measured.to_list()))
        free = [name for name in families.names_in(usable) if name not in TASK]
        groups = families.of_kind("sharpness", usable, free, lambda _: True, lambda r: len(r) > 1)
        for family in groups:
            points = _points(results, family, measure)
            figure = _figure(points, family, measure)
            over_settings = _over_settings(points, measure)
            over_runs = _over_runs(results, family, measure)
            correlations.append(Correlation(NAMES[measure], figure, *over_settings, over_runs))
    return correlations


def _over_runs(results: Results, family: Family, measure: str) -> float | None:
    names = (measure, ACCURACY)
    runs = results.runs.filter(
        "counted",
        pl.col("setting").is_in(family.settings),
        *(pl.col(n).is_not_null() for n in names),
    )
    centred = runs.select("setting", *(pl.col(n) - pl.col(n).mean().over("setting") for n in names))
    centred = centred.filter(pl.len().over("setting") > 1)
    if len(centred) < 4 or min(centred[name].n_unique() for name in names) < 2:
        return None
    return float(centred.select(pl.corr(*names, method="spearman")).item())


def _figure(points: pl.DataFrame, family: Family, measure: str) -> Figure:
    lowest = points[f"{measure}_mean"].min()
    axes = {
        "delta": Axis("δₘ, mean over epochs", log=True),
        measure: Axis(NAMES[measure], log=isinstance(lowest, float) and lowest > 0),
        ACCURACY: Axis("test accuracy, %", percent=True),
    }
    pairs = (("delta", measure), (measure, ACCURACY), ("delta", ACCURACY))
    return Figure(
        f"{family.name}_{measure}",
        f"{NAMES[measure][:1].upper()}{NAMES[measure][1:]}, δ and test accuracy",
        f"Means of {len(points)} settings over their seeds (n = {in_range(points['n'].to_list())})"
        " with 95 % intervals.",
        points.drop("setting"),
        family.settings,
        [Panel({"": axes[x]}, axes[y], _series(points, x, y)) for x, y in pairs],
    )


def _points(results: Results, family: Family, measure: str) -> pl.DataFrame:
    """A row for each setting: label, n, mean and interval of δ, sharpness and accuracy."""
    metrics = ("delta", measure, ACCURACY)
    level = results.epochs.group_by("setting", "seed").agg(pl.col("delta_m").mean().alias("delta"))
    runs = results.runs.filter(
        "counted", pl.col("setting").is_in(family.settings), pl.col(measure).is_not_null()
    ).join(level, on=["setting", "seed"], how="left")
    by_setting = runs.group_by("setting").agg(pl.len().cast(pl.Int64).alias("n"), *means(metrics))
    summary = with_intervals(by_setting, metrics)
    points = family.labelled.join(summary, on="setting", maintain_order="left")
    return points.select("setting", "label", "n", *statistics_of(metrics))


def _series(points: pl.DataFrame, x: str, y: str) -> list[Series]:
    """A series for each setting if there are enough colours, else one series for all."""
    groups = points.partition_by("setting") if len(points) <= len(PALETTE) else [points]
    return [
        Series(
            group["label"][0] if len(groups) > 1 else "settings",
            chart.look(i),
            **chart.points(group, y, {"": f"{x}_mean"}),
            line=False,
            markers=True,
            notes=[f"{label} (n = {n})" for label, n in group.select("label", "n").rows()],
        )
        for i, group in enumerate(groups)
    ]


def _over_settings(points: pl.DataFrame, measure: str) -> tuple[float | None, float | None, int]:
    """``rho``, ``p`` and ``settings`` of a Correlation."""
    both = points.select(f"{measure}_mean", f"{ACCURACY}_mean").drop_nulls()
    if len(both) < 4 or min(both[name].n_unique() for name in both.columns) < 2:
        return None, None, len(both)
    rho, p = statistics.rank_correlation(*both.to_numpy().T)
    return rho, p, len(both)
