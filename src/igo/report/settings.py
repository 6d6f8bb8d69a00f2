"""Settings as a table: runs that differ in the seed alone are a row, with means over seeds."""

from collections.abc import Iterable, Sequence

import polars as pl
from polars import DataFrame

from igo.config import schema
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


def constants(settings: DataFrame) -> Record:
    """What all settings have in common, without null."""
    in_common = (name for name in names_in(settings) if settings[name].n_unique() == 1)
    return {name: settings[name][0] for name in in_common if settings[name][0] is not None}


def names_in(settings: DataFrame) -> list[str]:
    """The columns of ``by_setting``'s table that are settings: from ``setting`` to ``data``."""
    return settings.columns[1 : settings.columns.index("data")]


def differing(settings: DataFrame) -> list[str]:
    """The settings that are not the same in all rows."""
    return [name for name in names_in(settings) if settings[name].n_unique() > 1]


def by_setting(runs: DataFrame) -> tuple[DataFrame, DataFrame]:
    """The runs with the numbers of their settings, and a row for each setting.

    Runs of one setting differ in REPEATED (seed and evaluate_every), in values that change no
    result, or in the data where each seed has data of its own.

    Returns:
        The runs of ``read_runs`` with two more columns: ``setting``, the number of the run's row in
        the second table (null if config.yaml cannot be read), and ``counted`` (finished, and the
        first such run of its seed).
        A table with a row for each setting, in the order of their values. Its columns are the
        number, ``setting``; the values that change a result; ``data``, the name of the user's own
        file or folder; ``unfinished``, a number of runs; ``n`` and the statistics of METRICS over
        the counted runs.
    """
    runs, settings = _with_setting(runs)
    finished = pl.col("state") == "finished"
    # An unfinished run does not hide a finished one of the same seed.
    first_of_seed = pl.struct("setting", "seed", finished).is_first_distinct()
    runs = runs.with_columns(counted=finished & first_of_seed & pl.col("setting").is_not_null())
    files = pl.coalesce("dataset.file", "dataset.root").str.extract("([^/]+)/*$")
    file_count = files.n_unique()
    run_counts = (
        runs.drop_nulls("setting")
        .group_by("setting")
        .agg(
            data=pl.when(file_count > 1)
            .then(pl.lit("own data for each seed"))
            .otherwise(files.first()),
            unfinished=(~finished).sum().cast(pl.Int64),
        )
    )
    statistics_of_settings = averaged(runs.filter("counted"), ["setting"], METRICS)
    for table in (run_counts, statistics_of_settings):
        settings = settings.join(table, on="setting", how="left", maintain_order="left")
    return runs, settings.with_columns(pl.col("n").fill_null(0))


def _with_setting(runs: DataFrame) -> tuple[DataFrame, DataFrame]:
    """The runs with ``setting``, and the values of each setting that change a result."""
    no_settings = {*HEAD, *RESULTS, *schema.REPEATED}
    names = [
        name
        for name in runs.columns
        if name not in no_settings and not name.startswith(CODE) and schema.has_effect(name)
    ]
    if FINGERPRINT in names and _each_seed_has_own_data(runs):
        names.remove(FINGERPRINT)
    values = runs.select(names)
    # The profile is null where config.yaml cannot be read: such a run has no setting.
    rows = values.drop_nulls("schedule.profile").unique().sort(names, nulls_last=True)
    settings = rows.with_row_index("setting").cast({"setting": pl.Int64})
    # Values may be null in all runs of a setting, so null is equal to null.
    of_runs = values.join(settings, on=names, how="left", nulls_equal=True, maintain_order="left")
    return runs.with_columns(of_runs["setting"]), settings


def _each_seed_has_own_data(runs: DataFrame) -> bool:
    """Whether each seed has data of its own, as where the seed draws the data.

    Runs on such data are of one setting.
    """
    pairs = runs.select("seed", FINGERPRINT).unique()
    is_one_to_one = pairs["seed"].n_unique() == pairs[FINGERPRINT].n_unique() == len(pairs)
    return is_one_to_one and len(pairs) > 2  # Two files with a seed each may be two data sets.


def statistics_of(metrics: Iterable[str]) -> list[str]:
    """The columns of ``averaged``, without n."""
    return [f"{m}_{statistic}" for m in metrics for statistic in ("mean", "sd", "low", "high")]


def averaged(rows: DataFrame, keys: Sequence[str], metrics: Sequence[str]) -> DataFrame:
    """Statistics of each metric over the ``n`` rows that are alike in ``keys``, and ``n``.

    The statistics are the mean (``…_mean``), the sample standard deviation (``…_sd``) and
    Student's 95 % interval of the mean (``…_low``, ``…_high``). If a row has no value, as its loss
    overflowed, there is no mean. With n = 1 there is no deviation and no interval. Intervals are
    cut at 0, and for accuracies also at 1. An accuracy that is the same in all rows has no
    interval: accuracies come in steps, and 0 is no estimate of their spread.
    """
    values = pl.col(metrics)
    complete = pl.when(values.null_count() == 0)
    groups = rows.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("n"),
        complete.then(values.mean()).name.suffix("_mean"),
        complete.then(values.std()).name.suffix("_sd"),
    )
    # Half of an interval, in standard deviations; null for n = 1.
    reach_of_one = pl.Series(reach(1.0, groups["n"].to_numpy())).fill_nan(None)
    ends = []
    for metric in metrics:
        mean, deviation, largest = pl.col(f"{metric}_mean"), pl.col(f"{metric}_sd"), None
        if "accuracy" in metric:
            largest = 1.0
            # A deviation of 0 becomes null, and so do the ends.
            deviation = pl.when(deviation > 0).then(deviation)
        half_width = reach_of_one * deviation
        ends.append((mean - half_width).clip(0.0, largest).alias(f"{metric}_low"))
        ends.append((mean + half_width).clip(0.0, largest).alias(f"{metric}_high"))
    return groups.with_columns(ends)
