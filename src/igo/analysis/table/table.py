"""The table of many runs: a row for each run, and each setting's statistics over its seeds."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import polars as pl

from igo.analysis import statistics
from igo.analysis.table.record import FINGERPRINT, HEAD, RESULTS, SETTINGS, Row, read_run
from igo.config.schema import NO_EFFECT
from igo.ground.errors import UserError
from igo.ground.files import replace_all

METRICS = ("test/accuracy", "test/accuracy_best", "test/loss", "train/loss", "updates", "seconds",
           "validation/accuracy", "validation/loss")  # fmt: skip
MANY = 2000  # runs, from which on several processes read them
FILES = ("table.csv", "table.parquet", "summary.csv")
# The name of the file or folder of the user's own data, in the first run of a setting.
NAME_OF_DATA = (
    pl.coalesce("dataset.file", "dataset.root").first().str.extract("([^/]+)/*$").alias("data")
)


def read_runs(folders: Iterable[Path]) -> pl.DataFrame:
    """Read run folders, also damaged ones, a row for each (see igo.analysis.table.record.read_run).

    Columns: run, state, error; the settings by their full names; the results. A setting that this
    version does not know is a column of text after the known settings.
    """
    folders = list(folders)
    if len(folders) < MANY:
        rows = [read_run(folder) for folder in folders]
    else:
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            rows = list(pool.map(read_run, folders, chunksize=200))
    known = {n: kind for n, kind in SETTINGS.items() if n != "schedule.p"}  # its column is p
    schema = {**HEAD, **known}
    schema |= {name: str for row in rows for name in row if name not in {**schema, **RESULTS}}
    schema |= RESULTS
    columns = {name: [row.get(name) for row in rows] for name in schema}
    return pl.DataFrame(columns, schema=schema)


def effective(runs: pl.DataFrame) -> list[str]:
    """The columns of settings that change the last epoch's result, without the seed."""
    without = tuple(f"{name}." for name in NO_EFFECT)
    if "imagenet" not in runs["dataset.name"]:  # see schema.result_settings
        without += ("dataset.cache.",)
    return [
        name
        for name in runs.columns
        if name not in {*HEAD, *RESULTS, "seed", "evaluate_every"}
        and not f"{name}.".startswith(without)
    ]


def with_settings(runs: pl.DataFrame) -> pl.DataFrame:
    """The runs whose config.yaml could be read."""
    return runs.filter(pl.col("schedule.profile").is_not_null())


def constants(runs: pl.DataFrame) -> Row:
    """The settings that all runs have in common, without null."""
    first = with_settings(runs).select(effective(runs)).unique()
    return {
        name: first[name][0]
        for name in first.columns
        if first[name].n_unique() == 1 and first[name][0] is not None
    }


def summarise(runs: pl.DataFrame) -> pl.DataFrame:
    """One row for each setting: the runs of one row differ in the seed alone.

    Returns:
        The settings that differ among the runs, sorted; ``data``, the name of the user's own file
        or folder, if the content of the data differs; ``n``, the number of finished runs with
        different seeds, which have the statistics; ``unfinished`` and ``repeated`` (finished runs
        with a seed that is counted already); and for each of METRICS its mean (``…_mean``), sample
        standard deviation (``…_sd``) and Student's 95 % interval of the mean (``…_low``,
        ``…_high``). With n = 1 there is no deviation and no interval. An accuracy that all seeds
        share has no interval. If a run has no value, as its loss overflowed, there is no mean.
    """
    settings = effective(runs)
    known = count_once(with_settings(runs))
    varied = [name for name in settings if known[name].n_unique() > 1]
    counted = pl.col("counted").sum()
    summary = known.group_by(settings).agg(
        counted.cast(pl.Int64).alias("n"),
        (~pl.col("finished")).sum().cast(pl.Int64).alias("unfinished"),
        (pl.col("finished").sum() - counted).cast(pl.Int64).alias("repeated"),
        NAME_OF_DATA,
        *means(METRICS),
    )
    varied = ["data"] * (FINGERPRINT in varied) + varied
    shown = [*varied, "n", "unfinished", "repeated", *statistics_of(METRICS)]
    return with_intervals(summary, METRICS).sort(varied or "n").select(shown)


def count_once(runs: pl.DataFrame) -> pl.DataFrame:
    """Add the columns ``finished`` and ``counted`` (finished, and the first run of its seed)."""
    finished = runs.with_columns(finished=pl.col("state") == "finished")
    once = pl.struct(*effective(runs), "seed", "finished").is_first_distinct()
    return finished.with_columns(counted=pl.col("finished") & once)


def means(metrics: Iterable[str]) -> Iterator[pl.Expr]:
    """``…_mean`` and ``…_sd`` over the counted runs, null where one of these runs has no value."""
    for metric in metrics:
        values = pl.col(metric).filter(pl.col("counted"))
        whole = pl.when(values.null_count() == 0)
        yield whole.then(values.mean()).alias(f"{metric}_mean")
        yield whole.then(values.std()).alias(f"{metric}_sd")


def statistics_of(metrics: Iterable[str]) -> list[str]:
    """The columns that ``means`` and ``with_intervals`` make."""
    return [f"{m}_{statistic}" for m in metrics for statistic in ("mean", "sd", "low", "high")]


def with_intervals(summary: pl.DataFrame, metrics: Sequence[str]) -> pl.DataFrame:
    """Add Student's 95 % interval for each metric; n = 1 has none.

    Intervals are cut at 0, and for accuracies also at 1. An accuracy that is the same in all seeds
    has no interval: accuracies come in steps, and 0 is no estimate of their spread.
    """
    half = pl.Series(statistics.reach(1.0, summary["n"].to_numpy())).fill_nan(None)
    ends = []
    for metric in metrics:
        deviation, largest = pl.col(f"{metric}_sd"), 1.0 if "accuracy" in metric else None
        if largest is not None:
            deviation = pl.when(deviation > 0).then(deviation)
        for sign, end in ((-1, "low"), (1, "high")):
            value = pl.col(f"{metric}_mean") + sign * half * deviation
            ends.append(value.clip(0.0, largest).alias(f"{metric}_{end}"))
    return summary.with_columns(ends)


def write(runs: pl.DataFrame, folder: Path) -> Sequence[Path]:
    """Write table.csv, table.parquet and summary.csv whole or not at all; return their paths."""
    paths = [folder / name for name in FILES]
    parquet = io.BytesIO()
    runs.write_parquet(parquet)
    summary = summarise(runs).write_csv()
    table = runs.write_csv()
    contents = (table.encode(), parquet.getvalue(), summary.encode())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_all(dict(zip(paths, contents, strict=True)))
    except OSError as error:
        raise UserError(f"output: {folder} cannot be written ({error.strerror or error})") from None
    return paths
