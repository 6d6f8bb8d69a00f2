"""From turns to results: images a second, ratios within a round, their median and spread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles over rounds."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        low, median, high = np.percentile(values, (25, 50, 75))
        return Spread(float(median), float(low), float(high))


@dataclass(frozen=True)
class Target:
    """A target: a ratio of this project's must be at least ``bound`` on this hardware."""

    cell: str  # the start of the names of cells
    against: str
    bound: float
    hardware: str = "any"


# Images a second of this project over those of another contender, in the same round.
TARGETS = (
    Target("", "bare", 0.95, hardware="cpu"),
    Target("", "lightning_trainer", 1.0),
    Target("resnet18-128", "plain", 2.3, hardware="cpu"),
    Target("small-32", "plain", 2.0, hardware="cpu"),
    *(Target(cell, "bare", 0.9, hardware="cuda") for cell in ("resnet18-32", "small-32")),
    *(
        Target(cell, "bare", 0.95, hardware="cuda")
        for cell in ("resnet18-128", "resnet18-512", "small-16", "small-128", "small-1024")
    ),
    Target("resnet18-128", "plain", 10.0, hardware="cuda"),
)


def rates(rows: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """Images a second by cell, contender and round: a round's images over its seconds."""
    sums: dict[tuple[str, str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in rows:
        total = sums[row["cell"], row["contender"], row["round"]]
        total[0] += row["images"]
        total[1] += row["seconds"]
    by_cell: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (cell, contender, _), (images, seconds) in sorted(sums.items()):
        by_cell[cell][contender].append(images / seconds)
    return {cell: dict(contenders) for cell, contenders in by_cell.items()}


def summary(rows: Sequence[Row]) -> list[Row]:
    """A row for each cell and contender: its rate, and the ratio of ours to it."""
    result: list[Row] = []
    order = list(dict.fromkeys((row["cell"], row["contender"]) for row in rows))
    by_cell = rates(rows)
    for cell, contender in sorted(order, key=_first_seen(order)):
        theirs, ours = by_cell[cell][contender], by_cell[cell]["ours"]
        ratio = Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])
        result.append(
            {
                "cell": cell,
                "contender": contender,
                "images_per_second": Spread.of(theirs),
                "ours_over_it": ratio,
                "rounds": len(theirs),
            }
        )
    return result


def verdicts(results: Sequence[Row], hardware: str) -> list[Row]:
    """Each target with the measured ratio, and whether it is met."""
    verdicts_of_targets: list[Row] = []
    for target in TARGETS:
        for row in results:
            applies = row["cell"].startswith(target.cell) and row["contender"] == target.against
            if applies and target.hardware in ("any", hardware):
                ratio: Spread = row["ours_over_it"]
                verdicts_of_targets.append(
                    {"cell": row["cell"], "against": target.against, "ours_over_it": ratio,
                     "at_least": target.bound, "met": ratio.median >= target.bound}
                )  # fmt: skip
    return verdicts_of_targets


def _first_seen(order: list[tuple[str, str]]) -> Callable[[tuple[str, str]], tuple[int, int]]:
    cells = list(dict.fromkeys(cell for cell, _ in order))
    return lambda names: (cells.index(names[0]), order.index(names))
