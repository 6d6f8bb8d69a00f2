"""From turns to results: images a second, ratios within a round, their median and spread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
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


def rates(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Images a second by contender, in each round: its images over its seconds."""
    sums: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in rows:
        total = sums[row["contender"], row["round"]]
        total[0] += row["images"]
        total[1] += row["seconds"]
    by_contender: dict[str, list[float]] = defaultdict(list)
    for (contender, _), (images, seconds) in sums.items():
        by_contender[contender].append(images / seconds)
    return by_contender


def summary(rows: Sequence[Row]) -> list[Row]:
    """A row for each contender of a cell: its rate, and the ratio of ours to it."""
    by_contender = rates(rows)
    our_rates = by_contender["ours"]
    return [
        {
            "cell": rows[0]["cell"],
            "contender": contender,
            "images_per_second": Spread.of(its_rates),
            "ours_over_it": Spread.of([a / b for a, b in zip(our_rates, its_rates, strict=True)]),
            "rounds": len(its_rates),
        }
        for contender, its_rates in by_contender.items()
    ]
