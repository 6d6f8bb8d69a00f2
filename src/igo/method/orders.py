"""The order of an epoch's samples: a permutation of [0, n) that depends on (seed, epoch) alone.

Up to LARGEST samples it is torch.randperm's. Above, randperm takes seconds and gigabytes. There it
is a keyed permutation, of which any part can be computed without the rest: a Feistel network over
the next power of two, applied again until the value is below n (Black and Rogaway 2002).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from igo.ground.seeds import derive_seed, generator

if TYPE_CHECKING:  # a plan needs neither torch nor NumPy
    import numpy as np
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

LARGEST = 2**24  # n up to which randperm is used: 128 MiB of indices
ROUNDS = 8
BLOCK = 2**16  # indices that a keyed permutation computes at once


class Order(Protocol):
    """The samples of an epoch in their order."""

    def part(self, start: int, stop: int) -> list[int]:
        """The indices at places ``start`` to ``stop``."""


def kind(n: int) -> str:
    """The kind of permutation that an epoch of n samples has, for checkpoints."""
    return "randperm" if n <= LARGEST else "feistel"


def of_epoch(n: int, seed: int, epoch: int) -> Order:
    """The order of an epoch."""
    return Permutation(n, seed, epoch) if n <= LARGEST else Keyed(n, seed, epoch)


class Permutation:
    """torch.randperm, cut lazily."""

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        import torch

        self._order = torch.randperm(n, generator=generator(seed, "permutation", epoch))

    def part(self, start: int, stop: int) -> list[int]:
        """The indices at places ``start`` to ``stop``."""
        indices: list[int] = self._order[start:stop].tolist()
        return indices


class Keyed:
    """A permutation of [0, n) by a key, n up to 2^62; the newest block of it is kept."""

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        import numpy as np

        bits = max((n - 1).bit_length(), 2)
        self.n, self._low = n, bits // 2
        self._masks = np.uint64((1 << (bits - self._low)) - 1), np.uint64((1 << self._low) - 1)
        self._keys = [
            np.uint64(derive_seed(seed, "keyed permutation", epoch, turn)) for turn in range(ROUNDS)
        ]
        self._block, self._indices = -1, list[int]()

    def part(self, start: int, stop: int) -> list[int]:
        """The indices at places ``start`` to ``stop``."""
        import numpy as np

        indices: list[int] = []
        while start < stop:
            block, offset = divmod(start, BLOCK)
            end = min(stop, (block + 1) * BLOCK)
            if block != self._block:
                places = np.arange(block * BLOCK, min((block + 1) * BLOCK, self.n), dtype=np.uint64)
                self._block, self._indices = block, self.indices(places).tolist()
            indices += self._indices[offset : offset + end - start]
            start = end
        return indices

    def indices(self, places: Words) -> Words:
        """The indices at these places, any of [0, n)."""
        indices = self._network(places)
        while (outside := indices >= self.n).any():
            indices[outside] = self._network(indices[outside])
        return indices

    def _network(self, words: Words) -> Words:
        """In turns, change one half of the bits by a function of the other: a bijection."""
        import numpy as np

        high, low = words >> np.uint64(self._low), words & self._masks[1]
        for turn, key in enumerate(self._keys):
            if turn % 2:
                low = low ^ (_mixed(high ^ key) & self._masks[1])
            else:
                high = high ^ (_mixed(low ^ key) & self._masks[0])
        return (high << np.uint64(self._low)) | low


def _mixed(words: Words) -> Words:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit depends on every bit."""
    import numpy as np

    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
