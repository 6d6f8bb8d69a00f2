"""k small runs at once on one machine, against the same k runs in sequence."""

from __future__ import annotations

import os
from collections import defaultdict

from benchmarks import programs
from benchmarks.ratios import Row, Spread

RUN = ("dataset=fashion_mnist", "batch_size=32", "tracking=none")


def measure(repeats: int, samples: int) -> list[Row]:
    """Images a second of k whole runs of different seeds, with their start-up.

    In sequence each run has all threads, or one; at once each has one.
    """
    k = os.cpu_count() or 1
    epochs = 2
    runs = [[*RUN, f"epochs={epochs}", f"dataset.samples={samples}", f"seed={i}"] for i in range(k)]
    single = [[*run, "engine.threads=1"] for run in runs]
    images = k * epochs * samples
    by_order: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for order, typed in (("in sequence", runs), ("in sequence, one thread", single)):
            by_order[order].append(images / sum(programs.together([run]) for run in typed))
        by_order["at once"].append(images / programs.together(single))
    return [
        {
            "runs": k,
            "how": how,
            "images_per_second": Spread.of(rates),
            "at_once_over_it": Spread.of(
                [a / b for a, b in zip(by_order["at once"], rates, strict=True)]
            ),
        }
        for how, rates in by_order.items()
    ]
