"""How many updates and images a run needs to reach a test accuracy, and what most runs need."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from polars import DataFrame
from scipy.special import bdtr

from igo.ground.errors import require, warn
from igo.ground.numbers import BETWEEN, fault
from igo.ground.statistics import CONFIDENCE
from igo.report.differences import number
from igo.runs.folder import read_records

NEEDED = {"target_updates": "updates", "target_images": "images"}
NEVER = math.inf  # A run that never reaches its target comes after all that do.


def check_target(target: float | None) -> None:
    """Raise a ConfigError unless a target is a share of 1, or None."""
    reason = target is not None and fault(target, BETWEEN)
    require(not reason, "target", target, f"{reason}: 36 % of test accuracy is 0.36")


def with_target(runs: DataFrame, folders: Sequence[Path], target: float | None) -> DataFrame:
    """The runs with NEEDED, of the first evaluation whose test accuracy is ``target`` or higher."""
    if target is None:
        return runs
    if runs.filter("counted")["evaluate_every"].n_unique() > 1:
        warn("the runs differ in evaluate_every: who evaluates less often sees the target later")
    rows = []
    for folder, counts in zip(folders, runs["counted"], strict=True):
        hits = (
            (record["updates"], record["samples"])
            for record in (read_records(folder) if counts else ())
            if (record.get("test/accuracy") or 0) >= target
        )
        rows.append(next(hits, (NEVER, NEVER)))
    return runs.hstack(DataFrame(rows, schema=dict.fromkeys(NEEDED, pl.Float64), orient="row"))


def needed(runs: DataFrame, setting: int) -> dict[str, str]:
    """In words, how many runs of a setting reach the target, and the medians of NEEDED."""
    group = runs.filter("counted", setting=setting)
    hits = int((group["target_updates"] < NEVER).sum())
    medians = {words: median(group[name].to_list()) for name, words in NEEDED.items()}
    return {"reached by": f"{hits} of {len(group)}", **medians}


def median(values: Sequence[float]) -> str:
    """``5,930 [5,700, 6,100]``: the median, and its 95 % interval by the order of the values.

    The interval is Thompson's (1936), and needs six values.
    """
    ranking, n = sorted(values), len(values)
    # The interval goes from the value of this rank to that of the same rank from the end. Fewer
    # than ``rank`` values are below the median with a chance of (1 − CONFIDENCE)/2 at most.
    rank = int((2 * bdtr(range(n), n, 0.5) <= 1 - CONFIDENCE).sum())
    middle = _shown(statistics.median(ranking))
    if not rank or ranking[rank - 1] == NEVER:
        return middle
    return f"{middle} [{_shown(ranking[rank - 1])}, {_shown(ranking[n - rank])}]"


def _shown(value: float) -> str:
    return "never" if value == NEVER else number(value)
