"""Random augmentation that depends on (seed, epoch, sample) alone."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from igo.ground.seeds import derive_seed, python_generators, seed_python


class Indices(list[int]):
    """The indices of a batch's samples, and the seed and epoch of the samples' random numbers."""

    seed: int
    epoch: int


class Seeded(Dataset[Any]):
    """A data set whose random augmentation a resume repeats, for a ``BatchSampler``'s loader.

    While a sample is made, ``torch``, ``random`` and ``numpy.random`` are seeded by the sampler's
    seed, the epoch and the sample's index; then these generators go on as before. So a run with
    workers, without, on any number of ranks, or resumed in mid-epoch sees the same samples. A
    library's own generators are not seeded.

    >>> class Noisy(list):
    ...     __getitem__ = lambda self, index: torch.rand(())
    >>> batches = igo.BatchSampler(igo.plan("constant", n=4, epochs=1, batch_size=2), range(4))
    >>> loader = torch.utils.data.DataLoader(igo.Seeded(Noisy("abcd")), batch_sampler=batches)
    >>> torch.equal(torch.cat([*loader]), torch.cat([*loader]))
    True

    Args:
        data: the data set: ``len(data)`` and ``data[index]``. Its other attributes are found here,
            too.

    Raises:
        TypeError: in a loader without a ``BatchSampler``; give such a loader ``data`` itself.
    """

    data: Any = None  # A copy without attributes yet asks __getattr__, which reads ``data``.

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Any:
        return self.data[index]

    # A DataLoader asks for the samples of a batch by this method.
    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        if not isinstance(indices, Indices):
            raise TypeError("igo.Seeded needs an igo.BatchSampler; give other loaders its data")
        samples = []
        # The loop's own random numbers must not depend on whether a worker or this process makes
        # the samples.
        with torch.random.fork_rng(devices=[]), python_generators():
            for index in indices:
                seed = derive_seed(indices.seed, "sample", indices.epoch, index)
                torch.default_generator.manual_seed(seed)
                seed_python(seed)
                samples.append(self.data[index])
        return samples

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)
