"""An epoch is k equal batches: nothing is dropped, nothing repeated, no step is a ragged one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from igo.seeds import generator

if TYPE_CHECKING:  # a plan is made and printed without torch
    from torch import Tensor

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


def epoch_batches(n: int, batches: int, seed: int, epoch: int) -> list[Tensor]:
    """A fresh permutation of [0, n) in k parts whose sizes differ by at most one, larger first.

    Returns:
        k int64 tensors of indices, which depend on (seed, epoch) alone.
    """
    import torch

    order = torch.randperm(n, generator=generator(seed, "permutation", epoch))
    return list(order.tensor_split(batches))


def share(size: int, rank: int, ranks: int) -> range:
    """Which samples of a batch are a rank's: contiguous, of sizes that differ by at most one."""
    small, larger = divmod(size, ranks)
    start = rank * small + min(rank, larger)
    return range(start, start + small + (rank < larger))


@dataclass(frozen=True)
class Batching:
    """How many equal batches an epoch has at a noise level, between its two bounds.

    Args:
        n: training samples.
        first: k_1.
        least: k that keeps batches within max_batch_size.
        split: s, the learning rate's share of the decay.
        noise_exponent: ρ of δ = η C b^(-ρ).
        multiple: hardware grid that the larger of the two batch sizes is put on where possible.
    """

    n: int
    first: int
    least: int
    split: float
    noise_exponent: float = PUBLISHED
    multiple: int = 1

    def count(self, phi: float, before: int) -> int:
        """k_m = ⌈k_1 φ_m^((1-s)/ρ)⌉, not below its bound, never above ``before``, k_{m-1}."""
        wanted = self.first * math.pow(phi, (1 - self.split) / self.noise_exponent)
        k = min(max(whole(wanted), self.least), before)
        return k if self.multiple == 1 else self._on_grid(k, before)

    def learning_rate(self, first: float, phi: float, k: int) -> float:
        """η_m = η_1 φ_m (k_1/k_m)^ρ, which keeps δ on its curve whatever k is."""
        return first * phi * math.pow(self.first / k, self.noise_exponent)

    def _on_grid(self, k: int, before: int) -> int:
        """The least k from here to ``before`` whose larger batch is on the grid; k without one."""
        largest = sizes(self.n, k)[0] // self.multiple * self.multiple
        for size in range(largest, 0, -self.multiple):
            found = max(count(self.n, size), k)
            if found > before:
                break
            if sizes(self.n, found)[0] == size:
                return found
        return k
