"""What a table and a report read: the tables of runs, of settings and of their epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from polars import DataFrame

from igo.ground.errors import printable
from igo.report.runs import read_runs
from igo.report.settings import averaged, by_setting
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
    """The data of a table and a report.

    Attributes:
        runs: a row for each run, see settings.by_setting, with its ``folder``.
        settings: a row for each setting, see settings.by_setting.
        curves: a row for each epoch of each setting: ``n`` and the statistics of AVERAGED over
            the counted runs. For n = 1 intervals of what was measured are the recorded ones.
        target: the test accuracy of which ``runs`` has target.NEEDED, or None.
    """

    runs: DataFrame
    settings: DataFrame
    curves: DataFrame
    target: float | None = None


def read_results(folders: Sequence[Path], target: float | None = None) -> Results:
    """Read run folders. A damaged folder has a row with the error, and is in no statistics."""
    runs, settings = by_setting(read_runs(folders))
    names = [printable(str(folder)) for folder in folders]
    runs = runs.with_columns(pl.Series("folder", names, pl.String))
    kinds = {"epoch": int} | dict.fromkeys((*AVERAGED, *INTERVAL_ENDS), float)
    rows = [
        (name, setting, *map(record.get, kinds))
        for folder, (name, setting, counts) in zip(
            folders, runs.select("folder", "setting", "counted").iter_rows(), strict=True
        )
        for record in (read_records(folder) if counts else ())
    ]
    schema = {"folder": str, "setting": int, **kinds}
    epochs = DataFrame(rows, schema=schema, orient="row", strict=False)
    return Results(with_target(runs, epochs, target), settings, _curves(epochs), target)


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
