"""What a table and a report read: the tables of runs, of settings and of their epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from polars import DataFrame

from igo.ground.errors import printable
from igo.ground.files import Record
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
    epochs = _epochs(runs, folders)
    return Results(with_target(runs, epochs, target), settings, _curves(epochs), target)


def _epochs(runs: DataFrame, folders: Sequence[Path]) -> DataFrame:
    """A row for each epoch of each counted run, with AVERAGED and INTERVAL_ENDS."""
    rows: list[Record] = []
    for run, folder in zip(runs.iter_rows(named=True), folders, strict=True):
        if run["counted"]:
            of_run = {"folder": run["folder"], "setting": run["setting"]}
            rows += (of_run | record for record in read_records(folder))
    kinds = dict.fromkeys((*AVERAGED, *INTERVAL_ENDS), float)
    schema = {"folder": str, "setting": int, "epoch": int, **kinds}
    return DataFrame(rows, schema=schema, strict=False)


def _curves(epochs: DataFrame) -> DataFrame:
    """The table ``curves`` of Results, by the records of the counted runs."""
    keys = ["setting", "epoch"]
    curves = averaged(epochs, keys, AVERAGED)
    # A run's intervals are used only where n = 1, and there any run is the only one.
    any_run = epochs.unique(keys).select(*keys, *INTERVAL_ENDS)
    joined = curves.join(any_run, on=keys, suffix="_of_run")
    ends = (
        pl.when(pl.col("n") == 1).then(f"{end}_of_run").otherwise(end).alias(end)
        for end in INTERVAL_ENDS
    )
    return joined.with_columns(ends).select(curves.columns).sort(keys)
