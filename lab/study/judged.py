"""Claims of a study, and how a page shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from igo.ground.statistics import Array, mean_of
from igo.report.comparison import Pair, adjusted, p_value, pair
from lab.figures import COLOURS, INK
from lab.study import table


@dataclass(frozen=True)
class Claim:
    """Differences of two arms, seed by seed, by endpoint; that of the first endpoint is judged."""

    name: str
    differences: Mapping[str, Array]

    @property
    def judged(self) -> Array:
        """The differences of the first endpoint."""
        return next(iter(self.differences.values()))


def tested(claims: Sequence[Claim], margin: float) -> list[Pair]:
    """The tests, adjusted by Holm over all claims; equal is within ±margin."""
    return adjusted([pair(claim.judged, margin) for claim in claims])


def shown(
    claims: Sequence[Claim], pairs: Sequence[Pair], verdicts: Sequence[str], digits: int = 2
) -> str:
    """The table of the claims."""
    lines = []
    for claim, test, verdict in zip(claims, pairs, verdicts, strict=True):
        ends = [table.mean_with_interval(each, digits) for each in claim.differences.values()]
        power = "–" if test.detectable is None else f"{test.detectable:.2g}"
        p = p_value(test.p_holm), p_value(test.p_equal_holm)
        lines.append([claim.name, str(test.n), *ends, *p, power, verdict])
    head = ["claim", "n", *(f"{end}, 95 %" for end in claims[0].differences)]
    return table.markdown([*head, "p, different", "p, equal", "detectable", "verdict"], lines)


def forest(axes: Axes, claims: Sequence[Claim]) -> None:
    """The differences with their intervals, a colour for each endpoint."""
    for place, claim in enumerate(claims):
        ends = claim.differences.items()
        for number, ((end, differences), colour) in enumerate(zip(ends, COLOURS, strict=False)):
            mean = mean_of(differences)
            axes.errorbar(mean.value, -place - 0.25 * number, xerr=mean.value - mean.low, fmt="o",
                          ms=3.5, color=colour, label=None if place else end)  # fmt: skip
    axes.set_yticks([-place for place in range(len(claims))], [claim.name for claim in claims])
    axes.axvline(0, color=INK, lw=0.8)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
