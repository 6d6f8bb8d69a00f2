"""Claims of a study, how they are judged, and how a page shows them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from igo.ground.statistics import Array, mean_of
from igo.report.comparison import Pair, adjusted, paired_test
from igo.report.formats import in_range, p_value
from lab.figures import COLOURS, INK, legend_above
from lab.markdown import markdown
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
        """The means of the differences with their intervals, as columns of a CSV."""
        return table.intervals(self.differences)


class Judged(NamedTuple):
    """A claim with its test, and what a page calls the outcome."""

    claim: Claim
    test: Pair
    verdict: str


def ends(records: Sequence[Record], endpoint: str) -> Array:
    """What the runs of an arm came to, seed by seed."""
    return np.array([record[endpoint] for record in records])


def means(records: Sequence[Record], endpoints: Mapping[str, str]) -> Record:
    """The means over the seeds of the fields in ``endpoints``, by what a table calls them."""
    return {end: ends(records, field).mean() for end, field in endpoints.items()}


def difference(arms: Arms, arm: Any, rival: Any, field: str) -> Array:
    """A field of an arm less that of its rival, seed by seed.

    Where one has more seeds, its last ones are left out.
    """
    n = min(len(arms[arm]), len(arms[rival]))
    return ends(arms[arm][:n], field) - ends(arms[rival][:n], field)


def claims(
    arms: Arms,
    pairs: Pairs,
    endpoints: Mapping[str, str],
    named: Callable[[Any], str] = str,
) -> list[Claim]:
    """Arms less their rivals; ``endpoints`` are fields of the records, by what a table calls them.

    ``named`` gives what a page calls an arm.
    """
    return [
        Claim(
            f"{named(arm)} − {named(rival)}",
            {end: difference(arms, arm, rival, field) for end, field in endpoints.items()},
        )
        for arm, rival in pairs
    ]


def tested(claims: Sequence[Claim], margin: float | None) -> list[Judged]:
    """The claims with their tests, adjusted by Holm over all of them; equal is within ±margin."""
    tests = adjusted([paired_test(claim.judged, margin) for claim in claims])
    return [Judged(claim, test, test.verdict) for claim, test in zip(claims, tests, strict=True)]


def if_trained(
    outcomes: Sequence[Judged], arms: Arms, pairs: Pairs, least: float, field: str = "train"
) -> list[Judged]:
    """The outcomes, of which one is not judged where an arm of its pair does not fit its images.

    ``field`` of the records is the train accuracy in %, and ``least`` the least mean of it.
    """
    return [
        outcome
        if min(ends(arms[arm], field).mean() for arm in pair_of_arms) >= least
        else outcome._replace(verdict="not judged: not trained to the end")
        for outcome, pair_of_arms in zip(outcomes, pairs, strict=True)
    ]


def csv(claims: Sequence[Claim]) -> str:
    """The differences with their intervals, as CSV."""
    return table.csv([{"difference": claim.name, **claim.columns} for claim in claims])


def shown(outcomes: Sequence[Judged], digits: int = 2, equality: bool = True) -> str:
    """The table of the claims, as Markdown; without ``equality`` the p of equality is left out."""
    lines = []
    for claim, test, verdict in outcomes:
        samples = claim.differences.values()
        differences = [table.mean_with_interval(sample, digits) for sample in samples]
        ps = [test.p_holm, test.p_equal_holm] if equality else [test.p_holm]
        power = "–" if test.detectable is None else f"{test.detectable:.2g}"
        lines.append([claim.name, *differences, *map(p_value, ps), power, verdict])
    head = [f"claim, {in_range([outcome.test.n for outcome in outcomes])} seeds"]
    head += [f"{end}, 95 %" for end in outcomes[0].claim.differences]
    head += ["p, different", "p, equal"] if equality else ["p"]
    return markdown([*head, "detectable", "verdict"], lines)


def forest(axes: Axes, claims: Sequence[Claim], unit: str = "points of test accuracy") -> None:
    """Differences with 95 % intervals under the name of each claim, a colour for each endpoint.

    Claim i has the height −i. Its endpoints share 0.7 of the room to the next claim, and its name
    stands in between.
    """
    places, endpoints = -np.arange(len(claims)), claims[0].differences
    for number, (end, colour) in enumerate(zip(endpoints, COLOURS, strict=False)):
        means = [astuple(mean_of(claim.differences[end])) for claim in claims]
        x, low, high = np.transpose(means)
        y = places - 0.7 / len(endpoints) * (number - (len(endpoints) - 1) / 2)
        axes.errorbar(x, y, xerr=(x - low, high - x), fmt="o", ms=3.5, color=colour, label=end)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks([])
    axes.set_ylim(-len(claims) + 0.4, 0.8)
    for place, claim in zip(places, claims, strict=True):
        axes.text(0.01, place + 0.5, claim.name, transform=axes.get_yaxis_transform(), va="center")
    axes.set_xlabel(f"{unit}, 95 %, {len(claims[0].judged)} seeds")
    legend_above(axes)
