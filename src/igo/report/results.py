"""What a report reads: tables of runs, settings and epochs, and their provenance."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from igo.report import table
from igo.report.names import SCHEDULE
from igo.report.table import METRICS, NAME_OF_DATA, effective, means, with_intervals
from igo.runs.folder import read_records, read_status

Row = dict[str, Any]

MEASURED = (  # entries of an epoch's record
    "test/accuracy", "test/loss", "train/loss", "train/accuracy", "delta_m", "delta_measured",
    "delta_measured_low", "delta_measured_high", "eta_m", "b_m", "gamma_m", "gradient_variance",
)  # fmt: skip
EPOCH: dict[str, type] = {
    "setting": int, "seed": int, "epoch": int, "stage": int, "updates": float,
    **dict.fromkeys(MEASURED, float),
}  # fmt: skip
ENDS = ("delta_measured_low", "delta_measured_high")  # of the interval that one run measured
AVERAGED = ("updates", *(name for name in MEASURED if name not in ("gamma_m", *ENDS)))
SHARPNESS = ("worst_case",)  # entries of sharpness.json
# Settings that change training only through the plan.
THROUGH_PLAN = (
    *SCHEDULE, "epochs", "learning_rate", "batch_size", "max_batch_size", "schedule.stages",
    "schedule.batch_multiple", "schedule.final_updates",
)  # fmt: skip
# Words of a command that change no result.
LOCAL = re.compile(r"(seed|runs_dir|data_dir|hydra\.launcher\.\w+|fresh)=")


@dataclass(frozen=True)
class Results:
    """The data that a report reads.

    Attributes:
        runs: a row for each run, as table.read_runs makes it, with ``setting`` (a number; runs of
            one setting differ in the seed alone; null if config.yaml cannot be read), ``counted``
            (finished, and the first run of its seed), ``folder``, ``command`` and SHARPNESS.
        settings: a row for each setting: ``setting``, a column for each setting that changes a
            result, ``n`` (counted runs), ``data`` (the name of the user's own file or folder), and
            the statistics of METRICS over the counted runs, see table.summarise.
        epochs: a row for each epoch of each counted run, with the columns EPOCH.
        curves: a row for each epoch of each setting: ``n``, and ``…_mean``, ``…_sd``, ``…_low``
            and ``…_high`` of each of AVERAGED over the counted runs. For n = 1 the interval of the
            measured δ is the recorded one.
        statuses: status.json of each counted run.
    """

    runs: pl.DataFrame
    settings: pl.DataFrame
    epochs: pl.DataFrame
    curves: pl.DataFrame
    statuses: list[Row]

    def row(self, setting: int) -> Row:
        """The row of a setting."""
        return self.settings.row(by_predicate=pl.col("setting") == setting, named=True)


def read(folders: Sequence[Path]) -> Results:
    """Read run folders. A damaged folder has a row with the error, and is in no statistics."""
    statuses = [read_status(folder) for folder in folders]
    runs = table.read_runs(folders)
    names = effective(runs)
    runs = runs.with_columns(
        pl.Series("plan", [_plan(folder) for folder in folders], dtype=pl.String),
        pl.Series("folder", [str(folder) for folder in folders], dtype=pl.String),
        pl.Series("command", [command(status) for status in statuses], dtype=pl.String),
        *_sharpness(folders),
    )
    settings, numbers = _settings(runs, names)
    finished = (pl.col("state") == "finished") & pl.col("setting").is_not_null()
    first = pl.struct("setting", "seed", finished).is_first_distinct()
    numbered = runs.drop("plan").with_columns(numbers.alias("setting"))
    numbered = numbered.with_columns(counted=finished & first)
    epochs = _epochs(numbered, folders)
    return Results(
        runs=numbered,
        settings=_with_statistics(settings, numbered),
        epochs=epochs,
        curves=_curves(epochs),
        statuses=list(itertools.compress(statuses, numbered["counted"])),
    )


def _plan(folder: Path) -> str | None:
    """The digest of plan.csv; None where the file is missing."""
    try:
        return hashlib.sha256((folder / "plan.csv").read_bytes()).hexdigest()
    except OSError:
        return None


def _settings(runs: pl.DataFrame, names: Sequence[str]) -> tuple[pl.DataFrame, pl.Series]:
    """Each setting once, numbered in the order of the values; and each run's number.

    Two runs have the same setting if only seeds, and values that change no result, differ. Values
    of THROUGH_PLAN may differ if the plan is the same: ``graduated`` at split 1 is ``polynomial``.
    The first of these spellings is shown.
    """
    through_plan = [name for name in names if name in THROUGH_PLAN]
    plan = pl.col("plan").drop_nulls().first().over(names)
    unknown = [
        pl.when(pl.col("plan").is_null()).then(name).alias(f"unplanned {name}")
        for name in through_plan
    ]
    key = ["plan", *(n for n in names if n not in through_plan)]
    keyed = runs.select(plan, *names).with_columns(unknown)
    key += [name for name in keyed.columns if name.startswith("unplanned ")]
    distinct = (
        table.with_settings(keyed)
        .sort(names, nulls_last=True)
        .unique(key, keep="first", maintain_order=True)
        .with_row_index("setting")
        .with_columns(pl.col("setting").cast(pl.Int64))
    )
    joined = keyed.join(
        distinct.select("setting", *key), on=key, how="left", nulls_equal=True,
        maintain_order="left",
    )  # fmt: skip
    has_settings = pl.col("schedule.profile").is_not_null()
    numbers = joined.select(pl.when(has_settings).then("setting"))["setting"]
    return distinct.select("setting", *names), numbers


def _with_statistics(settings: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    known = runs.filter(pl.col("setting").is_not_null()).group_by("setting")
    counts = known.agg(
        pl.col("counted").sum().cast(pl.Int64).alias("n"),
        NAME_OF_DATA,
        (pl.col("state") != "finished").sum().cast(pl.Int64).alias("unfinished"),
        *means(METRICS),
    )
    return settings.join(with_intervals(counts, METRICS), on="setting", maintain_order="left")


def _epochs(runs: pl.DataFrame, folders: Sequence[Path]) -> pl.DataFrame:
    numbered = zip(folders, runs.select("setting", "seed", "counted").iter_rows(), strict=True)
    rows = [
        record | {"setting": setting, "seed": seed}
        for folder, (setting, seed, counted) in numbered
        if counted
        for record in read_records(folder)
    ]
    columns = {name: [_number(row.get(name), kind) for row in rows] for name, kind in EPOCH.items()}
    return pl.DataFrame(columns, schema=EPOCH)


def _number(value: object, kind: type) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return kind(value) if is_number else None


def _curves(epochs: pl.DataFrame) -> pl.DataFrame:
    by_epoch = epochs.with_columns(counted=pl.lit(value=True)).group_by("setting", "epoch")
    averaged = by_epoch.agg(
        pl.len().cast(pl.Int64).alias("n"),
        *(pl.col(name).first().alias(f"{name}_of_run") for name in ENDS),
        *means(AVERAGED),
    )
    curves = with_intervals(averaged, AVERAGED).with_columns(
        pl.when(pl.col("n") == 1).then(f"{name}_of_run").otherwise(name).alias(name)
        for name in ENDS
    )
    return curves.drop(f"{name}_of_run" for name in ENDS).sort("setting", "epoch")


def _sharpness(folders: Sequence[Path]) -> list[pl.Series]:
    rows = [_read_sharpness(folder) for folder in folders]
    return [
        pl.Series(name, [_number(row.get(name), float) for row in rows], dtype=pl.Float64)
        for name in SHARPNESS
    ]


def _read_sharpness(folder: Path) -> Row:
    """The entries of sharpness.json, each plain or under ``value``; none if it is damaged."""
    try:
        content = json.loads((folder / "sharpness.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = content if isinstance(content, dict) else {}
    return {k: v.get("value") if isinstance(v, dict) else v for k, v in entries.items()}


def command(status: Row) -> str | None:
    """The command that started a run, without the seed and the folders."""
    try:
        words = shlex.split(str(status.get("command") or ""))
    except ValueError:
        return None
    program = words[:2]
    if len(program) == 2 and program[1].endswith("train.py"):
        program = ["python", "src/train.py"]
    elif program != ["igo", "train"]:
        return None
    rest = [w for w in words[2:] if w != "-m" and not LOCAL.match(w)]
    return shlex.join([*program, *rest])


def commands(runs: pl.DataFrame, settings: Sequence[int]) -> list[str]:
    """The commands of the counted runs, each once, with all of the seeds that it ran with."""
    counted = runs.filter("counted", pl.col("setting").is_in(settings))
    known = counted.filter(pl.col("command").is_not_null())
    by_command = known.group_by("command").agg(pl.col("seed").unique().sort()).sort("command")
    complete = []
    for line, seeds in by_command.iter_rows():
        program, script, *rest = line.split(" ")
        sweep = ["-m"] if len(seeds) > 1 else []
        words = [program, script, *sweep, *rest, f"seed={','.join(map(str, seeds))}"]
        complete.append(" ".join(words))
    return complete
