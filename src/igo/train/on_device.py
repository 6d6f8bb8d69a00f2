"""Data sets as batches on the device; here from images that are kept there as bytes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from igo.config.schema import DatasetConfig
from igo.data.readers import Split
from igo.ground.ranks import ALONE, Ranks
from igo.ground.seeds import generator
from igo.train import augment

Batch = tuple[Tensor, Tensor]  # images (b, C, H, W) float32, normalised; labels (b,) int64
Batches = Iterator[Batch]
# Training images that are made at once. On a CPU 256 halve the cost of batches of 16, and more do
# not help. A GPU gains from fewer launches; its limit is in pixels, of some 30 bytes each.
MADE_AT_ONCE = 256
PIXELS_AT_ONCE = 2**22  # 4,096 images of CIFAR


class Normalise:
    """(x/255 - mean)/std for uint8 images (b, C, H, W), to float32, on the device.

    That is x · scale + offset, with scale = 1/(255 std) and offset = -mean/std of each channel.
    """

    def __init__(self, dataset: DatasetConfig, device: torch.device) -> None:
        mean = torch.tensor(dataset.mean, dtype=torch.float64)
        std = torch.tensor(dataset.std, dtype=torch.float64)
        self._scale = (1 / (255 * std)).to(device, torch.float32)
        self._offset = (-mean / std).to(device, torch.float32)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise a batch, to channels_last memory, with which convolutions are fastest.

        The batch that is given stays as it is.
        """
        b, channels, height, width = images.shape
        images = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
        # ``rows`` is a view of the copy. Whole rows of pixels are multiplied: a loop over the
        # channels of each pixel is slow on a CPU.
        rows = images.permute(0, 2, 3, 1).view(b, height, width * channels)
        torch.addcmul(self._offset.repeat(width), rows, self._scale.repeat(width), out=rows)
        return images


class Data(ABC):
    """A data set in the parts "train", "test" and "validation", as batches on the device.

    A caller says which images are a batch: a part of an epoch's permutation, or a draw that
    measures C².
    """

    device: torch.device  # where its images are kept
    sizes: Mapping[str, int]  # the images of each part
    test_batch: int  # the images of a test batch

    @property
    def n(self) -> int:
        """The images to train on."""
        return self.sizes["train"]

    @abstractmethod
    def train_batches(self, index_batches: Sequence[Tensor], seed: int) -> Batches:
        """Yield augmented training batches, one for each (b,) int64 tensor of indices in [0, n).

        b may be 0, in a rank's share of a small batch.
        """

    @abstractmethod
    def plain_batches(self, index_batches: Sequence[Tensor], part: str = "train") -> Batches:
        """Yield batches of a part in the same way, not augmented."""

    def test_batches(self, ranks: Ranks = ALONE, part: str = "test") -> Batches:
        """Yield a rank's share of the test set, not augmented, in its own order.

        With ``part="validation"`` it is that of the held-out training images.
        """
        rows = torch.arange(ranks.rank, self.sizes[part], ranks.size, device=self.device)
        return self.plain_batches(rows.split(self.test_batch), part)


class TensorData(Data):
    """A data set whose images are on the device as uint8.

    The host waits for a GPU at each copy to it, so these are few and large.
    """

    test_batch = 500  # It fits in a CPU's cache and takes a third less time than 1000.

    def __init__(
        self, dataset: DatasetConfig, parts: Mapping[str, Split], device: torch.device
    ) -> None:
        self.device = device
        self.sizes = {name: len(split.labels) for name, split in parts.items()}
        # Images (n, H, W, C) uint8 and labels (n,) int64 of each part.
        self._parts = {
            name: (
                torch.from_numpy(np.ascontiguousarray(split.images)).to(device),
                torch.from_numpy(split.labels.astype(np.int64)).to(device),
            )
            for name, split in parts.items()
        }
        self._augment = dataset.augment
        self._normalise = Normalise(dataset, device)
        images_on_gpu = -(-PIXELS_AT_ONCE // dataset.image_size**2)  # ⌈pixels/pixels of an image⌉
        self._at_once = MADE_AT_ONCE if device.type == "cpu" else images_on_gpu

    def train_batches(self, index_batches: Sequence[Tensor], seed: int) -> Batches:
        """See Data. The moves of all n images are drawn before the first batch.

        Several batches are augmented by one call, and then yielded one by one.
        """
        images, labels = self._parts["train"]
        random = generator(seed, "augmentation")
        # Moves are by image and not by batch, so that an image moves alike at any batch size and on
        # any number of ranks.
        moves = augment.draw_moves(self._augment, self.n, random, self.device)
        batches = self._on_device(index_batches)
        # A group has so many batches that they are _at_once images or more. A rank's shares of all
        # batches may be empty.
        count = -(-self._at_once // max(1, *map(len, batches)))
        for start in range(0, len(batches), count):
            group = batches[start : start + count]
            index = torch.cat(group)
            augmented = self._normalise(augment.gather(images, index, moves.of(index)))
            sizes = [len(batch) for batch in group]
            yield from zip(augmented.split(sizes), labels[index].split(sizes), strict=True)

    def plain_batches(self, index_batches: Sequence[Tensor], part: str = "train") -> Batches:
        """See Data."""
        images, labels = self._parts[part]
        for index in self._on_device(index_batches):
            yield self._normalise(images[index].permute(0, 3, 1, 2)), labels[index]

    def _on_device(self, index_batches: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The same batches on the device, in one copy."""
        indices = torch.cat([*index_batches]).to(self.device)
        return torch.split(indices, [len(batch) for batch in index_batches])
