"""From the host to the device in few and large copies: each of them makes a GPU be waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from igo.config.schema import DatasetConfig
from igo.data.source import Split

Batch = tuple[Tensor, Tensor]  # images (b, C, H, W) float32, normalised; labels (b,) int64
TEST_BATCH = 500  # a third less time than 1000 on a CPU, whose cache it fits
# Training images: as many on a CPU halve what a batch of 16 costs, and more gain nothing. A GPU's
# launches are paid for by fewer of them; its bound is in pixels, of which each takes some 30 bytes.
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
        """Normalise a batch; channels_last memory, which convolutions are fastest on."""
        b, channels, height, width = images.shape
        images = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
        # By whole rows: of loops over the channels of each pixel none is fast on a CPU.
        rows = images.permute(0, 2, 3, 1).view(b, height, width * channels)
        torch.addcmul(self._offset.repeat(width), rows, self._scale.repeat(width), out=rows)
        return images


def resident(one: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """A data set's images, uint8 (n, H, W, C), and labels, int64 (n,), by one copy each."""
    images = torch.from_numpy(np.ascontiguousarray(one.images)).to(device)
    return images, torch.from_numpy(one.labels.astype(np.int64)).to(device)


def order(index_batches: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """The same batches on the device by one copy, for which a GPU waits: not one for each."""
    if device.type == "cpu" or not index_batches:
        return index_batches
    moved = torch.cat(list(index_batches)).to(device)
    return torch.split(moved, [len(one) for one in index_batches])


def at_once(images: Tensor) -> int:
    """How many of these images (n, H, W, C) to make at once."""
    if images.device.type == "cpu":
        return MADE_AT_ONCE
    return max(PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]), 1)


def together(index_batches: Iterable[Tensor], count: int) -> Iterator[list[Tensor]]:
    """Neighbouring batches until they have so many images: small ones cost calls, not work."""
    some: list[Tensor] = []
    images = 0
    for index in index_batches:
        some.append(index)
        images += len(index)
        if images >= count:
            yield some
            some, images = [], 0
    if some:
        yield some
