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


def _first_seen(order: list[tuple[str, str]]) -> Callable[[tuple[str, str]], tuple[int, int]]:
    cells = list(dict.fromkeys(cell for cell, _ in order))
    return lambda names: (cells.index(names[0]), order.index(names))
