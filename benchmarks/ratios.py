"""From turns to results: images a second, ratios within a round, their median and spread."""

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
    def of(values: Sequence[float] | np.ndarray) -> "Spread":
        """The median and quartiles of these numbers."""
        low, median, high = np.percentile(values, (25, 50, 75))
        return Spread(float(median), float(low), float(high))


def rates(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Images a second by contender, in each round: its images over its seconds."""
    rounds: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        rounds[row["contender"], row["round"]].append(row)
    by_contender: dict[str, list[float]] = defaultdict(list)
    for (contender, _), turns in rounds.items():
        images, seconds = (sum(turn[name] for turn in turns) for name in ("images", "seconds"))
        by_contender[contender].append(images / seconds)
    return by_contender


def summary(rows: Sequence[Row], accuracies: dict[str, float]) -> list[Row]:
    """A row for each contender of a cell: its rate, the ratio of ours to it, and its work.

    The ratios are taken round by round.

    Raises:
        RuntimeError: contenders made different numbers of updates, or saw different numbers of
            images.
    """
    by_contender = rates(rows)
    work: dict[str, list[tuple[int, int]]] = defaultdict(list)  # of each turn: updates, images
    for row in rows:
        work[row["contender"]].append((row["updates"], row["images"]))
    our_rates, our_work = by_contender["ours"], work["ours"]
    if any(turns != our_work for turns in work.values()):
        raise RuntimeError(f"unequal work: {dict(work)}")
    return [
        {
            "contender": contender,
            "images_per_second": Spread.of(images_per_second),
            "ours_over_it": Spread.of(np.divide(our_rates, images_per_second)),
            "updates": sum(updates for updates, _ in our_work),
            "test_accuracy": accuracies[contender],
        }
        for contender, images_per_second in by_contender.items()
    ]
