"""Data sets whose images stay on disk, as batches on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igo.config.schema import DatasetConfig
from igo.data import stored
from igo.data.class_folders import Images
from igo.data.stored import Stored
from igo.ground.cores import allowed_cores
from igo.ground.ranks import ALONE, Ranks
from igo.ground.seeds import derive_seed, generator
from igo.train import augment, on_device, on_disk
from igo.train.on_disk import ByIndex, Files, OnDisk, OnHost, Photographs, Reader

MOST_WORKERS = 16  # if dataset.workers is null
Parts = tuple[np.ndarray, np.ndarray]  # indices of training images in use, and of those held out


class _OnDisk:
    """The base of data sets whose images, (H, W, C) uint8, DataLoader workers read."""

    _evaluated_at_once = on_device.TEST_BATCH

    def __init__(
        self,
        dataset: DatasetConfig,
        images: Images,
        parts: Parts,
        device: torch.device,
        transform: Callable[[Any], Tensor],
    ) -> None:
        splits = images.train, images.test
        opened: Sequence[ByIndex] = (
            [self._of_cache(split) for split in stored.splits(images)] if dataset.cache
            else [Files(images.root, files, images.open_file) for files in splits]
        )  # fmt: skip
        self._plain, self._test = (
            OnDisk(by_index, images.labels(files), transform)
            for by_index, files in zip(opened, splits, strict=True)
        )
        self._keep, self._held = map(torch.from_numpy, parts)
        self.n = len(self._keep)
        self._device, workers = device, dataset.workers
        self._workers = min(allowed_cores(), MOST_WORKERS) if workers is None else workers
        self._normalise = on_device.Normalise(dataset, device)
        side, channels = dataset.image_size, dataset.channels
        self._nothing = torch.empty((0, channels, side, side), device=device)
        self._readers: dict[int, Reader] = {}

    def _of_cache(self, images: Stored) -> ByIndex:
        return images

    def plain_batches(self, index_batches: Sequence[Tensor]) -> Iterator[on_device.Batch]:
        """See Data. Images are transformed like test images."""
        return self._not_augmented(self._plain, [self._keep[index] for index in index_batches])

    def test_batches(self, ranks: Ranks = ALONE) -> Iterator[on_device.Batch]:
        """See Data."""
        return self._evaluated(self._test, torch.arange(len(self._test)), ranks)

    def validation_batches(self, ranks: Ranks = ALONE) -> Iterator[on_device.Batch]:
        """See Data. Images are transformed like test images."""
        return self._evaluated(self._plain, self._held, ranks)

    def _evaluated(self, images: OnDisk, index: Tensor, ranks: Ranks) -> Iterator[on_device.Batch]:
        (share,) = ranks.share([index])
        return self._not_augmented(images, share.split(self._evaluated_at_once))

    def _not_augmented(
        self, images: OnDisk, index_batches: Sequence[Tensor]
    ) -> Iterator[on_device.Batch]:
        for pixels, labels in self._reader(images).read(index_batches):
            yield self._normalised(pixels), labels.to(self._device, non_blocking=True)

    def _reader(self, images: OnDisk) -> Reader:
        """The reader of these images; its workers stay for the next epoch."""
        if id(images) not in self._readers:
            pinned = self._device.type == "cuda"
            self._readers[id(images)] = Reader(images, self._workers, pinned)
        return self._readers[id(images)]

    def _normalised(self, pixels: Tensor) -> Tensor:
        """Normalised images on the device from pixels on the host."""
        if not len(pixels):
            return self._nothing
        pixels = pixels.to(self._device, non_blocking=True)
        return self._normalise(pixels.permute(0, 3, 1, 2))


class FolderData(_OnDisk):
    """ImageNet's images, with torchvision's transforms."""

    _evaluated_at_once = on_device.TEST_BATCH // 4

    def __init__(
        self, dataset: DatasetConfig, images: Images, parts: Parts, device: torch.device
    ) -> None:
        super().__init__(dataset, images, parts, device, on_disk.test_transform(dataset))
        augmented = on_disk.train_transform(dataset)
        self._augmented = OnDisk(self._plain.images, self._plain.labels.numpy(), augmented)

    def _of_cache(self, images: Stored) -> ByIndex:
        return Photographs(images)

    def train_batches(
        self, index_batches: Sequence[Tensor], seed: int, at_once: int | None = None
    ) -> Iterator[on_device.Batch]:
        """See Data. Each image's crop and flip depend on the seed and the image alone."""
        order = [self._keep[index] for index in index_batches]
        reader = self._reader(self._augmented)
        for pixels, labels in reader.read(order, derive_seed(seed, "augmentation")):
            images = OnHost(pixels, lambda part, _: self._normalised(part))
            yield images.whole_up_to(at_once), labels.to(self._device, non_blocking=True)


class StreamedData(_OnDisk):
    """The user's images in folders, too many for memory: like TensorData, decoded when needed."""

    def __init__(
        self, dataset: DatasetConfig, images: Images, parts: Parts, device: torch.device
    ) -> None:
        super().__init__(dataset, images, parts, device, torch.tensor)
        self._augment = dataset.augment

    def train_batches(
        self, index_batches: Sequence[Tensor], seed: int, at_once: int | None = None
    ) -> Iterator[on_device.Batch]:
        """See Data. The moves are those that TensorData draws."""
        random = generator(seed, "augmentation")
        moves = augment.draw_moves(self._augment, self.n, random, self._device)
        order = on_device.order(index_batches, self._device)

        def make(pixels: Tensor, part: slice, index: Tensor) -> Tensor:
            if not len(pixels):
                return self._nothing
            every = torch.arange(len(pixels), device=self._device)
            moved = augment.gather(pixels.to(self._device), every, moves.of(index[part]))
            return self._normalise(moved)

        loaded = self._reader(self._plain).read([self._keep[index] for index in index_batches])
        for index, (pixels, labels) in zip(order, loaded, strict=True):
            images = OnHost(pixels, partial(make, index=index))
            yield images.whole_up_to(at_once), labels.to(self._device, non_blocking=True)
