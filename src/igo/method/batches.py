"""Cuts a segment into k equal batches: no sample is dropped or repeated, no batch is short.

A segment is the part of an epoch that belongs to one stage; it may be the whole epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PUBLISHED = 0.5  # ρ of δ = η C b^(-ρ)
CLOSE = 1e-9  # relative: what float rounding may have added to a whole number


def whole(x: float) -> int:
    """⌈x⌉, at least 1, without float rounding: 4.000000001 becomes 4."""
    return max(1, math.ceil(x * (1 - CLOSE)))


def count(n: int, batch_size: int) -> int:
    """The fewest batches of at most ``batch_size`` samples that hold n."""
    return -(-n // batch_size)


def sizes(n: int, batches: int) -> tuple[int, int]:
    """The larger and the smaller size of n samples in equal batches; they differ by at most one."""
    return -(-n // batches), n // batches


def counts(n: int, batches: int) -> dict[int, int]:
    """The number of batches of each size, of n samples in equal batches: two sizes at most."""
    large, small = sizes(n, batches)
    larger = n - small * batches
    return {size: number for size, number in ((large, larger), (small, batches - larger)) if number}


def bounds(n: int, batches: int, index: int) -> tuple[int, int]:
    """The first sample of batch ``index``, counted from 0, and the one after its last."""
    small, larger = divmod(n, batches)
    start = index * small + min(index, larger)
    return start, start + small + (index < larger)


def share(size: int, rank: int, ranks: int) -> range:
    """The samples of a batch that a rank has: every ``ranks``-th; sizes differ by at most one."""
    return range(rank, size, ranks)


@dataclass(frozen=True)
class Batching:
    """What turns a noise level into a number of equal batches.

    Args:
        n: samples of the first segment.
        first: k_1, its batches.
        largest: the largest batch size allowed.
        split: s, the learning rate's share of the decay.
        noise_exponent: ρ of δ = η C b^(-ρ).
        multiple: the larger of the two batch sizes is a multiple of it if possible.
        waits: the number of stages in which b does not grow yet.
    """

    n: int
    first: int
    largest: int
    split: float
    noise_exponent: float = PUBLISHED
    multiple: int = 1
    waits: int = 0


class Growth:
    """Computes k and η segment by segment. b follows the lowest φ so far and never shrinks."""

    def __init__(self, batching: Batching, learning_rate: float) -> None:
        self._batching, self._first = batching, learning_rate
        self._lowest = 1.0
        self._latest: dict[int, int] = {}  # k of the newest segment, by its samples

    def next(self, stage: int, n: int, phi: float) -> tuple[int, float]:
        """k = ⌈k_1 (N/N_1) φ^((1-s)/ρ)⌉ and η = η_1 φ (b/b_1)^ρ of a segment of N samples.

        k is at least ⌈N/largest⌉, and at most k of the last segment of N samples. η keeps δ on
        its curve for every k, with b = N/k. ``stage`` counts from 1.
        """
        rule = self._batching
        before = max(self._latest.get(n) or whole(rule.first * n / rule.n), count(n, rule.largest))
        lowest = 1.0 if stage <= rule.waits else min(self._lowest, phi)
        wanted = rule.first * n / rule.n * math.pow(lowest, (1 - rule.split) / rule.noise_exponent)
        k = min(max(whole(wanted), count(n, rule.largest)), before)
        if rule.multiple > 1:
            k = _on_grid(rule.multiple, n, k, before)
        self.note(n, k, phi)
        return k, self._first * phi * math.pow(n * rule.first / (rule.n * k), rule.noise_exponent)

    def note(self, n: int, k: int, phi: float) -> None:
        """Take note that a segment of n samples has k batches at φ."""
        self._lowest = min(self._lowest, phi)
        self._latest[n] = k


def _on_grid(multiple: int, n: int, k: int, before: int) -> int:
    """The smallest number from k to ``before`` whose larger batch is on the grid; k if none is."""
    for size in range(sizes(n, k)[0] // multiple * multiple, 0, -multiple):
        candidate = max(count(n, size), k)
        if candidate > before:
            break
        if sizes(n, candidate)[0] == size:
            return candidate
    return k
