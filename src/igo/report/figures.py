"""The figures of a task: curves, the noise, a map of p × split, δ of constant noise, sharpness."""

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from polars import DataFrame

from igo.ground.errors import counted
from igo.ground.statistics import reach
from igo.report import draw
from igo.report.comparison import Pair, in_range, signed
from igo.report.draw import DASHES, LOOK, PALETTE, Figure
from igo.report.names import constant_noise
from igo.report.reading import averaged, differing, statistics_of
from igo.report.results import Results

Labels = dict[int, str]  # Each setting's number has its label.

REACHED = {"test/accuracy": "test accuracy, %", "train/loss": "training loss"}
APPLIED = {
    "delta_m": "δₘ with C² from before training",
    "delta_measured": "δ measured",
    "eta_m": "learning rate ηₘ",
    "b_m": "batch size bₘ",
}
NOISE = {
    "delta_planned": "δ = η√(C²/b), C² before training",
    "delta_measured": "δ measured in the last epoch",
    "eta": "learning rate η alone",
}


@mpl.rc_context(LOOK)
def of_task(
    results: Results, task: DataFrame, labels: Labels, pairs: Sequence[Pair], number: int
) -> list[Figure]:
    """Every figure that the settings of a task allow; those with ``labels`` have curves.

    ``pairs`` are of these, in test accuracy. ``number`` is the task's, for the names of files.
    """
    end = f"_{number}" if number > 1 else ""
    drawn_figures = []
    decays = task.filter(pl.col("schedule.profile").is_in(["graduated", "polynomial"]))
    # A map has two axes, so its settings must differ in nothing else.
    if {*differing(decays)} == {"p", "split"}:
        drawn_figures.append(grid(decays, pairs, f"map{end}"))
    constants = constant_noise(task)
    if {*differing(constants)} == {"learning_rate", "batch_size"}:
        drawn_figures.append(constant(results, constants, f"delta{end}"))
    if results.curves.filter(setting=min(labels))["epoch"].n_unique() > 1:  # A point is no curve.
        drawn_figures.append(training(results, labels, f"training{end}"))
        drawn_figures.append(applied(results, labels, f"noise{end}"))
    if (sharpness_figure := sharpness(results, task, f"sharpness{end}")) is not None:
        drawn_figures.append(sharpness_figure)
    return drawn_figures


def training(results: Results, labels: Labels, name: str) -> Figure:
    """Test accuracy and training loss against images, and against updates where these differ."""
    table = _table(results, labels, REACHED)
    columns = ["images"]
    # If all make as many updates, both axes show the same curves.
    if table.group_by("label").agg(pl.col("updates").max())["updates"].n_unique() > 1:
        columns.append("updates")
    looks = styles(labels)
    axes = draw.panels(2 * len(columns), labels.values())
    for i, (metric, x) in enumerate(itertools.product(REACHED, columns)):
        draw.curves(axes[i], table, x, metric, looks)
        if results.target and "accuracy" in metric:
            axes[i].axhline(100 * results.target, color=draw.SOFT.light, lw=1)
        axes[i].set(title=REACHED[metric], xlabel=x)
    caption = _means(table["n"])
    if len(columns) > 1:
        caption += " A setting that raises the batch size needs fewer updates."
    return Figure(name, "Accuracy and loss", caption, table, axes[0].figure)


def applied(results: Results, labels: Labels, name: str) -> Figure:
    """δ_m as planned, δ as measured, η_m and b_m, as recorded in every epoch."""
    table = _table(results, labels, APPLIED)
    looks = styles(labels)
    metrics = [metric for metric in APPLIED if table[f"{metric}_mean"].count()]
    axes = draw.panels(len(metrics), labels.values())
    for ax, metric in zip(axes, metrics, strict=True):
        draw.curves(ax, table, "epoch", metric, looks, steps=metric != "delta_measured")
        ax.set(title=APPLIED[metric], xlabel="epoch")
    caption = (
        f"{_means(table['n'])} δₘ = ηₘ√(C²/bₘ). The planned δₘ takes C² from before"
        " training; the measured δ takes C² of the gradients that train that epoch. ηₘ makes"
        " up for the whole number of batches in an epoch, so it varies also where the batch size"
        " carries the whole decay: the more, the fewer the batches."
    )
    return Figure(name, "The noise, and what makes it", caption, table, axes[0].figure)


def _table(results: Results, labels: Labels, metrics: dict[str, str]) -> DataFrame:
    # The order of the labels gives the order of colours and of the legend.
    rows = DataFrame({"setting": list(labels), "label": list(labels.values())})
    curves = rows.join(results.curves, on="setting", maintain_order="left_right")
    totals = {"updates": pl.col("updates_mean"), "images": pl.col("samples_mean")}
    return curves.with_columns(**totals).select(
        "label", "epoch", *totals, "n", *statistics_of(metrics)
    )


def styles(labels: Labels) -> dict[str, dict[str, Any]]:
    """The look of each label: seven colours, then the same with other dashes."""
    return {
        label: {"color": PALETTE[i % 7].light, "ls": DASHES[i // 7 % 4]}
        for i, label in enumerate(labels.values())
    }


def _means(counts: Collection[int]) -> str:
    n = in_range(counts)
    if n == "1":
        return "One seed; a band is the 95 % interval of the measurement."
    return f"Means over seeds (n = {n}) with 95 % intervals."


def grid(settings: DataFrame, pairs: Sequence[Pair], name: str) -> Figure:
    """Final test accuracy over p × split, shaded if the tests find a difference between cells."""
    table = settings.drop_nulls("test/accuracy_mean").sort("p", "split")
    powers, splits = (sorted(settings[axis].unique()) for axis in ("p", "split"))
    values = np.full((len(powers), len(splits)), np.nan)
    cells = set(table["setting"])
    cell_pairs = [pair for pair in pairs if {pair.first, pair.second} <= cells]
    differences = sum(pair.verdict in ("higher", "lower") for pair in cell_pairs)
    (ax,) = draw.panels(1, height=max(2.6, 0.5 * len(powers) + 1.2))
    for row in table.iter_rows(named=True):
        i, j = powers.index(row["p"]), splits.index(row["split"])
        values[i, j] = 100 * row["test/accuracy_mean"]
        text = f"{values[i, j]:.2f}"
        # One seed has no interval.
        if row["test/accuracy_low"] is not None:
            text += f"\n± {100 * float(reach(row['test/accuracy_sd'], row['n'])):.2f}"
        # Black is read on the map's light half, whatever the colours of the screen.
        ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=8, color="#000000")
    shades = 0 * values
    if differences:
        shades = (values - np.nanmin(values)) / (np.nanmax(values) - np.nanmin(values))
    # These ends give the values the light half of the colours, on which black text is read.
    ax.pcolormesh(shades, cmap="Blues", vmin=-0.2, vmax=1.8, edgecolors="face")
    ax.set_xticks(np.arange(len(splits)) + 0.5, [f"{split:.4g}" for split in splits])
    ax.set_yticks(np.arange(len(powers)) + 0.5, [f"{p:g}" for p in powers])
    ax.invert_yaxis()
    title = REACHED["test/accuracy"] + ", no two cells told apart" * (not differences)
    ax.set(title=title, xlabel="split: share of the decay carried by η", ylabel="p")
    ax.grid(visible=False)
    caption = (
        f"Means over seeds (n = {in_range(settings['n'])}) at the last epoch, ± half"
        " the 95 % interval. split = 1 lowers the learning rate alone, split = 0 raises the batch"
        " size alone. δₘ is the same along each row. "
    )
    caption += (
        f"The tests tell {differences} of {counted(len(cell_pairs), 'pair')} of cells apart."
        if differences
        else "The tests tell no two cells apart: differences like these may be noise, so all cells"
        " have one shade."
    )
    table = table.select("p", "split", "n", *statistics_of(REACHED), "updates_mean")
    return Figure(name, "Final accuracy over p × split", caption, table, ax.figure)


def constant(results: Results, settings: DataFrame, name: str) -> Figure:
    """Accuracy of constant noise against δ and against η, a line for each batch size."""
    by_setting = results.curves.sort("setting", "epoch").group_by("setting", maintain_order=True)
    noise = by_setting.agg(
        delta_planned=pl.col("delta_m_mean").first(),
        delta_measured=pl.col("delta_measured_mean").last(),
    )
    rows = settings.join(noise, on="setting").rename({"learning_rate": "eta", "batch_size": "b"})
    columns = ["eta", "b", "delta_planned", "delta_measured", "n", *statistics_of(REACHED)]
    table = rows.select(pl.format("b = {}", "b").alias("label"), *columns).sort("b", "eta")
    looks = styles(dict(enumerate(table["label"].unique(maintain_order=True))))
    levels = [level for level in NOISE if table[level].count()]
    axes = draw.panels(len(levels), looks)
    for ax, level in zip(axes, levels, strict=True):
        ax.set(title=REACHED["test/accuracy"], xlabel=NOISE[level], xscale="log")
        draw.points(ax, table, level, "test/accuracy", looks)
        draw.plain_log(ax.xaxis)
    caption = (
        f"Means over seeds (n = {in_range(table['n'])}) at the last epoch with 95 %"
        " intervals; a line for each batch size. If the noise level alone decides, the lines lie on"
        " one another against δ."
    )
    return Figure(name, "Constant noise: is it δ that decides?", caption, table, axes[0].figure)


def sharpness(results: Results, task: DataFrame, name: str) -> Figure | None:
    """Sharpness against δ, and accuracy against sharpness; None unless two settings have some."""
    runs = results.runs.filter("counted", pl.col("setting").is_in(task["setting"].to_list()))
    runs = runs.drop_nulls("worst_case")
    # Worst cases of other radii or norms are other quantities: the most frequent one is shown.
    measurement = str(runs["worst_case_of"].mode().sort().first())
    comparable_runs = runs.filter(worst_case_of=measurement)
    points = averaged(comparable_runs, ["setting"], ("worst_case", "test/accuracy"))
    if len(points) < 2:
        return None
    level = results.curves.group_by("setting").agg(delta=pl.col("delta_m_mean").mean())
    points = points.join(level, on="setting").sort("setting").with_columns(label=pl.lit(""))
    caption = (
        f"Measured after training ({measurement}). A point for each of {len(points)} settings: the"
        f" mean over its seeds (n = {in_range(points['n'])}) with its 95 % interval."
    )
    if other_runs := len(runs) - len(comparable_runs):
        caption += f" {counted(other_runs, 'run')} measured otherwise: not shown."
    complete_points = points.drop_nulls(["worst_case_mean", "test/accuracy_mean"])
    rank = pl.corr("worst_case_mean", "test/accuracy_mean", method="spearman")
    rho = complete_points.select(rank).item()
    # The order of three settings says nothing, and equal values have none.
    if len(complete_points) > 3 and np.isfinite(rho):
        caption += f" Spearman’s ρ with test accuracy, over settings: {signed(rho)}."
    look = {"": {"color": PALETTE[0].light, "ls": "none"}}
    measure = "worst-case sharpness"
    has_delta = points["delta"].count() > 0  # Some optimizers have no δ.
    axes = draw.panels(1 + has_delta)
    if has_delta:
        axes[0].set(title=measure, xlabel="δₘ, mean over epochs", xscale="log")
        draw.points(axes[0], points, "delta", "worst_case", look)
        draw.plain_log(axes[0].xaxis)
    draw.points(axes[-1], points, "worst_case_mean", "test/accuracy", look)
    axes[-1].set(title="test accuracy, %", xlabel=measure)
    title = "Worst-case sharpness and test accuracy"
    return Figure(name, title, caption, points.drop("label"), axes[0].figure)
