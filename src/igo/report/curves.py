"""Figures of accuracy, loss and applied noise during training, as means over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import polars as pl

from igo.analysis.table.table import statistics_of
from igo.report import published
from igo.report.chart import Axis, Figure, Panel, Series, Style, points, styles
from igo.report.families import Family
from igo.report.phrases import in_range
from igo.report.results import Results

MOST = 12  # settings in one figure; more would look alike
VIEWS = {"epochs": Axis("epoch"), "updates": Axis("updates")}
COLUMNS = {"epochs": "epoch", "updates": "updates_mean"}  # of results.curves
TITLES = {
    "methods": "Methods 1–4",
    "schedules": "Learning-rate schedules",
    "grid": "Noise decay p × split",
    "others": "Other settings",
}
REACHED = {"test/accuracy": "test accuracy, %", "train/loss": "training loss"}
APPLIED = {
    "delta_m": "noise level δₘ, planned",
    "delta_measured": "noise level δ, measured",
    "eta_m": "learning rate ηₘ",
    "b_m": "batch size bₘ",
}


def training(results: Results, family: Family) -> Figure:
    """Test accuracy and training loss, against epochs and against updates."""
    caption = "A setting that raises the batch size needs fewer updates."
    return _figure(results, family, "training", "accuracy and loss", REACHED, caption)


def applied(results: Results, family: Family) -> Figure:
    """δ_m, δ as measured, η_m and b_m, as recorded in every epoch."""
    caption = (
        "δₘ = ηₘ√(C²/bₘ). The planned δₘ takes C² from before training; the measured δ takes C² of"
        " that epoch."
    )
    if _rounded(results, family):
        caption += (
            " Where b carries the whole decay (split 0), ηₘ falls a little: an epoch has a whole"
            " number of batches, and ηₘ makes up for it, so that δₘ is exact."
        )
    return _figure(results, family, "noise", "the noise, and what makes it", APPLIED, caption)


def _rounded(results: Results, family: Family) -> bool:
    """Whether η of a setting with split 0 falls, by no more than rounding the batches explains."""
    batch_only = pl.col("split") == 0
    settings = results.settings.filter(pl.col("setting").is_in(best(results, family)), batch_only)
    epochs = results.curves.filter(pl.col("setting").is_in(settings["setting"].to_list()))
    eta = pl.col("eta_m_mean")
    ratios = epochs.group_by("setting").agg((eta.min() / eta.max()).alias("ratio"))["ratio"]
    return bool(ratios.is_between(math.sqrt(1 / 2), 1 - 1e-6).any())


def _figure(
    results: Results, family: Family, name: str, title: str, metrics: Mapping[str, str],
    caption: str,
) -> Figure:  # fmt: skip
    shown = best(results, family)
    panels, has_published = [], False
    points = results.curves.filter(pl.col("setting").is_in(shown))
    for metric, label in metrics.items():
        if not points[f"{metric}_mean"].count():  # such as δ, for an optimizer without a δ
            continue
        series = _series(results, family, shown, metric)
        if metrics is REACHED and (published_series := _published(results, family, shown, metric)):
            series += published_series
            has_published = True
        panels.append(Panel(VIEWS, _scale(label, results, shown, metric), series))
    n = in_range([results.row(setting)["n"] for setting in shown])
    several = f"Means over seeds (n = {n}) with 95 % intervals."
    sentences = [
        "One seed; a band is the 95 % interval of the measurement." if n == "1" else several,
        caption,
    ]
    if len(shown) < len(family.settings):
        sentences.append(
            f"Of {len(family.settings)} settings the {len(shown)} of highest final accuracy are"
            " drawn; the CSV has all."
        )
    if has_published:
        sentences.append(f"Dashed: published ({published.SOURCE}; the batch size is not stated).")
    return Figure(
        f"{family.name}_{name}",
        f"{TITLES[family.kind]}: {title}",
        " ".join(sentences),
        _table(results, family, tuple(metrics)),
        shown,
        panels,
        tuple(VIEWS),
        published=has_published,
    )


def best(results: Results, family: Family) -> tuple[int, ...]:
    """The family's settings in order; if they are more than MOST, those of highest accuracy."""
    if len(family.settings) <= MOST:
        return family.settings
    ranked = results.settings.filter(pl.col("setting").is_in(family.settings)).sort(
        "test/accuracy_mean", "setting", descending=[True, False], nulls_last=True
    )
    kept = set(ranked["setting"].head(MOST))
    return tuple(setting for setting in family.settings if setting in kept)


def _scale(label: str, results: Results, shown: tuple[int, ...], metric: str) -> Axis:
    """The y axis: logarithmic if all values are above 0 and span a factor of 3 or more."""
    if metric == "test/accuracy":
        return Axis(label, percent=True)
    values = results.curves.filter(pl.col("setting").is_in(shown))[f"{metric}_mean"].drop_nulls()
    is_wide = len(values) > 0 and values.min() > 0 and values.max() / values.min() >= 3  # type: ignore[operator]
    return Axis(label, log=bool(is_wide))


def _series(results: Results, family: Family, shown: tuple[int, ...], metric: str) -> list[Series]:
    looks = styles(family, {setting: results.row(setting) for setting in family.settings})
    series = []
    for setting in shown:
        rows = results.curves.filter(setting=setting)
        if metric.startswith("test/"):  # a line from one evaluation to the next
            rows = rows.drop_nulls(f"{metric}_mean")
        if metric == "b_m":  # n/k_m, to a tenth of a sample
            rows = rows.with_columns(pl.col("^b_m_(mean|low|high)$").round(1))
        steps = metric in ("delta_m", "eta_m", "b_m")
        numbers = points(rows, metric, COLUMNS)
        if any(y is not None for y in numbers["y"]):
            series.append(Series(family.labels[setting], looks[setting], **numbers, steps=steps))
    return series


def _published(
    results: Results, family: Family, shown: tuple[int, ...], metric: str
) -> list[Series]:
    """Published curves, dashed, in the colours of the runs. Their x is the epoch only."""
    if family.kind != "schedules":
        return []
    rows = {setting: results.row(setting) for setting in family.settings}
    looks = styles(family, rows)
    series = []
    for setting in shown:
        row = rows[setting]
        name = published.name_of(row)
        if name and all(row[key] == value for key, value in published.SETTING.items()):
            curve = published.curves_of(name)
            accuracy = (curve["test_accuracy_percent"] / 100).to_list()
            y = accuracy if metric == "test/accuracy" else curve["train_loss"].to_list()
            label = f"{family.labels[setting]}, published"
            dashed = Style(looks[setting].colour, dash=1)
            series.append(Series(label, dashed, {"epochs": curve["epoch"].to_list()}, y))
    return series


def _table(results: Results, family: Family, metrics: tuple[str, ...]) -> pl.DataFrame:
    joined = family.labelled.join(results.curves, on="setting", maintain_order="left_right")
    updates = pl.col("updates_mean").alias("updates")
    return joined.select("label", "epoch", updates, "n", *statistics_of(metrics))
