"""Figures against training: accuracy and loss, and what was applied; means over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from igo.analysis.report import published
from igo.analysis.report.chart import Axis, Figure, Panel, Series, Style, styles
from igo.analysis.report.families import Family
from igo.analysis.report.results import Results
from igo.analysis.table.table import statistics_of

MOST = 12  # settings in one figure; more cannot be told apart
VIEWS = {"epochs": Axis("epoch"), "updates": Axis("updates")}
TITLES = {
    "methods": "Methods 1–4",
    "schedules": "Learning-rate schedules",
    "grid": "Noise decay p × split",
    "others": "Other settings",
}
QUANTITIES = {
    "delta_m": "noise level δₘ, planned",
    "delta_measured": "noise level δ, measured",
    "eta_m": "learning rate ηₘ",
    "b_m": "batch size bₘ",
}


def training(results: Results, family: Family) -> Figure:
    """Test accuracy and training loss, against epochs and against updates."""
    shown = best(results, family)
    drawn = {"test/accuracy": Axis("test accuracy, %", percent=True)}
    drawn["train/loss"] = _scale("training loss", results, shown, "train/loss")
    panels = [
        Panel(VIEWS, axis, [*_series(results, family, shown, metric), *_published(
            results, family, shown, metric)])
        for metric, axis in drawn.items()
    ]  # fmt: skip
    return Figure(
        f"{family.name}_training",
        f"{TITLES[family.kind]}: accuracy and loss",
        f"Lines are means over seeds ({seeds_of(results, shown)}) with 95 % intervals (Student's"
        " t), of more than four lines at their ends. Against updates, settings that raise the"
        " batch size end earlier."
        + _left_out(family, shown)
        + _published_note(results, family, shown),
        _table(results, family, tuple(drawn)),
        shown,
        panels,
        tuple(VIEWS),
    )


def applied(results: Results, family: Family) -> Figure:
    """δ_m, δ as measured, η_m and b_m, as recorded in every epoch."""
    shown = best(results, family)
    panels = [
        Panel(VIEWS, _scale(label, results, shown, metric), _series(
            results, family, shown, metric))
        for metric, label in QUANTITIES.items()
    ]  # fmt: skip
    return Figure(
        f"{family.name}_noise",
        f"{TITLES[family.kind]}: the noise, and what makes it",
        "What was applied, as recorded. δₘ = ηₘ√(C²/bₘ) takes C² as measured before training; δ"
        " measured takes C² as it was in that epoch (of a single run: with the interval of that"
        f" measurement). Means over seeds ({seeds_of(results, shown)}) with 95 % intervals, of more"
        " than four lines at their ends. Below a 10,000th of the largest value a line leaves the"
        " frame." + _left_out(family, shown),
        _table(results, family, tuple(QUANTITIES)),
        shown,
        panels,
        tuple(VIEWS),
    )


def best(results: Results, family: Family) -> tuple[int, ...]:
    """The family's settings in order; where there are more than MOST, those of highest accuracy."""
    if len(family.settings) <= MOST:
        return family.settings
    ranked = results.settings.filter(pl.col("setting").is_in(family.settings)).sort(
        "test/accuracy_mean", "setting", descending=[True, False], nulls_last=True
    )
    kept = set(ranked["setting"].head(MOST))
    return tuple(setting for setting in family.settings if setting in kept)


def seeds_of(results: Results, settings: tuple[int, ...]) -> str:
    """How many seeds the settings have."""
    return in_range([results.of(setting)["n"] for setting in settings])


def in_range(counts: Sequence[int]) -> str:
    """``n = 5``, or ``n = 3 to 5`` where they differ."""
    low, high = min(counts), max(counts)
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def _left_out(family: Family, shown: tuple[int, ...]) -> str:
    if len(shown) == len(family.settings):
        return ""
    return (
        f" Of {len(family.settings)} settings the {len(shown)} of highest final accuracy are drawn;"
        " the CSV has all."
    )


def _scale(label: str, results: Results, shown: tuple[int, ...], metric: str) -> Axis:
    """Logarithmic where all is above zero and it spans a factor of three or more."""
    values = results.curves.filter(pl.col("setting").is_in(shown))[f"{metric}_mean"].drop_nulls()
    wide = len(values) > 0 and values.min() > 0 and values.max() / values.min() >= 3  # type: ignore[operator]
    return Axis(label, log=bool(wide))


def _series(results: Results, family: Family, shown: tuple[int, ...], metric: str) -> list[Series]:
    looks = styles(family, {setting: results.of(setting) for setting in family.settings})
    found = []
    for setting in shown:
        points = results.curves.filter(setting=setting)
        if metric.startswith("test/"):  # a line from one evaluation to the next
            points = points.drop_nulls(f"{metric}_mean")
        found.append(
            Series(
                f"{family.labels[setting]} (n = {results.of(setting)['n']})",
                looks[setting],
                {"epochs": points["epoch"].to_list(), "updates": points["updates_mean"].to_list()},
                _drawn(points[f"{metric}_mean"], metric),
                _drawn(points[f"{metric}_low"], metric),
                _drawn(points[f"{metric}_high"], metric),
                steps=metric in ("delta_m", "eta_m", "b_m"),
            )
        )
    return found


def _drawn(values: pl.Series, metric: str) -> list[float | None]:
    """As drawn and read on the page: b_m = n/k_m to a tenth of a sample."""
    return (values.round(1) if metric == "b_m" else values).to_list()


def _laid_beside(results: Results, family: Family, shown: tuple[int, ...]) -> dict[int, str]:
    """The settings that are published, and their published names."""
    if family.kind != "schedules":
        return {}
    rows = {setting: results.of(setting) for setting in shown}
    return {
        setting: name
        for setting, row in rows.items()
        if published.same_setting(row) and (name := published.name_of(row))
    }


def _published(
    results: Results, family: Family, shown: tuple[int, ...], metric: str
) -> list[Series]:
    """Published curves, dashed, in the colour of ours; their updates are not published."""
    looks = styles(family, {setting: results.of(setting) for setting in family.settings})
    found = []
    for setting, name in _laid_beside(results, family, shown).items():
        points = published.of(name)
        accuracy = (points["test_accuracy_percent"] / 100).to_list()
        y = accuracy if metric == "test/accuracy" else points["train_loss"].to_list()
        look = Style(looks[setting].colour, dash=1)
        label = f"{family.labels[setting]}, published"
        found.append(Series(label, look, {"epochs": points["epoch"].to_list()}, y))
    return found


def _published_note(results: Results, family: Family, shown: tuple[int, ...]) -> str:
    if not _laid_beside(results, family, shown):
        return ""
    return f" Dashed: as published ({published.SOURCE}; the batch size is not stated)."


def _table(results: Results, family: Family, metrics: tuple[str, ...]) -> pl.DataFrame:
    """All settings of the family, epoch by epoch."""
    joined = family.labelled.join(results.curves, on="setting", maintain_order="left_right")
    updates = pl.col("updates_mean").alias("updates")
    return joined.select("label", "epoch", updates, "n", *statistics_of(metrics))
