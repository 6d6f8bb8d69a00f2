"""Cuts a segment into k equal batches: no sample is dropped or repeated, no batch is short.

A segment is the part of an epoch that belongs to one stage; it may be the whole epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

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


def grown(
    segments: Iterable[tuple[int, float]],
    *,
    batch_size: int,
    largest: int,
    split: float,
    multiple: int,
    learning_rate: float,
) -> list[tuple[int, float]]:
    """k and η of each segment. b follows the lowest φ so far and never shrinks.

    k = ⌈k_1 (N/N_1) φ^(2(1-s))⌉ and η = η_1 φ √(b/b_1) for a segment of N samples, b = N/k. k is at
    least ⌈N/largest⌉, and at most k of the last segment of N samples. η keeps δ on its curve for
    every k.

    Args:
        segments: N and φ of each.
        batch_size: b_1; k_1 = ⌈N_1/b_1⌉.
        largest: the largest batch size allowed.
        split: s, the learning rate's share of the decay.
        multiple: the larger of the two batch sizes is a multiple of it if possible.
        learning_rate: η_1.
    """
    lowest = 1.0
    latest: dict[int, int] = {}  # k of the newest segment, by its samples
    applied: list[tuple[int, float]] = []
    for n, phi in segments:
        if not applied:
            n_1, k_1 = n, count(n, min(batch_size, n))
        least, proportional = count(n, largest), k_1 * n / n_1
        before = max(latest.get(n) or whole(proportional), least)
        lowest = min(lowest, phi)
        k = min(max(whole(proportional * math.pow(lowest, 2 * (1 - split))), least), before)
        if multiple > 1:
            k = _on_grid(multiple, n, k, before)
        latest[n] = k
        root = math.pow(n * k_1 / (n_1 * k), 0.5)  # sqrt would change a plan's last bits
        applied.append((k, learning_rate * phi * root))
    return applied


def _on_grid(multiple: int, n: int, k: int, before: int) -> int:
    """The smallest number from k to ``before`` whose larger batch is on the grid; k if none is."""
    for size in range(sizes(n, k)[0] // multiple * multiple, 0, -multiple):
        candidate = max(count(n, size), k)
        if candidate > before:
            break
        if sizes(n, candidate)[0] == size:
            return candidate
    return k
