"""Claims of a study, and how a page shows them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from igo.ground.statistics import Array, mean_of
from igo.report import comparison
from igo.report.comparison import Pair
from igo.report.formats import in_range, p_value
from lab.figures import forests
from lab.study import table
from lab.study.design import Arms, Record

MARGIN = 0.5  # points of test accuracy, within which arms are equal
Pairs = Sequence[tuple[Any, Any]]  # arms beside their rivals


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


def means(records: Sequence[Record], endpoints: Mapping[str, str]) -> Record:
    """The means over the seeds of the fields in ``endpoints``, by what a table calls them."""
    return {end: ends(records, field).mean() for end, field in endpoints.items()}


def claims(
    arms: Arms,
    pairs: Pairs,
    endpoints: Mapping[str, str],
    named: Callable[[Any], str] = str,
) -> list[Claim]:
    """Arms less their rivals, over the seeds that both have: the first ones.

    ``endpoints`` are fields of the records, by what a table calls them.
    """
    found = []
    for arm, rival in pairs:
        n = min(len(arms[arm]), len(arms[rival]))
        differences = {
            end: ends(arms[arm][:n], field) - ends(arms[rival][:n], field)
            for end, field in endpoints.items()
        }
        found.append(Claim(f"{named(arm)} − {named(rival)}", differences))
    return found


def tested(claims: Sequence[Claim], margin: float | None) -> list[Pair]:
    """The tests, adjusted by Holm over all claims; equal is within ±margin."""
    return comparison.adjusted([comparison.paired_test(claim.judged, margin) for claim in claims])


def verdicts(
    arms: Arms, pairs: Pairs, tests: Sequence[Pair], trained: float, train: str = "train"
) -> list[str]:
    """The verdicts, or that an arm of the pair does not fit its images.

    ``trained`` is the least mean of the field ``train``, the train accuracy in %.
    """
    return [
        test.verdict
        if min(ends(arms[arm], train).mean() for arm in names) >= trained
        else "not judged: not trained to the end"
        for names, test in zip(pairs, tests, strict=True)
    ]


def csv(claims: Sequence[Claim]) -> str:
    """The differences with their intervals, as CSV."""
    return table.csv([{"difference": claim.name, **claim.columns} for claim in claims])


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
        power = "–" if test.detectable is None else f"{test.detectable:.2g}"
        lines.append([claim.name, *ends, *p, power, verdict])
    head = [f"claim, {in_range([test.n for test in pairs])} seeds"]
    head += [f"{end}, 95 %" for end in claims[0].differences]
    head += ["p, different", "p, equal"] if equality else ["p"]
    return table.markdown([*head, "detectable", "verdict"], lines)


def forest(axes: Axes, claims: Sequence[Claim], unit: str = "points of test accuracy") -> None:
    """The differences with their intervals, a colour for each endpoint."""
    estimates = {
        end: [mean_of(claim.differences[end]) for claim in claims] for end in claims[0].differences
    }
    forests(axes, [claim.name for claim in claims], estimates)
    axes.set_xlabel(f"{unit}, 95 %, {len(claims[0].judged)} seeds")
