"""An epoch is k equal batches: nothing is dropped, nothing repeated, no step is a ragged one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from igo.seeds import generator

if TYPE_CHECKING:  # a plan is made and printed without torch
    from torch import Tensor

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


def epoch_batches(n: int, batches: int, seed: int, epoch: int) -> list[Tensor]:
    """A fresh permutation of [0, n) in k parts whose sizes differ by at most one, larger first.

    Returns:
        k int64 tensors of indices, which depend on (seed, epoch) alone.
    """
    import torch

    order = torch.randperm(n, generator=generator(seed, "permutation", epoch))
    return list(order.tensor_split(batches))


def spans(n: int, batches: int) -> Iterator[range]:
    """Where each of ``epoch_batches`` lies in the epoch's permutation."""
    large, small = sizes(n, batches)
    start, larger = 0, n - small * batches
    for index in range(batches):
        size = large if index < larger else small
        yield range(start, start + size)
        start += size


def share(size: int, rank: int, ranks: int) -> range:
    """Which samples of a batch are a rank's: contiguous, of sizes that differ by at most one."""
    small, larger = divmod(size, ranks)
    start = rank * small + min(rank, larger)
    return range(start, start + small + (rank < larger))
