"""What a report reads: tables of runs, settings and epochs, and their provenance."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from polars import DataFrame
from polars.selectors import starts_with

from igo.report.grouping import averaged, by_setting
from igo.report.reading import CODE, THEN, read_runs
from igo.report.target import with_target
from igo.runs.folder import read_records

# What one run measured in an epoch has an interval; ‖∇f‖ may have an upper bound alone.
MEASURED = ("delta_measured", "gradient_variance", "gradient_norm", "noise_scale")
INTERVAL_ENDS = [f"{name}_{end}" for name in MEASURED for end in ("low", "high")]
# These entries of an epoch's record are averaged over runs.
AVERAGED = (
    "updates",
    "samples",
    "test/accuracy",
    "test/loss",
    "train/loss",
    "train/accuracy",
    "delta_m",
    "eta_m",
    "b_m",
    "gamma_m",
    *MEASURED,
)


@dataclass(frozen=True)
class Results:
    """The data that a report reads.

    Attributes:
        runs: a row for each run, see grouping.by_setting, with its ``folder``.
        settings: a row for each setting, see grouping.by_setting.
        curves: a row for each epoch of each setting: ``n`` and the statistics of AVERAGED over
            the counted runs. For n = 1 intervals of what was measured are the recorded ones.
        target: the test accuracy of which ``runs`` has target.NEEDED, or None.
    """

    runs: DataFrame
    settings: DataFrame
    curves: DataFrame
    target: float | None = None


def read(folders: Sequence[Path], target: float | None = None) -> Results:
    """Read run folders. A damaged folder has a row with the error, and is in no statistics."""
    runs, settings = by_setting(read_runs(folders))
    names = [os.fsencode(folder).decode(errors="backslashreplace") for folder in folders]
    runs = runs.with_columns(pl.Series("folder", names, pl.String))
    kinds = {"epoch": int} | dict.fromkeys((*AVERAGED, *INTERVAL_ENDS), float)
    rows = [
        (setting, *map(record.get, kinds))
        for folder, setting, counts in zip(folders, runs["setting"], runs["counted"], strict=True)
        for record in (read_records(folder) if counts else ())
    ]
    epochs = DataFrame(rows, schema={"setting": int, **kinds}, orient="row", strict=False)
    runs = with_target(runs, folders, target)
    return Results(runs, settings, _curves(epochs), target)


def _curves(epochs: DataFrame) -> DataFrame:
    keys = ["setting", "epoch"]
    curves = averaged(epochs, keys, AVERAGED)
    one_run = epochs.unique(keys).select(*keys, *INTERVAL_ENDS)
    ends = (
        pl.when(pl.col("n") == 1).then(f"{end}_of_run").otherwise(end).alias(end)
        for end in INTERVAL_ENDS
    )
    table = curves.join(one_run, on=keys, suffix="_of_run").with_columns(ends)
    return table.select(curves.columns).sort(keys)


def mixed(runs: DataFrame, labels: Mapping[int, str]) -> list[str]:
    """The settings whose counted runs are of different code or versions, and of which.

    If there is no such setting, and the settings differ from each other in these, a line says so.
    """
    runs = runs.filter("counted", pl.col("setting").is_in([*labels]))
    lines = [
        _mixed(runs.filter(setting=setting), f"the runs of {label}")
        for setting, label in labels.items()
    ]
    if not any(lines):
        lines = [_mixed(runs, "the settings")]
    return [line for line in lines if line]


def _mixed(runs: DataFrame, name: str) -> str:
    """A line of the code and versions in which these runs differ; else ""."""
    parts = []
    for column in runs.select(starts_with(CODE)):
        values = column.drop_nulls().unique().sort()
        if len(values) > 1 or any(THEN in value for value in values):
            parts.append(f"{column.name.removeprefix(CODE)} {', '.join(values)}")
    commits = ", ".join(map(short, runs["commit"].fill_null("unknown").unique().sort()))
    return f"{name} are of different code: {'; '.join(parts)}; commits {commits}" if parts else ""


def short(commit: str) -> str:
    """A commit, or those of a run's starts, by seven digits each; the rest is kept."""
    return re.sub(r"\b([0-9a-f]{7})[0-9a-f]+", r"\1", commit)


def commands(runs: DataFrame, settings: Sequence[int]) -> list[str]:
    """The commands of the counted runs, each once, with all of the seeds that it ran with."""
    group = runs.filter("counted", pl.col("setting").is_in(settings)).drop_nulls("command")
    by_command = group.group_by("command").agg(pl.col("seed").unique().sort()).sort("command")
    return [
        f"{line} seed={','.join(map(str, seeds))}{' -m' * (len(seeds) > 1)}"
        for line, seeds in by_command.iter_rows()
    ]
