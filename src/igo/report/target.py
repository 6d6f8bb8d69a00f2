"""How many updates and images a run needs to reach a test accuracy, and what most runs need."""

import math
import statistics
from collections.abc import Sequence

import polars as pl
from polars import DataFrame

from igo.ground.errors import warn
from igo.ground.statistics import CONFIDENCE
from igo.report.formats import number

NEEDED = {"target_updates": "updates", "target_images": "images"}
NEVER = math.inf  # A run that never reaches its target comes after all that do.


def with_target(runs: DataFrame, epochs: DataFrame, target: float | None) -> DataFrame:
    """The runs with NEEDED, of the first evaluation whose test accuracy is ``target`` or higher.

    ``epochs`` has the records of counted runs, in order, each with the ``folder`` of its run.
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
    """In words, by the titles of a table: how many runs of a setting reach the target, and the
    medians of NEEDED.
    """
    runs = runs.filter("counted", setting=setting)
    hits = int((runs["target_updates"] < NEVER).sum())
    medians = {words: median(runs[name].to_list()) for name, words in NEEDED.items()}
    return {"reached by": f"{hits} of {len(runs)}", **medians}


def median(values: Sequence[float]) -> str:
    """``5,930 [5,700, 6,100]``: the median, and its 95 % interval by the order of the values.

    The interval is Thompson's (1936), and needs six values.
    """
    from scipy.stats import quantile_test  # The import takes a second.

    low, high = quantile_test(values, p=0.5).confidence_interval(CONFIDENCE)
    middle = number(statistics.median(values))
    # The lower end is NaN for few values, and NEVER where few runs reach the target: neither is
    # below NEVER.
    return f"{middle} [{number(low)}, {number(high)}]" if low < NEVER else middle
