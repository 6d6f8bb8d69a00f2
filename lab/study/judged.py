"""Claims of a study, and how a page shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from igo.ground.statistics import Array, mean_of
from igo.report.comparison import Pair, adjusted, in_range, p_value, pair
from lab.figures import forests
from lab.study import table
from lab.study.design import Record

MARGIN = 0.5  # points of test accuracy, within which arms are equal


@dataclass(frozen=True)
class Claim:
    """Differences of two arms, seed by seed, by endpoint; that of the first endpoint is judged."""

    name: str
    differences: Mapping[str, Array]

    @property
    def judged(self) -> Array:
        """The differences of the first endpoint."""
        return next(iter(self.differences.values()))

    @property
    def columns(self) -> Record:
        """The means with their intervals, as columns of a CSV."""
        columns: Record = {}
        for end, differences in self.differences.items():
            mean = mean_of(differences)
            columns |= {end: mean.value, f"{end}_low": mean.low, f"{end}_high": mean.high}
        return columns


def ends(records: Sequence[Record], endpoint: str) -> Array:
    """What the runs of an arm came to, seed by seed."""
    return np.array([record[endpoint] for record in records])


def claim(
    name: str,
    records: Sequence[Record],
    rival_records: Sequence[Record],
    endpoints: Mapping[str, str],
) -> Claim:
    """An arm less another, over the seeds that both have: the first ones.

    ``endpoints`` are fields of the records, by what a table calls them.
    """
    n = min(len(records), len(rival_records))
    differences = {
        end: ends(records[:n], field) - ends(rival_records[:n], field)
        for end, field in endpoints.items()
    }
    return Claim(name, differences)


def tested(claims: Sequence[Claim], margin: float | None) -> list[Pair]:
    """The tests, adjusted by Holm over all claims; equal is within ±margin."""
    return adjusted([pair(claim.judged, margin) for claim in claims])


def verdict(
    test: Pair, arms: Sequence[Sequence[Record]], least: int, trained: float, train: str = "train"
) -> str:
    """The verdict, or why a claim has none: of so many seeds each arm is to fit its images.

    ``trained`` is the least mean of the field ``train``, the train accuracy in %.
    """
    if test.n < least:
        return "not judged: too few seeds"
    if min(ends(records, train).mean() for records in arms) < trained:
        return "not judged: not trained to the end"
    return test.verdict


def csv(claims: Sequence[Claim]) -> str:
    """The differences with their intervals, as CSV."""
    lines = [{"difference": claim.name, **claim.columns} for claim in claims]
    return pl.DataFrame(lines).write_csv(float_precision=2)


def shown(
    claims: Sequence[Claim],
    pairs: Sequence[Pair],
    verdicts: Sequence[str],
    digits: int = 2,
    equality: bool = True,
) -> str:
    """The table of the claims, with the p of ``equality`` or without."""
    lines = []
    for claim, test, verdict in zip(claims, pairs, verdicts, strict=True):
        ends = [
            table.mean_with_interval(differences, digits)
            for differences in claim.differences.values()
        ]
        p = [p_value(test.p_holm), *([p_value(test.p_equal_holm)] if equality else [])]
        lines.append([claim.name, *ends, *p, table.power(test.detectable), verdict])
    head = [f"claim, {in_range([test.n for test in pairs])} seeds"]
    head += [f"{end}, 95 %" for end in claims[0].differences]
    head += ["p, different", "p, equal"] if equality else ["p"]
    return table.markdown([*head, "detectable", "verdict"], lines)


def forest(axes: Axes, claims: Sequence[Claim]) -> None:
    """The differences with their intervals, a colour for each endpoint."""
    estimates = {
        end: [mean_of(claim.differences[end]) for claim in claims] for end in claims[0].differences
    }
    forests(axes, [claim.name for claim in claims], estimates)
