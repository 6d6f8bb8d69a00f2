"""Cuts a segment into k equal batches: no sample is dropped or repeated, no batch is short.

A segment is the part of an epoch that belongs to one stage; it may be the whole epoch.
"""

from __future__ import annotations

import math

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


class Growth:
    """Computes k and η segment by segment. b follows the lowest φ so far and never shrinks.

    Args:
        n: N_1, samples of the first segment.
        first: k_1, its batches.
        largest: the largest batch size allowed.
        split: s, the learning rate's share of the decay.
        multiple: the larger of the two batch sizes is a multiple of it if possible.
        learning_rate: η_1.
    """

    def __init__(
        self, n: int, first: int, largest: int, split: float, multiple: int, learning_rate: float
    ) -> None:
        self._n, self._first, self._largest = n, first, largest
        self._split, self._multiple, self._learning_rate = split, multiple, learning_rate
        self._lowest = 1.0
        self._latest: dict[int, int] = {}  # k of the newest segment, by its samples

    def next(self, n: int, phi: float) -> tuple[int, float]:
        """k = ⌈k_1 (N/N_1) φ^(2(1-s))⌉ and η = η_1 φ √(b/b_1) of a segment of N samples.

        k is at least ⌈N/largest⌉, and at most k of the last segment of N samples. η keeps δ on
        its curve for every k, with b = N/k.
        """
        least, proportional = count(n, self._largest), self._first * n / self._n
        before = max(self._latest.get(n) or whole(proportional), least)
        self._lowest = min(self._lowest, phi)
        wanted = proportional * math.pow(self._lowest, 2 * (1 - self._split))
        k = min(max(whole(wanted), least), before)
        if self._multiple > 1:
            k = _on_grid(self._multiple, n, k, before)
        self._latest[n] = k
        root = math.pow(
            n * self._first / (self._n * k), 0.5
        )  # sqrt would change a plan's last bits
        return k, self._learning_rate * phi * root


def _on_grid(multiple: int, n: int, k: int, before: int) -> int:
    """The smallest number from k to ``before`` whose larger batch is on the grid; k if none is."""
    for size in range(sizes(n, k)[0] // multiple * multiple, 0, -multiple):
        candidate = max(count(n, size), k)
        if candidate > before:
            break
        if sizes(n, candidate)[0] == size:
            return candidate
    return k
