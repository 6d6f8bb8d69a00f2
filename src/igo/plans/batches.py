"""Cuts a segment into k equal batches: no sample is dropped or repeated, no batch is short.

A segment is the part of an epoch that belongs to one stage; it may be the whole epoch.
"""

import math

CLOSE = 1e-9  # Float rounding adds at most this share to a whole number.


def whole(x: float) -> int:
    """⌈x⌉, at least 1, without float rounding: 4.000000001 becomes 4."""
    # If x is large, the share CLOSE of it is several whole numbers.
    return max(1, math.ceil(max(x * (1 - CLOSE), x - 0.01)))


def count(n: int, batch_size: int) -> int:
    """⌈n/batch_size⌉: the fewest batches of at most ``batch_size`` samples that hold n."""
    return -(-n // batch_size)


def larger_size(n: int, batches: int) -> int:
    """⌈n/batches⌉: the larger of the two sizes of n samples in equal batches."""
    return -(-n // batches)


def counts_by_size(n: int, batches: int) -> dict[int, int]:
    """The number of batches of each size, of n samples in equal batches: two sizes at most."""
    small, larger = divmod(n, batches)
    numbers = {small + 1: larger, small: batches - larger}
    return {size: number for size, number in numbers.items() if number}


def parts(size: int, micro_batch_size: int, ranks: int) -> int:
    """The fewest parts of a batch of at most ``micro_batch_size``, with a sample of each rank."""
    return min(count(size, micro_batch_size), size // ranks)


def bounds(n: int, batches: int, index: int) -> tuple[int, int]:
    """The first sample of batch ``index``, counted from 0, and the one after its last."""
    small, larger = divmod(n, batches)
    start = index * small + min(index, larger)
    return start, start + small + (index < larger)
