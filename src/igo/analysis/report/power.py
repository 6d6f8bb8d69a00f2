"""What runs like these can show: the spread of paired differences, and the seeds that it asks for.

The runs at hand are a pilot: their spread, not their means, is what the numbers are from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import polars as pl

from igo.analysis import statistics
from igo.analysis.report.comparison import accuracy_step, by_seed, compare
from igo.analysis.report.families import families
from igo.analysis.report.phrases import least_seeds
from igo.analysis.report.results import Results
from igo.analysis.statistics import LEVEL
from igo.analysis.table import table
from igo.words import counted

METRIC = "test/accuracy"
MOST_SETTINGS = 16  # of a family whose pairs are all listed
HEAD = ("n", "s.d.", "detectable")


def lines(results: Results, difference: float, margin: float) -> Iterator[str]:
    """A block for each family of comparable settings: a line a pair, and the seeds for all.

    Args:
        results: pilot runs, two common seeds or more a pair.
        difference: of test accuracy, in points, that should be found.
        margin: of equivalence, in points.
    """
    for family in families(results.settings):
        settings = family.settings[:MOST_SETTINGS]
        pairs = [pair for pair in compare(results.runs, settings, METRIC) if pair.sd is not None]
        if not pairs:
            continue
        level = LEVEL / len(pairs)
        columns = (f"{difference:g} points", f"±{margin:g} points")
        yield f"{family.shared}: {counted(len(pairs), 'pair')}, 5 % after Holm"
        wanted = max(len(f"{family.labels[p.first]} − {family.labels[p.second]}") for p in pairs)
        heads = "".join(f"{name:>12}" for name in (*HEAD, *columns))
        yield f"  {'':{wanted}}{heads}"
        needed: list[int | None] = []
        least = 100 * statistics.least_sd(accuracy_step(results.runs, settings))
        for pair in pairs:
            sd = 100 * (pair.sd or 0.0)
            seeds = (
                statistics.seeds_to_detect(difference, max(sd, least), level),
                statistics.seeds_to_equate(margin, max(sd, least), level),
            )
            needed += seeds
            detectable = "none" if pair.detectable is None else f"{100 * pair.detectable:.2f}"
            cells = (pair.n, f"{sd:.2f}", detectable, *(one or "–" for one in seeds))
            label = f"{family.labels[pair.first]} − {family.labels[pair.second]}"
            yield f"  {label:{wanted}}" + "".join(f"{cell:>12}" for cell in cells)
        known = [one for one in needed if one is not None]
        yield f"  seeds for all of it: {max(known)}"
        if any(100 * (pair.sd or 0.0) < least for pair in pairs):
            yield f"  a smaller s.d. counts as {least:.2f}: the accuracies come in steps"


def sentence(runs: pl.DataFrame) -> str:
    """What a sweep's seeds can detect in test accuracy; nothing where it has no two settings.

    The spread of a paired difference is √2 times the residual of the additive model setting + seed
    over the seeds that all settings have.

    Args:
        runs: as table.read_runs makes it.
    """
    known = table.count_once(table.with_settings(runs))
    numbered = known.with_columns(
        setting=pl.struct(table.effective(runs)).rank("dense").cast(pl.Int64)
    )
    values = by_seed(numbered, set(numbered["setting"]), METRIC)
    values = {setting: own for setting, own in values.items() if own}
    if len(values) < 2:
        return ""
    seeds = sorted(set.intersection(*(set(own) for own in values.values())))
    pairs = math.comb(len(values), 2)
    start = f"what these seeds can show: {len(values)} settings"
    if len(seeds) < 2:
        return f"{start} with {counted(len(seeds), 'common seed')}: no difference can be tested"
    cells = 100 * np.array([[own[seed] for seed in seeds] for own in values.values()])
    cells = cells - cells.mean(axis=0) - cells.mean(axis=1, keepdims=True) + cells.mean()
    free = (len(values) - 1) * (len(seeds) - 1)
    step = accuracy_step(numbered.filter("counted"), set(values))
    sd = max(math.sqrt(2 * float((cells**2).sum()) / free), 100 * statistics.least_sd(step))
    spread = f"{start}, {len(seeds)} seeds, s.d. of a paired difference {sd:.2f} points of accuracy"
    one = statistics.detectable(sd, len(seeds))
    every = statistics.detectable(sd, len(seeds), LEVEL / pairs)
    if one is None:
        least = f"{least_seeds(1)} seeds is the least"
        more = f", {least_seeds(pairs)} for all {pairs} pairs at once" if pairs > 1 else ""
        return f"{spread}: too few for a verdict; {least}{more}"
    over = (
        f"{every:.2f} over all {pairs} pairs"
        if every is not None
        else f"none over all {pairs} pairs ({least_seeds(pairs)} seeds is the least)"
    )
    found = f"{spread}: 80 % power for {one:.2f} points in one comparison"
    return found if pairs == 1 else f"{found}, {over}"
