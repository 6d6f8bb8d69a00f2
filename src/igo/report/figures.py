"""The figures of a task: curves, the noise, p × split, δ of constant noise."""

import itertools
from collections.abc import Iterable

import matplotlib as mpl
import polars as pl
from matplotlib.rcsetup import cycler
from polars import DataFrame

from igo.report import draw
from igo.report.draw import DASHES, LOOK, PALETTE, Figure, Looks
from igo.report.formats import in_range
from igo.report.results import Results
from igo.report.settings import CONSTANT_NOISE, differing, statistics_of

Labels = dict[int, str]  # Each setting's number has its label.
Words = dict[str, str]  # What an axis calls each metric.

REACHED = {"test/accuracy": "test accuracy, %", "train/loss": "training loss"}
APPLIED = {
    "delta_m": "δₘ with C² from before training",
    "delta_measured": "δ measured",
    "eta_m": "learning rate ηₘ",
    "b_m": "batch size bₘ",
    "gradient_norm": "‖∇f‖, where it was resolved",
}
# Lines of these metrics have a step between two epochs.
STEPPED = {"delta_m", "eta_m", "b_m", "gradient_norm"}
NOISE = {
    "delta_planned": "δ planned, C² before training",
    "delta_measured": "δ measured in the last epoch",
    "eta": "learning rate η alone",
}


@mpl.rc_context(LOOK)
def of_task(results: Results, task: DataFrame, labels: Labels, index: int) -> list[Figure]:
    """Every figure that the settings of a task allow.

    ``task`` has a row for each setting, and those with ``labels`` have curves. ``index`` is the
    number of the task: names of files have it from the second task on.
    """
    suffix = f"_{index}" if index > 1 else ""
    drawn_figures = []
    # Profiles that have a p.
    decays = task.filter(pl.col("schedule.profile").is_in(["graduated", "polynomial"]))
    # Lines and axis are p and split, so the settings must differ in nothing else.
    if {*differing(decays)} == {"p", "split"}:
        drawn_figures.append(grid(decays, f"grid{suffix}"))
    constants = task.filter(CONSTANT_NOISE)
    if {*differing(constants)} == {"learning_rate", "batch_size"}:
        drawn_figures.append(accuracy_by_noise(results, constants, f"delta{suffix}"))
    epochs = results.curves.filter(pl.col("setting").is_in([*labels]))["epoch"]
    if epochs.n_unique() > 1:  # A point is no curve.
        drawn_figures.append(training(results, labels, f"training{suffix}"))
        drawn_figures.append(applied(results, labels, f"noise{suffix}"))
    return drawn_figures


def training(results: Results, labels: Labels, name: str) -> Figure:
    """Test accuracy and training loss against images, and against updates where these differ.

    A line across the panels of accuracy is the target, if there is one.
    """
    table = _of_epochs(results, labels, REACHED)
    caption, x_axes = "", ["images"]
    last_updates = table.group_by("label").agg(pl.col("updates").max())["updates"]
    # If all settings make as many updates, both axes show the same curves.
    if last_updates.n_unique() > 1:
        x_axes.append("updates")
        caption = "A setting that raises the batch size needs fewer updates."
    figure = _curves(name, "Accuracy and loss", caption, table, REACHED, x_axes)
    if results.target:
        # ``_curves`` has the panels of REACHED's first metric first, one for each axis of x.
        for ax in figure.drawing.axes[: len(x_axes)]:
            ax.axhline(100 * results.target, color=draw.SOFT, lw=1)
    return figure


def applied(results: Results, labels: Labels, name: str) -> Figure:
    """Those metrics of APPLIED that were recorded, against the epoch."""
    table = _of_epochs(results, labels, APPLIED)
    caption = (
        "The planned δₘ takes C² from before training; the measured δ takes C² of the gradients"
        " that train that epoch. An epoch has a whole number of batches, and ηₘ makes up for the"
        " rounding. So ηₘ varies also where the batch size carries the whole decay, and varies more"
        " where an epoch has few batches."
    )
    # A metric that no run recorded is null in all rows, and ``count`` leaves out null.
    recorded = {
        metric: words for metric, words in APPLIED.items() if table[f"{metric}_mean"].count()
    }
    return _curves(name, "The noise, and what makes it", caption, table, recorded, ["epoch"])


def _curves(
    name: str, title: str, caption: str, table: DataFrame, metrics: Words, x_axes: list[str]
) -> Figure:
    """The figure of each metric against each axis of x, with a line for each label.

    The panels of the first metric come first. ``metrics`` has columns of the table, and what an
    axis calls them. ``caption`` follows a sentence on the seeds.
    """
    looks = styles(table["label"])
    drawing, axes = draw.panels(len(metrics) * len(x_axes), looks)
    for ax, (metric, x) in zip(axes, itertools.product(metrics, x_axes), strict=True):
        draw.curves(ax, table, x, metric, looks, steps=metric in STEPPED)
        ax.set(title=metrics[metric], xlabel=x)
    n = in_range(table["n"])
    seeds = f"Means over seeds (n = {n}) with 95 % intervals."
    if n == "1":
        seeds = "One seed; a band is the 95 % interval of the measurement."
    return Figure(name, title, f"{seeds} {caption}".rstrip(), table, drawing)


def _of_epochs(results: Results, labels: Labels, metrics: Words) -> DataFrame:
    """A row for each epoch of each setting that has a label.

    Columns are label, epoch, updates and images so far, n, and the statistics of the metrics.
    """
    # The order of the labels gives the order of colours and of the legend.
    rows = DataFrame({"setting": list(labels), "label": list(labels.values())})
    curves = rows.join(results.curves, on="setting", maintain_order="left_right")
    return curves.select(
        "label",
        "epoch",
        pl.col("updates_mean").alias("updates"),
        pl.col("samples_mean").alias("images"),
        "n",
        *statistics_of(metrics),
    )


def styles(labels: Iterable[str]) -> Looks:
    """The colour and the dashes of each label, by the order in which labels first appear.

    The first labels have the colours of PALETTE in full lines, the next have dashes.
    """
    looks = cycler(ls=DASHES) * cycler(color=PALETTE)  # The colour changes first.
    # A cycler that is called begins anew when it ends.
    return dict(zip(dict.fromkeys(labels), looks(), strict=False))


def grid(settings: DataFrame, name: str) -> Figure:
    """Accuracy against split, a line for each p. The CSV has training loss and updates besides."""
    label = pl.format("p = {}", "p").alias("label")
    table = settings.select(label, "p", "split", "n", *statistics_of(REACHED), "updates_mean")
    table = table.sort("p", "split")
    caption = (
        "a line for each p, along which η/√b is the same. split = 1 lowers the learning rate alone,"
        " split = 0 raises the batch size alone."
    )
    axes = {"split": "split: share of the decay carried by η"}
    return _final(name, "Final accuracy over p × split", caption, table, axes)


def accuracy_by_noise(results: Results, settings: DataFrame, name: str) -> Figure:
    """Accuracy of constant noise against δ and against η, a line for each batch size.

    ``settings`` are of constant noise, and differ in η and b alone. The planned δ is that of the
    first epoch: it is the same in all epochs. The measured δ is of the last epoch, as accuracy is.
    """
    by_setting = results.curves.sort("setting", "epoch").group_by("setting", maintain_order=True)
    noise = by_setting.agg(
        delta_planned=pl.col("delta_m_mean").first(),
        delta_measured=pl.col("delta_measured_mean").last(),
    )
    rows = settings.join(noise, on="setting").rename({"learning_rate": "eta", "batch_size": "b"})
    # An epoch of one batch has no noise: its δ is 0, though no δ was measured. A run of such epochs
    # has as many updates as epochs. Where the δ of an optimizer is not known, delta_planned is
    # null, and 0 times null stays null.
    has_one_batch = pl.col("updates_mean") == pl.col("epochs")
    zero_or_null = 0 * pl.col("delta_planned")
    rows = rows.with_columns(
        delta_measured=pl.when(has_one_batch).then(zero_or_null).otherwise("delta_measured")
    )
    columns = ["eta", "b", "delta_planned", "delta_measured", "n", *statistics_of(REACHED)]
    table = rows.select(pl.format("b = {}", "b").alias("label"), *columns).sort("b", "eta")
    caption = (
        "a line for each batch size. If the noise level alone decides, the lines lie on one another"
        " against δ."
    )
    # A δ that is known of no setting has no panel.
    axes = {column: words for column, words in NOISE.items() if table[column].count()}
    return _final(name, "Constant noise: is it δ that decides?", caption, table, axes)


def _final(name: str, title: str, caption: str, table: DataFrame, axes: Words) -> Figure:
    """The figure of the last test accuracy against each of ``axes``, with a line for each label.

    ``axes`` has columns of the table, and what an axis calls them. ``caption`` is the end of a
    sentence that begins with the seeds.
    """
    looks = styles(table["label"])
    drawing, panels = draw.panels(len(axes), looks)
    for ax, (x, words) in zip(panels, axes.items(), strict=True):
        ax.set(title=REACHED["test/accuracy"], xlabel=words)
        # A split is from 0 to 1; δ and η are over decades.
        draw.points(ax, table, x, "test/accuracy", looks, log=x != "split")
    seeds = f"Means over seeds (n = {in_range(table['n'])}) at the last epoch with 95 % intervals"
    return Figure(name, title, f"{seeds}; {caption}", table, drawing)
