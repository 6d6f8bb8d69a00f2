"""The figures of a task: curves, the noise, p × split, δ of constant noise."""

import itertools
from collections.abc import Collection
from typing import Any

import matplotlib as mpl
import polars as pl
from polars import DataFrame

from igo.report import draw
from igo.report.comparison import in_range
from igo.report.draw import DASHES, LOOK, PALETTE, Figure
from igo.report.grouping import differing, statistics_of
from igo.report.names import constant_noise
from igo.report.results import Results

Labels = dict[int, str]  # Each setting's number has its label.

REACHED = {"test/accuracy": "test accuracy, %", "train/loss": "training loss"}
APPLIED = {
    "delta_m": "δₘ with C² from before training",
    "delta_measured": "δ measured",
    "eta_m": "learning rate ηₘ",
    "b_m": "batch size bₘ",
    "gradient_norm": "‖∇f‖, where it was resolved",
}
NOISE = {
    "delta_planned": "δ planned, C² before training",
    "delta_measured": "δ measured in the last epoch",
    "eta": "learning rate η alone",
}


@mpl.rc_context(LOOK)
def of_task(results: Results, task: DataFrame, labels: Labels, number: int) -> list[Figure]:
    """Every figure that the settings of a task allow; those with ``labels`` have curves.

    ``number`` is the task's, for the names of files.
    """
    end = f"_{number}" if number > 1 else ""
    drawn_figures = []
    decays = task.filter(pl.col("schedule.profile").is_in(["graduated", "polynomial"]))
    # Lines and axis are p and split, so the settings must differ in nothing else.
    if {*differing(decays)} == {"p", "split"}:
        drawn_figures.append(grid(decays, f"grid{end}"))
    constants = constant_noise(task)
    if {*differing(constants)} == {"learning_rate", "batch_size"}:
        drawn_figures.append(constant(results, constants, f"delta{end}"))
    if results.curves.filter(setting=min(labels))["epoch"].n_unique() > 1:  # A point is no curve.
        drawn_figures.append(training(results, labels, f"training{end}"))
        drawn_figures.append(applied(results, labels, f"noise{end}"))
    return drawn_figures


def training(results: Results, labels: Labels, name: str) -> Figure:
    """Test accuracy and training loss against images, and against updates where these differ."""
    table = _table(results, labels, REACHED)
    columns = ["images"]
    # If all make as many updates, both axes show the same curves.
    if table.group_by("label").agg(pl.col("updates").max())["updates"].n_unique() > 1:
        columns.append("updates")
    looks = styles(labels)
    drawing, axes = draw.panels(2 * len(columns), labels.values())
    for i, (metric, x) in enumerate(itertools.product(REACHED, columns)):
        draw.curves(axes[i], table, x, metric, looks)
        if results.target and "accuracy" in metric:
            axes[i].axhline(100 * results.target, color=draw.SOFT.light, lw=1)
        axes[i].set(title=REACHED[metric], xlabel=x)
    caption = _means(table["n"])
    if len(columns) > 1:
        caption += " A setting that raises the batch size needs fewer updates."
    return Figure(name, "Accuracy and loss", caption, table, drawing)


def applied(results: Results, labels: Labels, name: str) -> Figure:
    """δ_m as planned, δ as measured, η_m and b_m, as recorded in every epoch."""
    table = _table(results, labels, APPLIED)
    looks = styles(labels)
    metrics = [metric for metric in APPLIED if table[f"{metric}_mean"].count()]
    drawing, axes = draw.panels(len(metrics), labels.values())
    for ax, metric in zip(axes, metrics, strict=True):
        draw.curves(ax, table, "epoch", metric, looks, steps=metric != "delta_measured")
        ax.set(title=APPLIED[metric], xlabel="epoch")
    caption = (
        f"{_means(table['n'])} The planned δₘ takes C² from before training; the measured δ takes"
        " C² of the gradients that train that epoch. ηₘ makes"
        " up for the whole number of batches in an epoch, so it varies also where the batch size"
        " carries the whole decay: the more, the fewer the batches."
    )
    return Figure(name, "The noise, and what makes it", caption, table, drawing)


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


def grid(settings: DataFrame, name: str) -> Figure:
    """Accuracy against split, a line for each p."""
    label = pl.format("p = {}", "p").alias("label")
    table = settings.select(label, "p", "split", "n", *statistics_of(REACHED), "updates_mean")
    table = table.sort("p", "split")
    caption = (
        f"Means over seeds (n = {in_range(table['n'])}) at the last epoch with 95 % intervals; a"
        " line for each p, along which η/√b is the same. split = 1 lowers the learning rate alone,"
        " split = 0 raises the batch size alone."
    )
    axes = {"split": "split: share of the decay carried by η"}
    return _final(name, "Final accuracy over p × split", caption, table, axes)


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
    caption = (
        f"Means over seeds (n = {in_range(table['n'])}) at the last epoch with 95 %"
        " intervals; a line for each batch size. If the noise level alone decides, the lines lie on"
        " one another against δ."
    )
    axes = {level: words for level, words in NOISE.items() if table[level].count()}
    return _final(name, "Constant noise: is it δ that decides?", caption, table, axes)


def _final(name: str, title: str, caption: str, table: DataFrame, axes: dict[str, str]) -> Figure:
    """The last test accuracy against each of ``axes``, which have words; a line for each label."""
    looks = styles(dict(enumerate(table["label"].unique(maintain_order=True))))
    drawing, panels = draw.panels(len(axes), looks)
    for ax, (x, words) in zip(panels, axes.items(), strict=True):
        ax.set(title=REACHED["test/accuracy"], xlabel=words)
        ax.set_xscale("linear" if x == "split" else "log")
        draw.points(ax, table, x, "test/accuracy", looks)
    return Figure(name, title, caption, table, drawing)
