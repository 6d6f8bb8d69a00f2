"""Copies from host to device, few and large: the host waits for a GPU at each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from igo.config.schema import DatasetConfig
from igo.data.source import Split

Batch = tuple[Tensor, Tensor]  # images (b, C, H, W) float32, normalised; labels (b,) int64
TEST_BATCH = 500  # takes a third less time than 1000 on a CPU, as it fits in the cache
# Training images that are made at once. On a CPU 256 halve the cost of batches of 16, and more do
# not help. A GPU gains from fewer launches; its limit is in pixels, of some 30 bytes each.
MADE_AT_ONCE = 256
PIXELS_AT_ONCE = 2**22  # 4,096 images of CIFAR


class Normalise:
    """(x/255 - mean)/std for uint8 images (b, C, H, W), to float32, on the device."""

    def __init__(self, dataset: DatasetConfig, device: torch.device) -> None:
        mean = torch.tensor(dataset.mean, dtype=torch.float64)
        std = torch.tensor(dataset.std, dtype=torch.float64)
        self._scale = (1 / (255 * std)).to(device, torch.float32)
        self._offset = (-mean / std).to(device, torch.float32)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise a batch, to channels_last memory, with which convolutions are fastest."""
        b, channels, height, width = images.shape
        images = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
        # By whole rows: a loop over the channels of each pixel is slow on a CPU.
        rows = images.permute(0, 2, 3, 1).view(b, height, width * channels)
        torch.addcmul(self._offset.repeat(width), rows, self._scale.repeat(width), out=rows)
        return images


def resident(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """A data set's images, uint8 (n, H, W, C), and labels, int64 (n,), in one copy each."""
    images = torch.from_numpy(np.ascontiguousarray(split.images)).to(device)
    return images, torch.from_numpy(split.labels.astype(np.int64)).to(device)


def order(index_batches: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """The same batches on the device, in one copy."""
    if device.type == "cpu" or not index_batches:
        return index_batches
    indices = torch.cat(list(index_batches)).to(device)
    return torch.split(indices, [len(batch) for batch in index_batches])


def at_once(images: Tensor) -> int:
    """How many of these images (n, H, W, C) to make at once."""
    if images.device.type == "cpu":
        return MADE_AT_ONCE
    return max(PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]), 1)


def grouped(index_batches: Iterable[Tensor], count: int) -> Iterator[list[Tensor]]:
    """Yield groups of consecutive batches with ``count`` images or more: fewer and larger calls."""
    group: list[Tensor] = []
    images = 0
    for index in index_batches:
        group.append(index)
        images += len(index)
        if images >= count:
            yield group
            group, images = [], 0
    if group:
        yield group
