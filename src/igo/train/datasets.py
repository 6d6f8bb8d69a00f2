"""Data sets as batches on the device: the same methods whether they fit in memory or not.

``train_batches`` takes index batches, so the caller decides what a batch is: a part of an epoch's
permutation, or a draw for measuring C². A new data set that fits in memory takes one function in
READERS and one file in conf/dataset/.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from igo.config.schema import Config, DatasetConfig, draw_of, held_out, place_of
from igo.data import readers
from igo.data.source import Split, subset
from igo.ground.errors import ConfigError
from igo.ground.ranks import ALONE, Ranks
from igo.ground.seeds import generator
from igo.train import augment, on_device
from igo.train.on_device import Batch

if TYPE_CHECKING:  # these import torchvision, which takes a second
    from igo.data.folders import Images
    from igo.data.stored import Watch

Parts = tuple[np.ndarray, np.ndarray]  # indices of training images in use, and of those held out


class Data(Protocol):
    """A data set with n training images."""

    n: int

    def train_batches(
        self, index_batches: Sequence[Tensor], seed: int, at_once: int | None = None
    ) -> Iterator[Batch]:
        """Yield augmented training batches, one for each (b,) int64 tensor of indices in [0, n).

        b may be 0, in a rank's share of a small batch. For images on disk, a batch above
        ``at_once`` is an OnHost: slice it.
        """
        ...

    def plain_batches(self, index_batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield training batches like ``train_batches``, not augmented."""
        ...

    def test_batches(self, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """Yield a rank's share of the test set, not augmented, in its own order."""
        ...

    def validation_batches(self, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """Yield a rank's share of the held-out training images, like ``test_batches``."""
        ...


def resize_once(config: Config, watch: Watch) -> None:
    """Make the cache of resized images, if the data set needs one and has none."""
    if config.dataset.cache and (images_and_parts := _on_disk(config)):
        from igo.data import stored

        stored.splits(images_and_parts[0], watch)


def open_data(config: Config, device: torch.device) -> Data:
    """Read the configured data set."""
    dataset = config.dataset
    if images_and_parts := _on_disk(config):
        from igo.train.on_disk import DiskData

        return DiskData(dataset, *images_and_parts, device)
    train, test = readers.read(dataset.name, place_of(config))
    _check_facts(dataset, train, test)
    used, held = shares(train.labels, dataset, draw_of(config))
    validation = Split(train.images[held], train.labels[held]) if len(held) else None
    if len(used) < len(train.labels):
        train = Split(train.images[used], train.labels[used])
    return TensorData(dataset, train, test, device, validation)


def _on_disk(config: Config) -> tuple[Images, Parts] | None:
    """The images and their parts, checked; None if they fit in memory."""
    dataset = config.dataset
    if dataset.name not in ("imagenet", "folder"):
        return None
    from igo.data import folders

    images = folders.images(dataset.name, place_of(config))
    if images.fit_in_memory:
        return None
    _check_folders(dataset, images)
    return images, shares(images.train.labels, dataset, draw_of(config))


def shares(labels: np.ndarray, dataset: DatasetConfig, draw: int = 0) -> Parts:
    """Indices of the samples to train on and of those held out, both stratified."""
    if dataset.samples > len(labels):
        allowed = f"{dataset.name} has {len(labels)}"
        raise ConfigError("dataset.samples", dataset.samples, allowed)
    used = subset(labels, dataset.samples, draw)
    held = subset(labels[used], held_out(dataset), draw)
    return np.delete(used, held), used[held]


class TensorData:
    """A data set that is on the device as uint8, (n, H, W, C); batches are made there."""

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
        """See Data. The moves of all n images are drawn before the first batch."""
        images, labels = self._train
        random = generator(seed, "augmentation")
        moves = augment.draw_moves(self._augment, self.n, random, self._device)
        order = on_device.order(index_batches, self._device)
        for group in on_device.grouped(order, on_device.at_once(images)):
            index = torch.cat(group)
            augmented = self._normalise(augment.gather(images, index, moves.of(index)))
            sizes = [len(batch) for batch in group]
            yield from zip(augmented.split(sizes), labels[index].split(sizes), strict=True)

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
        share = (t[ranks.rank :: ranks.size].split(on_device.TEST_BATCH) for t in split)
        for images, labels in zip(*share, strict=True):
            yield self._normalise(images.permute(0, 3, 1, 2)), labels


def _check_facts(dataset: DatasetConfig, *splits: Split) -> None:
    classes = max(int(split.labels.max()) for split in splits) + 1
    if dataset.classes != classes:
        raise ConfigError("dataset.classes", dataset.classes, f"the files hold {classes}")
    wanted = (dataset.image_size, dataset.image_size, dataset.channels)
    for shape in (split.images.shape[1:] for split in splits):
        if shape != wanted:
            size = "x".join(map(str, shape))
            allowed = f"the files hold images of {size} (height x width x channels)"
            raise ConfigError("dataset.image_size", dataset.image_size, allowed)


def _check_folders(dataset: DatasetConfig, images: Images) -> None:
    if dataset.classes != len(images.classes):
        allowed = f"{images.root} holds {len(images.classes)}"
        raise ConfigError("dataset.classes", dataset.classes, allowed)
    if dataset.name == "imagenet" and dataset.channels != 3:
        allowed = "images are read from folders in colour; it must be 3"
        raise ConfigError("dataset.channels", dataset.channels, allowed)
