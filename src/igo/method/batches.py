"""A segment is k equal batches: nothing is dropped, nothing repeated, no step is a ragged one.

A segment is what a stage has of one epoch; where stages are whole epochs it is an epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PUBLISHED = 0.5  # ρ of δ = η C b^(-ρ)
CLOSE = 1e-9  # of a whole number: what float rounding can have added to it


def whole(x: float) -> int:
    """⌈x⌉, at least 1, forgiving of float rounding: 4.000000001 is 4."""
    return max(1, math.ceil(x * (1 - CLOSE)))


def count(n: int, batch_size: int) -> int:
    """The fewest batches of at most ``batch_size`` samples that hold n."""
    return -(-n // batch_size)


def sizes(n: int, batches: int) -> tuple[int, int]:
    """The larger and the smaller size of n samples in equal batches; they differ by at most one."""
    return -(-n // batches), n // batches


def counts(n: int, batches: int) -> dict[int, int]:
    """How many of an epoch's equal batches have each of the two sizes; one, where n/k is whole."""
    large, small = sizes(n, batches)
    larger = n - small * batches
    return {size: many for size, many in ((large, larger), (small, batches - larger)) if many}


def bounds(n: int, batches: int, index: int) -> tuple[int, int]:
    """The first sample of batch ``index``, counted from 0, and the one after its last."""
    small, larger = divmod(n, batches)
    start = index * small + min(index, larger)
    return start, start + small + (index < larger)


def share(size: int, rank: int, ranks: int) -> range:
    """Which samples of a batch are a rank's: every ``ranks``-th, sizes differ by at most one."""
    return range(rank, size, ranks)


@dataclass(frozen=True)
class Batching:
    """How many equal batches a segment has at a noise level, between its bounds.

    Args:
        n: samples of the first segment.
        first: k_1, its batches.
        largest: bound on every batch.
        split: s, the learning rate's share of the decay.
        noise_exponent: ρ of δ = η C b^(-ρ).
        multiple: hardware grid that the larger of the two batch sizes is put on where possible.
        waits: stages before b may grow.
    """

    n: int
    first: int
    largest: int
    split: float
    noise_exponent: float = PUBLISHED
    multiple: int = 1
    waits: int = 0


class Growth:
    """k and η of one segment after another: b follows the lowest φ so far and does not shrink."""

    def __init__(self, batching: Batching, learning_rate: float) -> None:
        self._batching, self._first = batching, learning_rate
        self._lowest = 1.0
        self._latest: dict[int, int] = {}  # k of the last segment of so many samples

    def next(self, stage: int, n: int, phi: float) -> tuple[int, float]:
        """k = ⌈k_1 (N/N_1) φ^((1-s)/ρ)⌉ and η = η_1 φ (b/b_1)^ρ of a segment of N samples.

        k is at least ⌈N/largest⌉, and at most that of the last segment of N samples. With b = N/k
        the η keeps δ on its curve whatever k is. ``stage`` counts from 1.
        """
        of = self._batching
        before = max(self._latest.get(n) or whole(of.first * n / of.n), count(n, of.largest))
        lowest = 1.0 if stage <= of.waits else min(self._lowest, phi)
        wanted = of.first * n / of.n * math.pow(lowest, (1 - of.split) / of.noise_exponent)
        k = min(max(whole(wanted), count(n, of.largest)), before)
        if of.multiple > 1:
            k = _on_grid(of.multiple, n, k, before)
        self.took(n, k, phi)
        return k, self._first * phi * math.pow(n * of.first / (of.n * k), of.noise_exponent)

    def took(self, n: int, k: int, phi: float) -> None:
        """A segment of n samples had k batches at φ."""
        self._lowest = min(self._lowest, phi)
        self._latest[n] = k


def _on_grid(multiple: int, n: int, k: int, before: int) -> int:
    """The least k from here to ``before`` whose larger batch is on the grid; k without one."""
    for size in range(sizes(n, k)[0] // multiple * multiple, 0, -multiple):
        found = max(count(n, size), k)
        if found > before:
            break
        if sizes(n, found)[0] == size:
            return found
    return k
