"""Settings as a table, and in words: runs that differ in the seed alone are a row, with means.

In this room a *setting* is such a row: all values of config.yaml that change a run's result. It has
a number.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import polars as pl
from polars import DataFrame
from polars.selectors import starts_with

from igo.config import schema
from igo.config.names import of_schedule, words
from igo.ground.files import Record
from igo.ground.statistics import reach
from igo.report.provenance import CODE
from igo.report.runs import FINGERPRINT, HEAD, RESULTS

# What a whole training took and did, in words: settings that are compared may differ in totals.
TOTALS = {
    "updates": "updates",
    "samples": "images",
    "eta_sum": "Σ η",
    "eta_max": "largest η",
    "eta_over_sqrt_b": "mean η/√b",
    "delta": "mean δ measured",
    "b_max": "largest b",
    "seconds": "seconds",
}
METRICS = (
    "test/accuracy",
    "test/accuracy_best",
    "test/loss",
    "train/loss",
    "validation/accuracy",
    "validation/loss",
    *TOTALS,
)
# These follow from a data set: its digest, and facts about its images.
FACTS = {
    FINGERPRINT,
    "dataset.classes",
    "dataset.channels",
    "dataset.image_size",
    "dataset.mean",
    "dataset.std",
}
# The settings whose η and b are constant: of constant profile, without a table of b besides.
CONSTANT_NOISE = (pl.col("schedule.profile") == "constant") & pl.col("schedule.sizes").is_null()


def by_setting(runs: DataFrame) -> tuple[DataFrame, DataFrame]:
    """The runs, each with the number of its setting, and a row for each setting.

    Runs of one setting have the same values. Not compared are values that change no result, those
    of REPEATED (seed and evaluate_every), and the data where each seed has data of its own.

    Returns:
        The runs of ``read_runs`` with two more columns: ``setting``, the number of the run's row in
        the second table (null if config.yaml cannot be read), and ``counted``: whether the run has
        finished, and is the first such run of its setting and seed.
        A table with a row for each setting, in the order of their values. Its columns are
        ``setting``, a number from 0 on; the values; ``data``, the name of the user's own file or
        folder; ``unfinished``, how many runs have not finished; ``n``, how many are counted; and
        the statistics of METRICS over the counted runs.
    """
    no_effect = starts_with(CODE, *schema.NO_EFFECT)
    names = runs.drop(*HEAD, *RESULTS, *schema.REPEATED, no_effect).columns
    if FINGERPRINT in names and _each_seed_has_own_data(runs):
        names.remove(FINGERPRINT)
    finished = pl.col("state") == "finished"
    # The last name in a path stands for the user's own data.
    files = pl.coalesce("dataset.file", "dataset.root").str.extract("([^/]+)/*$")
    settings = (
        # The profile is null where config.yaml cannot be read: such a run has no setting.
        runs.drop_nulls("schedule.profile")
        .group_by(names)
        .agg(
            data=pl.when(files.n_unique() > 1)
            .then(pl.lit("own data for each seed"))
            .otherwise(files.first()),
            unfinished=(~finished).sum().cast(pl.Int64),
        )
        .sort(names, nulls_last=True)
        .with_row_index("setting")
        .cast({"setting": pl.Int64})
    )
    numbers = settings.select("setting", *names)
    # A value may be null in all runs of a setting, so null is equal to null.
    runs = runs.join(numbers, on=names, how="left", nulls_equal=True, maintain_order="left")
    # An unfinished run does not hide a finished one of the same seed.
    first_of_seed = pl.struct("setting", "seed", finished).is_first_distinct()
    runs = runs.with_columns(counted=finished & first_of_seed & pl.col("setting").is_not_null())
    statistics = averaged(runs.filter("counted"), ["setting"], METRICS)
    settings = settings.join(statistics, on="setting", how="left", maintain_order="left")
    # A setting without a counted run has no statistics, and n is null there.
    return runs, settings.with_columns(pl.col("n").fill_null(0))


def _each_seed_has_own_data(runs: DataFrame) -> bool:
    """Whether each seed has one data set and each data set one seed: the seed draws the data.

    Two seeds do not show this, as two files with a seed each may be two data sets.
    """
    # With as many pairs as seeds and as data sets, none of them is in two pairs.
    pairs = runs.select("seed", FINGERPRINT).unique()
    is_one_to_one = pairs["seed"].n_unique() == pairs[FINGERPRINT].n_unique() == len(pairs)
    return is_one_to_one and len(pairs) > 2


def statistics_of(metrics: Iterable[str]) -> list[str]:
    """The columns that ``averaged`` makes of metrics, four of each."""
    return [f"{m}_{statistic}" for m in metrics for statistic in ("mean", "sd", "low", "high")]


def averaged(rows: DataFrame, keys: Sequence[str], metrics: Sequence[str]) -> DataFrame:
    """Statistics of each metric over rows that are alike in ``keys``, a row for each group.

    Columns are the keys, ``n`` (how many rows a group has), and of each metric the mean
    (``…_mean``), the sample standard deviation (``…_sd``) and Student's 95 % interval of the mean
    (``…_low``, ``…_high``). What is not known is null. All four are null if the metric is null in a
    row, such as a loss that overflowed. Deviation and interval are null for n = 1. An accuracy that
    is the same in all rows has no interval: accuracies come in steps, and 0 is no estimate of their
    spread. No metric is below 0 and no accuracy above 1, so intervals are cut there.
    """
    values = pl.col(metrics)
    complete = pl.when(values.null_count() == 0)  # For other groups ``then`` gives null.
    groups = rows.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("n"),
        complete.then(values.mean()).name.suffix("_mean"),
        complete.then(values.std()).name.suffix("_sd"),
    )
    # Half of an interval is t·sd/√n, and this is t/√n of each group; null for n = 1.
    reach_of_one = pl.Series(reach(sd=1.0, n=groups["n"].to_numpy())).fill_nan(None)
    ends = []
    for metric in metrics:
        mean, deviation = pl.col(f"{metric}_mean"), pl.col(f"{metric}_sd")
        largest = None
        if "accuracy" in metric:
            largest = 1.0
            deviation = pl.when(deviation > 0).then(deviation)  # A deviation of 0 becomes null.
        half_width = reach_of_one * deviation
        ends.append((mean - half_width).clip(0.0, largest).alias(f"{metric}_low"))
        ends.append((mean + half_width).clip(0.0, largest).alias(f"{metric}_high"))
    return groups.with_columns(ends)


def names_in(settings: DataFrame) -> list[str]:
    """The columns of ``by_setting``'s second table that are values, between its number and data."""
    return settings.columns[1 : settings.columns.index("data")]


def constants(settings: DataFrame) -> Record:
    """The values that are the same in all rows of settings, by name; null values are left out."""
    in_common = (name for name in names_in(settings) if settings[name].n_unique() == 1)
    return {name: settings[name][0] for name in in_common if settings[name][0] is not None}


def differing(settings: DataFrame) -> list[str]:
    """The names of the values that are not the same in all rows of settings."""
    return [name for name in names_in(settings) if settings[name].n_unique() > 1]


def shared(row: Record, names: Collection[str]) -> list[str]:
    """The values of ``names`` in words, such as ``["Method 3", "40 epochs"]``.

    All settings that are shown have these values in common. ``row`` is any of their rows.
    """
    # Settings of noise say how C² is measured, which changes no training.
    told_names = [name for name in names if name not in FACTS and not name.startswith("noise.")]
    # ``words`` names a method by the whole schedule. The settings of the schedule that are not in
    # ``names`` are left out: they may be of this row alone, and must not name the schedule of all.
    values = {name: row[name] for name in row if name in names or not of_schedule(name)}
    return words(values, told_names)


def labels(settings: DataFrame) -> dict[int, str]:
    """The label of each setting, by its number: the values in which settings differ, in words.

    No two labels are equal.
    """
    # Where nothing differs, as there is one setting, its label is the schedule.
    names = differing(settings) or [*filter(of_schedule, settings.columns)]
    if settings["data"].n_unique() > 1 or "dataset.name" in names:
        # The name of a data set, or of the user's own file, stands for all facts of its images.
        other_names = [name for name in names if name not in {"dataset.name", *FACTS}]
        names = ["dataset.name", *other_names]
    by_setting = {}
    for row in settings.to_dicts():
        # ``words`` leaves out defaults. If nothing of a row is left, all of ``names`` are told.
        texts = words(row, names) or words(row, names, every=True)
        by_setting[row["setting"]] = ", ".join(texts)
    counts = Counter(by_setting.values())
    for setting, label in by_setting.items():
        if counts[label] > 1:  # Two data sets may have one name.
            by_setting[setting] = f"{label} (setting {setting})"
    return by_setting


def without_delta(settings: DataFrame) -> list[str]:
    """A sentence for each optimizer of the settings whose δ is not known."""
    configs = map(schema.OptimizerConfig, settings["optimizer.name"].unique(maintain_order=True))
    return [config.why_null for config in configs if config.why_null]
