"""Cuts a segment into k equal batches: no sample is dropped or repeated, no batch is short.

A segment is the part of an epoch that belongs to one stage; it may be the whole epoch.
"""

import math

CLOSE = 1e-9  # Float rounding adds at most this share to a whole number.


def whole(x: float) -> int:
    """⌈x⌉, at least 1, without float rounding: 4.000000001 becomes 4."""
    rounding = min(x * CLOSE, 0.01)  # If x is large, the share CLOSE of it is above 1.
    return max(1, math.ceil(x - rounding))


def count(n: int, batch_size: int) -> int:
    """⌈n/batch_size⌉: the fewest batches of at most ``batch_size`` samples that hold n."""
    return -(-n // batch_size)


def larger_size(n: int, batches: int) -> int:
    """⌈n/batches⌉: the larger of the two sizes of n samples in equal batches."""
    return -(-n // batches)


def counts_by_size(n: int, batches: int) -> dict[int, int]:
    """The number of batches of each size, of n samples in equal batches.

    There are two sizes at most, the larger one first.
    """
    size, larger_batches = divmod(n, batches)
    if not larger_batches:
        return {size: batches}
    return {size + 1: larger_batches, size: batches - larger_batches}


def parts(size: int, micro_batch_size: int, ranks: int) -> int:
    """The number of parts in which a batch of ``size`` samples goes through the model.

    A part has at most ``micro_batch_size`` samples, if each rank can have one of them.
    """
    return min(count(size, micro_batch_size), size // ranks)


def bounds(n: int, batches: int, index: int) -> tuple[int, int]:
    """The first sample of batch ``index``, counted from 0, and the one after its last."""
    size, larger_batches = divmod(n, batches)  # The larger batches come first.
    start = index * size + min(index, larger_batches)
    return start, start + size + (index < larger_batches)
