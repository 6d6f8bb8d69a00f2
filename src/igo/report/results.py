"""What a table and a report read: the tables of runs, of settings and of their epochs.

With a target, a test accuracy, the runs have what they need to reach it.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from polars import DataFrame

from igo.ground.errors import printable, warn
from igo.ground.files import Record
from igo.ground.statistics import CONFIDENCE
from igo.report.formats import number
from igo.report.runs import read_runs
from igo.report.settings import averaged, by_setting
from igo.runs.folder import read_records

# A run measures these in each epoch, and records a 95 % interval of each, from this run alone.
# Where ‖∇f‖ was not resolved, gradient_norm and noise_scale are null. The interval of gradient_norm
# then begins at 0, and that of noise_scale has no upper end.
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
NEEDED = {"target_updates": "updates", "target_images": "images"}  # Columns, and their titles.
NEVER = math.inf  # A run that never reaches its target comes after all that do.


@dataclass(frozen=True)
class Results:
    """The data of a table and a report.

    Attributes:
        runs: a row for each run, see settings.by_setting, with its ``folder``.
        settings: a row for each setting, see settings.by_setting.
        curves: a row for each ``epoch`` of each ``setting``: ``n`` and the statistics of AVERAGED
            over the counted runs. For n = 1 intervals of what was measured are the recorded ones.
        target: the test accuracy, as a share, for which ``runs`` has NEEDED; or None.
    """

    runs: DataFrame
    settings: DataFrame
    curves: DataFrame
    target: float | None


def read_results(folders: Sequence[Path], target: float | None = None) -> Results:
    """Read run folders. A damaged folder has a row with the error, and is in no statistics."""
    runs, settings = by_setting(read_runs(folders))
    # ``read_runs`` keeps the order of the folders.
    names = [printable(str(folder)) for folder in folders]
    runs = runs.with_columns(pl.Series("folder", names, pl.String))
    epochs = _epochs(runs, folders)
    return Results(_with_target(runs, epochs, target), settings, _curves(epochs), target)


def _epochs(runs: DataFrame, folders: Sequence[Path]) -> DataFrame:
    """A row for each epoch of each counted run: AVERAGED and INTERVAL_ENDS, null where not known.

    Its columns ``folder`` and ``setting`` are those of the run. ``folders`` are the paths of all
    rows of ``runs``.
    """
    rows: list[Record] = []
    for run, path in zip(runs.iter_rows(named=True), folders, strict=True):
        if run["counted"]:
            of_run = {"folder": run["folder"], "setting": run["setting"]}
            rows += (of_run | record for record in read_records(path))
    kinds = dict.fromkeys((*AVERAGED, *INTERVAL_ENDS), float)
    schema = {"folder": str, "setting": int, "epoch": int, **kinds}
    return DataFrame(rows, schema=schema, strict=False)


def _curves(epochs: DataFrame) -> DataFrame:
    """The table ``curves`` of Results, from the epochs of all counted runs."""
    keys = ["setting", "epoch"]
    curves = averaged(epochs, keys, AVERAGED)
    # Of one run there is no interval over seeds: the ends are null, and ``update`` writes there
    # those that this run recorded.
    lone_epochs = epochs.filter(pl.len().over(keys) == 1)
    return curves.update(lone_epochs.select(*keys, *INTERVAL_ENDS), on=keys).sort(keys)


def _with_target(runs: DataFrame, epochs: DataFrame, target: float | None) -> DataFrame:
    """The runs with NEEDED: updates and images up to the first test accuracy of ``target`` or more.

    ``epochs`` has the records of counted runs, in order, each with the ``folder`` of its run. Of
    other runs, and of those that never reach it, NEEDED is NEVER. Without a target the runs stay as
    they are.
    """
    if target is None:
        return runs
    if runs.filter("counted")["evaluate_every"].n_unique() > 1:
        warn("the runs differ in evaluate_every: who evaluates less often sees the target later")
    hits = epochs.filter(pl.col("test/accuracy") >= target).unique("folder", keep="first")
    needed = hits.select("folder", target_updates="updates", target_images="samples")
    joined = runs.join(needed, on="folder", how="left", maintain_order="left")
    return joined.with_columns(pl.col(*NEEDED).fill_null(NEVER))


def needed(runs: DataFrame, setting: int) -> dict[str, str]:
    """Cells of a table, by their titles: what a setting needs to reach the target.

    The first cell says how many of its counted runs reach the target, as ``5 of 8``. The others are
    the medians of NEEDED over all of these runs, see ``median``.
    """
    runs = runs.filter("counted", setting=setting)
    hits = int((runs["target_updates"] < NEVER).sum())
    medians = {title: median(runs[name].to_list()) for name, title in NEEDED.items()}
    return {"reached by": f"{hits} of {len(runs)}", **medians}


def median(values: Sequence[float]) -> str:
    """``5,930 [5,700, 6,100]``: the median, and its 95 % interval by the order of the values.

    The interval is Thompson's (1936), which needs six values. The interval is left out for fewer
    values, and where both of its ends are NEVER.
    """
    from scipy.stats import quantile_test  # The import takes a second.

    low, high = quantile_test(values, p=0.5).confidence_interval(CONFIDENCE)
    middle = number(statistics.median(values))
    # With few values ``low`` is NaN, which is not below NEVER. If ``low`` is NEVER, so is ``high``.
    return f"{middle} [{number(low)}, {number(high)}]" if low < NEVER else middle
