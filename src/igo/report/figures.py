"""The figures of the report: during training, over p × split, against δ, and sharpness."""

from __future__ import annotations

import statistics as standard
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes

from igo.report import draw, published, statistics
from igo.report.comparison import in_range, signed
from igo.report.draw import LOOK, Figure
from igo.report.families import Family, noise_ratio
from igo.report.results import SHARPNESS, Results, Row
from igo.report.style import DASHES, MAP, PALETTE
from igo.report.table import means, statistics_of, with_intervals

MOST = 12  # settings in one figure; more would look alike
TITLES = {
    "methods": "Methods 1–4",
    "schedules": "Learning-rate schedules",
    "grid": "Noise decay p × split",
    "constant": "Constant noise: is it δ that decides?",
    "others": "Other settings",
}
REACHED = {"test/accuracy": "test accuracy, %", "train/loss": "training loss"}
APPLIED = {
    "delta_m": "noise level δₘ, planned",
    "delta_measured": "noise level δ, measured",
    "eta_m": "learning rate ηₘ",
    "b_m": "batch size bₘ",
}
NOISE = {
    "delta_planned": "δ = η√(C²/b), C² before training",
    "delta_measured": "δ measured in the last epoch",
    "eta": "learning rate η alone",
}


def training(results: Results, family: Family) -> Figure:
    """Test accuracy and training loss against epochs, and against updates where these differ."""
    shown = best(results, family)
    table = _curves(results, family, REACHED)
    drawn = table.filter(pl.col("setting").is_in(shown))
    looks = styles(results, family)
    totals = drawn.group_by("label").agg(pl.col("updates").max())["updates"]
    columns = {"epoch": "epoch"} | ({"updates": "updates"} if totals.n_unique() > 1 else {})
    rows = {setting: results.row(setting) for setting in shown}
    theirs = {setting: published.curve(row) for setting, row in rows.items()}
    with mpl.rc_context(LOOK):
        drawing, axes = draw.panels(2, 1) if len(columns) == 1 else draw.panels(2, 2)
        cells = [(metric, x) for metric in REACHED for x in columns]
        for ax, (metric, x) in zip(axes, cells, strict=True):
            scale = 100 if metric == "test/accuracy" else 1
            draw.lines(ax, drawn, x, metric, looks, scale)
            draw.limit(ax, drawn, metric, scale)
            ax.set(title=REACHED[metric], xlabel=columns[x])
            if x != "epoch":
                continue
            for setting, curve in theirs.items():
                if curve is not None:
                    look = {**looks[family.labels[setting]], "ls": DASHES[1], "lw": 1}
                    ax.plot(curve["epoch"], scale * curve[f"{metric}_mean"], **look)
            draw.name_ends(ax, drawn, metric, looks, scale)
        draw.finish(drawing, axes[0])
    caption = _means(results, shown)
    if len(columns) > 1:
        caption += " A setting that raises the batch size needs fewer updates."
    if any(curve is not None for curve in theirs.values()):
        caption += f" Dashed: published ({published.SOURCE}; the batch size is not stated)."
    return Figure(
        f"{family.name}_training", f"{TITLES[family.kind]}: accuracy and loss",
        caption + _left_out(family, shown), table.drop("setting"), drawing,
    )  # fmt: skip


def applied(results: Results, family: Family) -> Figure:
    """δ_m as planned, δ as measured, η_m and b_m, as recorded in every epoch."""
    shown = best(results, family)
    table = _curves(results, family, APPLIED)
    drawn = table.filter(pl.col("setting").is_in(shown))
    looks = styles(results, family)
    metrics = [name for name in APPLIED if drawn[f"{name}_mean"].count()]
    with mpl.rc_context(LOOK):
        drawing, axes = draw.panels(*((3, 1) if len(metrics) == 3 else (2, len(metrics) // 2)))
        for ax, metric in zip(axes, metrics, strict=True):
            draw.lines(ax, drawn, "epoch", metric, looks, steps=metric != "delta_measured")
            draw.limit(ax, drawn, metric, from_zero=True)
            ax.set(title=APPLIED[metric], xlabel="epoch")
            draw.name_ends(ax, drawn, metric, looks)
        draw.finish(drawing, axes[0])
    return Figure(
        f"{family.name}_noise", f"{TITLES[family.kind]}: the noise, and what makes it",
        f"{_means(results, shown)} δₘ = ηₘ√(C²/bₘ). The planned δₘ takes C² from before training;"
        " the measured δ takes C² of that epoch. Where the batch size carries the whole decay, ηₘ"
        " may fall by a few per cent: it makes up for the whole number of batches in an epoch."
        + _left_out(family, shown),
        table.drop("setting"), drawing,
    )  # fmt: skip


def _curves(results: Results, family: Family, metrics: Mapping[str, str]) -> pl.DataFrame:
    joined = family.labelled.join(results.curves, on="setting", maintain_order="left_right")
    updates = pl.col("updates_mean").alias("updates")
    return joined.select("setting", "label", "epoch", updates, "n", *statistics_of(metrics))


def best(results: Results, family: Family) -> list[int]:
    """The family's settings in order; if they are more than MOST, those of highest accuracy."""
    ranked = results.settings.filter(pl.col("setting").is_in(family.settings)).sort(
        "test/accuracy_mean", "setting", descending=[True, False], nulls_last=True
    )
    kept = set(ranked["setting"].head(MOST))
    return [setting for setting in family.settings if setting in kept]


def styles(results: Results, family: Family) -> dict[str, dict[str, Any]]:
    """The look of each label; in a grid the colour shows p and the dash shows the split."""
    rows = [results.row(setting) for setting in family.settings]
    places = [(i % len(PALETTE), i // len(PALETTE) % len(DASHES)) for i in range(len(rows))]
    if family.kind == "grid":
        levels, splits = (sorted({row[name] for row in rows}) for name in ("p", "split"))
        if len(levels) <= len(PALETTE) and len(splits) <= len(DASHES):
            places = [(levels.index(row["p"]), splits[::-1].index(row["split"])) for row in rows]
    return {
        family.labels[row["setting"]]: {"color": PALETTE[colour].light, "ls": DASHES[dash]}
        for row, (colour, dash) in zip(rows, places, strict=True)
    }


def _means(results: Results, shown: Sequence[int]) -> str:
    n = in_range([results.row(setting)["n"] for setting in shown])
    if n == "1":
        return "One seed; a band is the 95 % interval of the measurement."
    return f"Means over seeds (n = {n}) with 95 % intervals."


def _left_out(family: Family, shown: Sequence[int]) -> str:
    if len(shown) == len(family.settings):
        return ""
    return (
        f" Of {len(family.settings)} settings the {len(shown)} of highest final accuracy are"
        " drawn; the CSV has all."
    )


def grid(results: Results, family: Family) -> Figure:
    """Final test accuracy and training loss over p × split, each cell with its interval."""
    rows = [results.row(setting) for setting in family.settings]
    table = results.settings.filter(pl.col("setting").is_in(family.settings)).sort("p", "split")
    with mpl.rc_context(LOOK):
        height = max(2.6, 0.5 * table["p"].n_unique() + 1.2)
        drawing, axes = draw.panels(2, 1, height)
        _map(axes[0], rows, "test/accuracy", "test accuracy, % (larger is better)", 100, ".2f")
        _map(axes[1], rows, "train/loss", "training loss (smaller is better)", 1, ".4f")
        draw.finish(drawing, axes[0])
    return Figure(
        f"{family.name}_map", "Final accuracy over p × split",
        f"Means over seeds (n = {in_range([row['n'] for row in rows])}) at the last epoch, ± half"
        " the 95 % interval. split = 1 lowers the learning rate alone, split = 0 raises the batch"
        " size alone. δₘ is the same along each row.",
        table.select("p", "split", "n", *statistics_of(REACHED), "updates_mean"), drawing,
    )  # fmt: skip


def _map(ax: Axes, rows: Sequence[Row], metric: str, title: str, scale: int, form: str) -> None:
    """Cells whose colours span at least a usual interval, so that noise is no contrast."""
    cells = {(row["p"], row["split"]): row for row in rows if row[f"{metric}_mean"] is not None}
    powers, splits = (sorted({row[name] for row in rows}) for name in ("p", "split"))
    values = np.full((len(powers), len(splits)), np.nan)
    texts = {}
    for (p, split), row in cells.items():
        i, j = powers.index(p), splits.index(split)
        values[i, j] = scale * row[f"{metric}_mean"]
        texts[i, j] = f"{values[i, j]:{form}}"
        if row[f"{metric}_low"] is not None:
            half = scale * float(statistics.reach(row[f"{metric}_sd"], row["n"]))
            texts[i, j] += f"\n± {half:{form}}"
    spreads = [r[f"{metric}_high"] - r[f"{metric}_low"] for r in cells.values()
               if r[f"{metric}_low"] is not None]  # fmt: skip
    if texts:
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        span = max(high - low, scale * standard.median(spreads) if spreads else 0.0) or 1.0
        shares = 0.5 + (values - (low + high) / 2) / span
        ax.pcolormesh(np.where(np.isnan(values), np.nan, map_share(shares)), cmap=MAP,
                      vmin=0, vmax=1, edgecolors="face")  # fmt: skip
        for (i, j), text in texts.items():
            ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=8,
                    color=ink_on(map_share(shares[i, j])))  # fmt: skip
    ax.set_xticks(np.arange(len(splits)) + 0.5, [f"{split:.4g}" for split in splits])
    ax.set_yticks(np.arange(len(powers)) + 0.5, [f"{p:g}" for p in powers])
    ax.invert_yaxis()
    ax.set(title=title, xlabel="split: share of the decay carried by η", ylabel="p")
    ax.grid(visible=False)


def map_share(share: Any) -> Any:
    """A place in the part of the colour map that is used; its ends do not show on paper."""
    return 0.12 + 0.83 * share


def ink_on(place: float) -> str:
    """Black or white, whichever is read on the map's colour at this place."""
    return "#000000" if place > 0.468 else "#ffffff"


def constant(results: Results, family: Family) -> Figure:
    """Accuracy and loss of constant noise against δ and against η, a line for each batch size."""
    table = _constant_table(results, family)
    labels = table["label"].unique(maintain_order=True)
    looks = {label: {"color": PALETTE[i % 7].light, "ls": "-"} for i, label in enumerate(labels)}
    columns = {name: title for name, title in NOISE.items() if table[name].count()}
    with mpl.rc_context(LOOK):
        drawing, axes = draw.panels(len(columns), 2)
        cells = [(metric, x) for metric in REACHED for x in columns]
        for ax, (metric, x) in zip(axes, cells, strict=True):
            scale = 100 if metric == "test/accuracy" else 1
            draw.lines(ax, table, x, metric, looks, scale, markers=True)
            draw.limit(ax, table, metric, scale)
            ax.set_xscale("log")
            draw.plain_log(ax.xaxis)
            ax.set(xlabel=columns[x], title=REACHED[metric])
        draw.finish(drawing, axes[0])
    return Figure(
        f"{family.name}_delta", "Constant noise: accuracy and loss against δ",
        f"Means over seeds (n = {in_range(table['n'].to_list())}) at the last epoch with 95 %"
        " intervals; a line for each batch size. If the noise level alone decides, the lines lie on"
        " one another against δ. The planned δ takes one C² for all settings, the median of those"
        " measured before training; the measured δ takes each run’s own.",
        table, drawing,
    )  # fmt: skip


def _constant_table(results: Results, family: Family) -> pl.DataFrame:
    """A row for each setting. ``delta_planned`` uses the median of C² for all settings."""
    by_setting = results.curves.sort("setting", "epoch").group_by("setting", maintain_order=True)
    applied = by_setting.agg(
        pl.col("delta_m_mean").first().alias("delta_recorded"),
        pl.col("delta_measured_mean").last().alias("delta_measured"),
    )
    rows = family.labelled.join(results.settings, on="setting").join(applied, on="setting")
    ratio = pl.Series("ratio", [noise_ratio(row) for row in rows.iter_rows(named=True)])
    one = ratio * (pl.col("delta_recorded") / ratio).median()
    # With momentum δ is not proportional to η/√b, so the recorded δ is taken.
    is_plain_sgd = (pl.col("optimizer.name") == "sgd") & pl.col("delta_recorded").is_not_null()
    return rows.select(
        pl.format("b = {}", "batch_size").alias("label"),
        pl.col("learning_rate").alias("eta"),
        pl.col("batch_size").alias("b"),
        pl.when(is_plain_sgd).then(one).otherwise("delta_recorded").alias("delta_planned"),
        "delta_measured",
        "n",
        *statistics_of(REACHED),
    ).sort("b", "eta")


def sharpness(results: Results) -> list[Figure]:
    """A figure for each task of two settings whose sharpness is measured."""
    level = results.epochs.group_by("setting", "seed").agg(pl.col("delta_m").mean().alias("delta"))
    runs = results.runs.filter("counted").join(level, on=["setting", "seed"], how="left")
    tasks = runs.drop_nulls(SHARPNESS).partition_by("dataset.name", "dataset.samples", "model.name")
    tasks = [task for task in tasks if task["setting"].n_unique() > 1]
    return [
        _sharpness(task, f"sharpness_{number}" if number > 1 else "sharpness")
        for number, task in enumerate(tasks, 1)
    ]


def _sharpness(runs: pl.DataFrame, name: str) -> Figure:
    """Sharpness against δ, and accuracy against sharpness."""
    metrics = ("delta", "worst_case", "test/accuracy")
    size = pl.len().cast(pl.Int64).alias("n")
    by_setting = runs.group_by("setting").agg(size, *means(metrics))
    points = with_intervals(by_setting, metrics).sort("setting").with_columns(label=pl.lit(""))
    caption = (
        f"{runs['dataset.name'][0]}, {runs['model.name'][0]}. A point for each of {len(points)}"
        f" settings: the mean over its seeds (n = {in_range(points['n'].to_list())}) with its 95 %"
        " interval."
    )
    both = points.drop_nulls(["worst_case_mean", "test/accuracy_mean"])
    x, y = (both[f"{metric}_mean"].to_numpy() for metric in metrics[1:])
    if len(both) > 3 and np.ptp(x) > 0 and np.ptp(y) > 0:
        rho, p = statistics.rank_correlation(x, y)
        caption += f" Spearman’s ρ with test accuracy, over settings: {signed(rho)} (p = {p:.2g})."
    look = {"": {"color": PALETTE[0].light, "ls": "none"}}
    measure = "adaptive worst-case sharpness"
    with mpl.rc_context(LOOK):
        drawing, (left, right) = draw.panels(2, 1)
        draw.lines(left, points, "delta_mean", "worst_case", look, markers=True)
        left.set(title=measure, xlabel="δₘ, mean over epochs", xscale="log")
        draw.plain_log(left.xaxis)
        draw.lines(right, points, "worst_case_mean", "test/accuracy", look, 100, markers=True)
        right.set(title="test accuracy, %", xlabel=measure)
        draw.finish(drawing, left)
    title = "Adaptive worst-case sharpness, δ and test accuracy"
    return Figure(name, title, caption, points.drop("label"), drawing)
