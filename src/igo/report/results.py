"""What a report reads: tables of runs, settings and epochs, and their provenance."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from igo.report.table import Row, by_setting, means, read_runs, with_intervals
from igo.runs.folder import read_records, read_status

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
# Words of a command that change no result.
LOCAL = re.compile(r"(seed|runs_dir|data_dir|hydra\.launcher\.\w+|fresh)=|-m$")


@dataclass(frozen=True)
class Results:
    """The data that a report reads.

    Attributes:
        runs: a row for each run, see table.by_setting, with ``folder``, ``command`` (without the
            seed and the folders) and ``worst_case``, the sharpness that was measured.
        settings: a row for each setting, see table.by_setting.
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
    runs, settings = by_setting(read_runs(folders))
    statuses = [read_status(folder) for folder in folders]
    runs = runs.with_columns(
        pl.Series("folder", [str(folder) for folder in folders], dtype=pl.String),
        pl.Series("command", [_command(status) for status in statuses], dtype=pl.String),
        pl.Series("worst_case", [_worst_case(folder) for folder in folders], dtype=pl.Float64),
    )
    rows, kept = [], []
    numbered = runs.select("setting", "seed", "counted").rows()
    for folder, status, (setting, seed, counted) in zip(folders, statuses, numbered, strict=True):
        if counted:
            kept.append(status)
            rows += [r | {"setting": setting, "seed": seed} for r in read_records(folder)]
    values = {name: [_number(row.get(name), kind) for row in rows] for name, kind in EPOCH.items()}
    epochs = pl.DataFrame(values, schema=EPOCH)
    return Results(runs, settings, epochs, _curves(epochs), kept)


def _number(value: object, kind: type) -> Any:
    """The value as a finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return kind(value)


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


def _worst_case(folder: Path) -> float | None:
    """The sharpness in sharpness.json; None if there is none, or if it is damaged."""
    try:
        content = json.loads((folder / "sharpness.json").read_text(encoding="utf-8"))
        value: float | None = _number(content["worst_case"], float)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return value


def _command(status: Row) -> str | None:
    """The command that started a run, without the seed and the folders."""
    try:
        words = shlex.split(str(status.get("command") or ""))
    except ValueError:
        return None
    if len(words) > 1 and words[1].endswith("train.py"):
        words[:2] = ["python", "src/train.py"]
    elif words[:2] != ["igo", "train"]:
        return None
    return shlex.join(word for word in words if not LOCAL.match(word))


def commands(runs: pl.DataFrame, settings: Sequence[int]) -> list[str]:
    """The commands of the counted runs, each once, with all of the seeds that it ran with."""
    counted = runs.filter("counted", pl.col("setting").is_in(settings)).drop_nulls("command")
    by_command = counted.group_by("command").agg(pl.col("seed").unique().sort()).sort("command")
    return [
        " ".join([line, f"seed={','.join(map(str, seeds))}", *["-m"] * (len(seeds) > 1)])
        for line, seeds in by_command.iter_rows()
    ]
