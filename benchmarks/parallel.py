"""Several small runs on one machine: k at once against the same k one after the other."""

from __future__ import annotations

import os

from benchmarks import programs
from benchmarks.ratios import Row, Spread

RUN = ("dataset=fashion_mnist", "batch_size=32", "tracking=none")


def measure(repeats: int, samples: int) -> list[Row]:
    """Images a second of k runs, by seed, whole processes, start-up included.

    In sequence each has all threads, or one; at once each has one.
    """
    k = os.cpu_count() or 1
    epochs = 2
    runs = [[*RUN, f"epochs={epochs}", f"dataset.samples={samples}", f"seed={i}"] for i in range(k)]
    single = [[*one, "engine.threads=1"] for one in runs]
    images = k * epochs * samples
    found: dict[str, list[float]] = {
        "in sequence": [],
        "in sequence, one thread": [],
        "at once": [],
    }
    for _ in range(repeats):
        found["in sequence"].append(images / sum(programs.together([one]) for one in runs))
        found["in sequence, one thread"].append(
            images / sum(programs.together([one]) for one in single)
        )
        found["at once"].append(images / programs.together(single))
    return [
        {
            "runs": k,
            "how": how,
            "images_per_second": Spread.of(rates),
            "at_once_over_it": Spread.of(
                [a / b for a, b in zip(found["at once"], rates, strict=True)]
            ),
        }
        for how, rates in found.items()
    ]
