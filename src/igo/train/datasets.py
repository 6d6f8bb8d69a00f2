"""Data sets as batches on the device: the same two calls whether they fit in memory or not.

``train_batches`` takes index batches, so that the caller decides what a batch is (a piece of an
epoch's permutation, a draw for measuring C²); ``plain_batches`` and ``test_batches`` never augment.
Adding a data set that fits in memory takes one function in READERS and one file in conf/dataset/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from igo.config.schema import Config, DatasetConfig, draw_of, held_out, place_of
from igo.data import class_folders, readers
from igo.data.class_folders import Images, decode, opened
from igo.data.source import Split
from igo.data.strata import subset
from igo.errors import ConfigError
from igo.ranks import ALONE, Ranks
from igo.seeds import derive_seed, generator
from igo.train import augment, on_device, on_disk
from igo.train.on_disk import Files, OnDisk, OnHost, Reader

Batch = tuple[Tensor, Tensor]  # images (b, C, H, W) float32, normalised; labels (b,) int64
TEST_BATCH = 500  # a third less time than 1000 on a CPU, whose cache it fits


class Data(Protocol):
    """A data set with n training images."""

    n: int

    def train_batches(
        self, index_batches: Sequence[Tensor], seed: int, at_once: int | None = None
    ) -> Iterator[Batch]:
        """Yield augmented training batches, one for each (b,) int64 tensor of indices in [0, n).

        b may be 0: a rank's share of a small batch. Where images come from disk, those of a batch
        above ``at_once`` are an OnHost, to be sliced.
        """
        ...

    def plain_batches(self, index_batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield training batches as ``train_batches`` does, not augmented."""
        ...

    def test_batches(self, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """Yield a rank's share of the test set, not augmented, in its own order."""
        ...

    def validation_batches(self, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """Yield the training images that are held out, as ``test_batches`` does the test set."""
        ...


def open_data(config: Config, device: torch.device) -> Data:
    """Read the configured data set."""
    dataset = config.dataset
    place = place_of(config)
    if dataset.name in ("imagenet", "folder"):
        images = class_folders.images(dataset.name, place)
        if dataset.name == "imagenet":
            return FolderData(dataset, images, device, draw_of(config))
        if not images.fit_in_memory:
            return StreamedData(dataset, images, device, draw_of(config))
    train, test = readers.read(dataset.name, place)
    _check_facts(dataset, train, test)
    used, held = shares(train.labels, dataset, draw_of(config))
    validation = Split(train.images[held], train.labels[held]) if len(held) else None
    if len(used) < len(train.labels):  # else no copy: the arrays are shared between runs
        train = Split(train.images[used], train.labels[used])
    return TensorData(dataset, train, test, device, validation)


def shares(
    labels: np.ndarray, dataset: DatasetConfig, draw: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the samples to train on and of those held out, both stratified, by the draw."""
    if dataset.samples > len(labels):
        allowed = f"{dataset.name} has {len(labels)}"
        raise ConfigError("dataset.samples", dataset.samples, allowed)
    used = subset(labels, dataset.samples, draw)
    held = subset(labels[used], held_out(dataset), draw)
    return np.delete(used, held), used[held]


class TensorData:
    """A data set that lives on the device as uint8, (n, H, W, C); batches are made there."""

    def __init__(
        self,
        dataset: DatasetConfig,
        train: Split,
        test: Split,
        device: torch.device,
        validation: Split | None = None,
    ) -> None:
        self.n = len(train.labels)
        self._augment, self._device = dataset.augment, device
        self._train = on_device.resident(train, device)
        self._test = on_device.resident(test, device)
        self._validation = on_device.resident(validation, device) if validation else None
        self._normalise = on_device.Normalise(dataset, device)

    def train_batches(
        self,
        index_batches: Sequence[Tensor],
        seed: int,
        at_once: int | None = None,  # noqa: ARG002
    ) -> Iterator[Batch]:
        """See Data. The parameters of all n images are drawn once, before the first batch."""
        images, labels = self._train
        moves = augment.draw_moves(
            self._augment, self.n, generator(seed, "augmentation"), self._device
        )
        order = on_device.order(index_batches, self._device)
        for some in on_device.together(order, on_device.at_once(images)):
            index = torch.cat(some)
            made = self._normalise(augment.gather(images, index, moves.of(index)))
            sizes = [len(one) for one in some]
            yield from zip(made.split(sizes), labels[index].split(sizes), strict=True)

    def plain_batches(self, index_batches: Sequence[Tensor]) -> Iterator[Batch]:
        """See Data."""
        images, labels = self._train
        for index in on_device.order(index_batches, self._device):
            yield self._normalise(images[index].permute(0, 3, 1, 2)), labels[index]

    def test_batches(self, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """See Data."""
        return self._evaluated(self._test, ranks)

    def validation_batches(self, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """See Data."""
        return self._evaluated(self._validation, ranks) if self._validation else iter(())

    def _evaluated(self, split: tuple[Tensor, Tensor], ranks: Ranks) -> Iterator[Batch]:
        share = (t[ranks.rank :: ranks.size].split(TEST_BATCH) for t in split)
        for images, labels in zip(*share, strict=True):
            yield self._normalise(images.permute(0, 3, 1, 2)), labels


class _OnDisk:
    """What the two share whose images DataLoader workers read; of (C, H, W) each or (H, W, C)."""

    _evaluated_at_once = TEST_BATCH
    _channels_first = False

    def __init__(
        self,
        dataset: DatasetConfig,
        images: Images,
        device: torch.device,
        draw: int,
        open_one: Callable[[Path], Any],
        transform: Callable[[Any], Tensor],
    ) -> None:
        self._plain, self._test = (
            OnDisk(Files(images.root, files, open_one), images.labels(files), transform)
            for files in (images.train, images.test)
        )
        parts = shares(self._plain.labels.numpy(), dataset, draw)
        self._keep, self._held = map(torch.from_numpy, parts)
        self.n = len(self._keep)
        self._workers, self._device = dataset.workers, device
        self._normalise = on_device.Normalise(dataset, device)
        side, channels = dataset.image_size, dataset.channels
        self._nothing = torch.empty((0, channels, side, side), device=device)
        self._readers: dict[int, Reader] = {}

    def plain_batches(self, index_batches: Sequence[Tensor]) -> Iterator[Batch]:
        """See Data. As test images are seen."""
        return self._as_they_are(self._plain, [self._keep[index] for index in index_batches])

    def test_batches(self, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """See Data."""
        return self._evaluated(self._test, torch.arange(len(self._test)), ranks)

    def validation_batches(self, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """See Data. As test images are seen."""
        return self._evaluated(self._plain, self._held, ranks)

    def _evaluated(self, images: OnDisk, which: Tensor, ranks: Ranks) -> Iterator[Batch]:
        (order,) = ranks.share([which])
        return self._as_they_are(images, order.split(self._evaluated_at_once))

    def _as_they_are(self, images: OnDisk, batches: Sequence[Tensor]) -> Iterator[Batch]:
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
        return self._normalise(pixels if self._channels_first else pixels.permute(0, 3, 1, 2))


class FolderData(_OnDisk):
    """ImageNet's images, by transforms of torchvision's."""

    _evaluated_at_once = TEST_BATCH // 4
    _channels_first = True

    def __init__(
        self, dataset: DatasetConfig, images: Images, device: torch.device, draw: int = 0
    ) -> None:
        _check_folders(dataset, images)
        as_tested, coloured = on_disk.test_transform(dataset), partial(opened, mode="RGB")
        super().__init__(dataset, images, device, draw, coloured, as_tested)
        augmented = on_disk.train_transform(dataset)
        self._augmented = OnDisk(self._plain.images, self._plain.labels.numpy(), augmented)

    def train_batches(
        self, index_batches: Sequence[Tensor], seed: int, at_once: int | None = None
    ) -> Iterator[Batch]:
        """See Data. Each image's crop and flip depend on the seed and the image alone."""
        order = [self._keep[index] for index in index_batches]
        reader = self._reader(self._augmented)
        for pixels, labels in reader.read(order, derive_seed(seed, "augmentation")):
            images = OnHost(pixels, lambda part, _: self._made(part))
            yield images.whole_up_to(at_once), labels.to(self._device, non_blocking=True)


class StreamedData(_OnDisk):
    """Own images in folders, too many for memory: as TensorData, each decoded when it is needed."""

    def __init__(
        self, dataset: DatasetConfig, images: Images, device: torch.device, draw: int = 0
    ) -> None:
        size, channels = images.form
        decoded = partial(decode, size=size, channels=channels)
        super().__init__(dataset, images, device, draw, decoded, torch.tensor)
        self._augment = dataset.augment

    def train_batches(
        self, index_batches: Sequence[Tensor], seed: int, at_once: int | None = None
    ) -> Iterator[Batch]:
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


def _check_facts(dataset: DatasetConfig, *splits: Split) -> None:
    """Hold conf/dataset against the files."""
    classes = max(int(split.labels.max()) for split in splits) + 1
    if dataset.classes != classes:
        raise ConfigError("dataset.classes", dataset.classes, f"the files hold {classes}")
    wanted = (dataset.image_size, dataset.image_size, dataset.channels)
    for shape in (split.images.shape[1:] for split in splits):
        if shape != wanted:
            found = "x".join(map(str, shape))
            allowed = f"the files hold images of {found} (height x width x channels)"
            raise ConfigError("dataset.image_size", dataset.image_size, allowed)


def _check_folders(dataset: DatasetConfig, images: Images) -> None:
    """Hold conf/dataset against the class folders."""
    if dataset.classes != len(images.classes):
        found = f"{images.root} holds {len(images.classes)}"
        raise ConfigError("dataset.classes", dataset.classes, found)
    if dataset.channels != 3:
        allowed = "images are read from folders in colour; it must be 3"
        raise ConfigError("dataset.channels", dataset.channels, allowed)
