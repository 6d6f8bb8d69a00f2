"""How many updates and images a run needs to reach a test accuracy, and what most runs need."""

import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from polars import DataFrame

from igo.ground.errors import require
from igo.ground.numbers import BETWEEN, fault
from igo.ground.statistics import CONFIDENCE
from igo.report.differences import number
from igo.runs.folder import read_records

NEEDED = {"target_updates": "updates", "target_images": "images"}
NEVER = math.inf  # A run that never reaches its target comes after all that do.


def check_target(target: float | None) -> None:
    """Raise a ConfigError unless a target is a share of 1, or None."""
    wrong = target is not None and fault(target, BETWEEN)
    require(not wrong, "target", target, f"{wrong}: 36 % of test accuracy is 0.36")


def with_target(runs: DataFrame, folders: Sequence[Path], target: float | None) -> DataFrame:
    """The runs with NEEDED, of the first evaluation whose test accuracy is ``target`` or higher."""
    if target is None:
        return runs
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
    reached = int((group["target_updates"] < NEVER).sum())
    medians = {words: median(group[name].to_list()) for name, words in NEEDED.items()}
    return {"reached by": f"{reached} of {len(group)}", **medians}


def median(values: Sequence[float]) -> str:
    """``5,930 [5,700, 6,100]``: the median, and its 95 % interval by the order of the values.

    The interval is Thompson's (1936), and needs six values.
    """
    ordered, n = sorted(values), len(values)
    tails = itertools.accumulate(math.comb(n, i) / 2**n for i in range(n))
    outside = sum(2 * tail <= 1 - CONFIDENCE for tail in tails)
    middle = _shown(statistics.median(ordered))
    if not outside or ordered[outside - 1] == NEVER:
        return middle
    return f"{middle} [{_shown(ordered[outside - 1])}, {_shown(ordered[n - outside])}]"


def _shown(value: float) -> str:
    return "never" if value == NEVER else number(value)
