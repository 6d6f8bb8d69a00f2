"""The number of seeds that such runs need, from the spread of their paired differences.

The runs are a pilot study: their spread is used, their means are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import polars as pl

from igo.analysis import statistics
from igo.analysis.statistics import LEVEL
from igo.analysis.table import table
from igo.ground.words import aligned, counted
from igo.report.comparison import accuracy_step, by_seed, compare
from igo.report.families import families
from igo.report.phrases import least_seeds
from igo.report.results import Results

METRIC = "test/accuracy"
MOST_SETTINGS = 16  # of a family, whose pairs are listed


def lines(results: Results, difference: float, margin: float) -> Iterator[str]:
    """A block for each family: a line for each pair of settings, and the seeds that all need.

    Args:
        results: pilot runs; each pair needs two common seeds or more.
        difference: the difference of test accuracy to detect, in points.
        margin: the margin of equivalence, in points.
    """
    for family in families(results.settings):
        settings = family.settings[:MOST_SETTINGS]
        pairs = [pair for pair in compare(results.runs, settings, METRIC) if pair.sd is not None]
        if not pairs:
            continue
        level, needed = LEVEL / len(pairs), []
        least = 100 * statistics.least_sd(accuracy_step(results.runs, settings))
        rows = [["pair", "n", "s.d.", "detectable", f"find {difference:g}", f"equal ±{margin:g}"]]
        for pair in pairs:
            sd = 100 * (pair.sd or 0.0)
            seeds = [
                statistics.seeds_to_detect(difference, max(sd, least), level),
                statistics.seeds_to_equate(margin, max(sd, least), level),
            ]
            needed += [count for count in seeds if count is not None]
            label = f"{family.labels[pair.first]} − {family.labels[pair.second]}"
            detectable = "none" if pair.detectable is None else f"{100 * pair.detectable:.2f}"
            counts = [str(count or "–") for count in seeds]
            rows.append([label, str(pair.n), f"{sd:.2f}", detectable, *counts])
        yield f"{family.shared}: {counted(len(pairs), 'pair')}, 5 % after Holm"
        yield from (f"  {line}" for line in aligned(rows))
        yield f"  seeds for all of these tests: {max(needed, default='–')}"
        if any(100 * (pair.sd or 0.0) < least for pair in pairs):
            yield f"  a smaller s.d. counts as {least:.2f}: the accuracies come in steps"


def sentence(runs: pl.DataFrame) -> str:
    """Which difference in test accuracy a sweep's seeds can detect; "" for fewer than two settings.

    The spread of a paired difference is √2 times the residual of the additive model setting + seed
    over the seeds that all settings have.
    """
    known = table.count_once(table.with_settings(runs))
    numbered = known.with_columns(
        setting=pl.struct(table.effective(runs)).rank("dense").cast(pl.Int64)
    )
    values = by_seed(numbered, set(numbered["setting"]), METRIC)
    values = {setting: accuracies for setting, accuracies in values.items() if accuracies}
    if len(values) < 2:
        return ""
    seeds = sorted(set.intersection(*map(set, values.values())))
    pairs, n = math.comb(len(values), 2), len(seeds)
    start = f"what these seeds can show: {len(values)} settings, {counted(n, 'common seed')}"
    if n < 2:
        return f"{start}: no difference can be tested"
    cells = 100 * np.array([[accuracies[s] for s in seeds] for accuracies in values.values()])
    cells = cells - cells.mean(axis=0) - cells.mean(axis=1, keepdims=True) + cells.mean()
    degrees = (len(values) - 1) * (n - 1)
    step = accuracy_step(numbered.filter("counted"), set(values))
    if step == 1:  # from accuracies of 0 and 100 % alone n_test is not known
        return f"{start}: every accuracy is 0 or 100 %, which says nothing of their spread"
    sd = max(math.sqrt(2 * float((cells**2).sum()) / degrees), 100 * statistics.least_sd(step))
    detectable = [
        f"{over}: {points:.2f} points with 80 % power"
        if (points := statistics.detectable(sd, n, LEVEL / tests)) is not None
        else f"{over}: too few, at least {least_seeds(tests)} seeds are needed"
        for tests, over in dict.fromkeys([(1, "one pair"), (pairs, f"all {pairs} pairs")][:pairs])
    ]
    return f"{start}, s.d. of a paired difference {sd:.2f} points; {'; '.join(detectable)}"
