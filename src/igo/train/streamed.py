"""Data sets whose images stay on disk, as batches on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igo.config.schema import DatasetConfig
from igo.cores import allowed_cores
from igo.data import stored
from igo.data.class_folders import Images
from igo.data.stored import Stored
from igo.ranks import ALONE, Ranks
from igo.seeds import derive_seed, generator
from igo.train import augment, on_device, on_disk
from igo.train.on_disk import ByIndex, Files, OnDisk, OnHost, Photographs, Reader

MOST_WORKERS = 16  # where their number is left to us
Parts = tuple[np.ndarray, np.ndarray]  # indices of training images in use, and of those held out


class _OnDisk:
    """What the two share whose images DataLoader workers read, (H, W, C) uint8 each."""

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
            [self._of_cache(one) for one in stored.splits(images)] if dataset.cache
            else [Files(images.root, files, images.open_one) for files in splits]
        )  # fmt: skip
        self._plain, self._test = (
            OnDisk(one, images.labels(files), transform)
            for one, files in zip(opened, splits, strict=True)
        )
        self._keep, self._held = map(torch.from_numpy, parts)
        self.n = len(self._keep)
        self._device, workers = device, dataset.workers
        self._workers = min(allowed_cores(), MOST_WORKERS) if workers is None else workers
        self._normalise = on_device.Normalise(dataset, device)
        side, channels = dataset.image_size, dataset.channels
        self._nothing = torch.empty((0, channels, side, side), device=device)
        self._readers: dict[int, Reader] = {}

    def _of_cache(self, kept: Stored) -> ByIndex:
        return kept

    def plain_batches(self, index_batches: Sequence[Tensor]) -> Iterator[on_device.Batch]:
        """See Data. As test images are seen."""
        return self._as_they_are(self._plain, [self._keep[index] for index in index_batches])

    def test_batches(self, ranks: Ranks = ALONE) -> Iterator[on_device.Batch]:
        """See Data."""
        return self._evaluated(self._test, torch.arange(len(self._test)), ranks)

    def validation_batches(self, ranks: Ranks = ALONE) -> Iterator[on_device.Batch]:
        """See Data. As test images are seen."""
        return self._evaluated(self._plain, self._held, ranks)

    def _evaluated(self, images: OnDisk, which: Tensor, ranks: Ranks) -> Iterator[on_device.Batch]:
        (order,) = ranks.share([which])
        return self._as_they_are(images, order.split(self._evaluated_at_once))

    def _as_they_are(self, images: OnDisk, batches: Sequence[Tensor]) -> Iterator[on_device.Batch]:
        for pixels, labels in self._reader(images).read(batches):
            yield self._made(pixels), labels.to(self._device, non_blocking=True)

    def _reader(self, images: OnDisk) -> Reader:
        """The reader of these images; its workers stay for the next epoch."""
        if id(images) not in self._readers:
            pinned = self._device.type == "cuda"
            self._readers[id(images)] = Reader(images, self._workers, pinned)
        return self._readers[id(images)]

    def _made(self, pixels: Tensor) -> Tensor:
        """Pixels on the host as images on the device, not augmented here."""
        if not len(pixels):
            return self._nothing
        pixels = pixels.to(self._device, non_blocking=True)
        return self._normalise(pixels.permute(0, 3, 1, 2))


class FolderData(_OnDisk):
    """ImageNet's images, by transforms of torchvision's."""

    _evaluated_at_once = on_device.TEST_BATCH // 4

    def __init__(
        self, dataset: DatasetConfig, images: Images, parts: Parts, device: torch.device
    ) -> None:
        super().__init__(dataset, images, parts, device, on_disk.test_transform(dataset))
        augmented = on_disk.train_transform(dataset)
        self._augmented = OnDisk(self._plain.images, self._plain.labels.numpy(), augmented)

    def _of_cache(self, kept: Stored) -> ByIndex:
        return Photographs(kept)

    def train_batches(
        self, index_batches: Sequence[Tensor], seed: int, at_once: int | None = None
    ) -> Iterator[on_device.Batch]:
        """See Data. Each image's crop and flip depend on the seed and the image alone."""
        order = [self._keep[index] for index in index_batches]
        reader = self._reader(self._augmented)
        for pixels, labels in reader.read(order, derive_seed(seed, "augmentation")):
            images = OnHost(pixels, lambda part, _: self._made(part))
            yield images.whole_up_to(at_once), labels.to(self._device, non_blocking=True)


class StreamedData(_OnDisk):
    """Own images in folders, too many for memory: as TensorData, each decoded when it is needed."""

    def __init__(
        self, dataset: DatasetConfig, images: Images, parts: Parts, device: torch.device
    ) -> None:
        super().__init__(dataset, images, parts, device, torch.tensor)
        self._augment = dataset.augment

    def train_batches(
        self, index_batches: Sequence[Tensor], seed: int, at_once: int | None = None
    ) -> Iterator[on_device.Batch]:
        """See Data. The parameters are those that TensorData draws."""
        drawn = generator(seed, "augmentation")
        moves = augment.draw_moves(self._augment, self.n, drawn, self._device)
        order = on_device.order(index_batches, self._device)

        def made(pixels: Tensor, part: slice, of: Tensor) -> Tensor:
            if not len(pixels):
                return self._nothing
            own = torch.arange(len(pixels), device=self._device)
            moved = augment.gather(pixels.to(self._device), own, moves.of(of[part]))
            return self._normalise(moved)

        loaded = self._reader(self._plain).read([self._keep[index] for index in index_batches])
        for index, (pixels, labels) in zip(order, loaded, strict=True):
            images = OnHost(pixels, partial(made, of=index))
            yield images.whole_up_to(at_once), labels.to(self._device, non_blocking=True)
