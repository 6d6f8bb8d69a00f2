"""Data sets as batches on the device: the same methods whether they fit in memory or not.

``train_batches`` takes index batches, so the caller decides what a batch is: a part of an epoch's
permutation, or a draw for measuring C². A new data set that fits in memory takes one function in
READERS and one file in conf/dataset/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from igo.config.schema import Config, DatasetConfig, draw_of, held_out, place_of
from igo.data import readers
from igo.data.readers import Split, subset
from igo.ground.errors import require
from igo.ground.ranks import ALONE, Ranks
from igo.train.on_device import Batches, TensorData

MOST_BYTES = 2 * 2**30  # Decoded images of more bytes are not kept on the device.
Parts = tuple[np.ndarray, np.ndarray]  # indices of training images in use, and of those held out


class Data(Protocol):
    """A data set with n training images."""

    n: int

    def train_batches(self, index_batches: Sequence[Tensor], seed: int) -> Batches:
        """Yield augmented training batches, one for each (b,) int64 tensor of indices in [0, n).

        b may be 0, in a rank's share of a small batch.
        """

    def plain_batches(self, index_batches: Sequence[Tensor]) -> Batches:
        """Yield training batches like ``train_batches``, not augmented."""

    def test_batches(self, ranks: Ranks = ALONE, part: str = "test") -> Batches:
        """Yield a rank's share of the test set, not augmented, in its own order.

        With ``part="validation"`` it is that of the held-out training images.
        """


def open_data(config: Config, device: torch.device) -> Data:
    """Read the configured data set."""
    dataset, place = config.dataset, place_of(config)
    if dataset.name in readers.FOLDERS:
        return _of_folders(config, device)
    train, test = readers.read(dataset.name, place)
    _check_facts(dataset, [train.labels, test.labels], train.images, test.images)
    used, held = (
        Split(train.images[rows], train.labels[rows])
        for rows in shares(train.labels, dataset, draw_of(config))
    )
    return TensorData(dataset, used, {"test": test, "validation": held}, device)


def _of_folders(config: Config, device: torch.device) -> Data:
    from igo.data import folders
    from igo.train.on_disk import DiskData

    dataset = config.dataset
    train, test = folders.splits(dataset.name, place_of(config))
    labels = np.array(train.targets)
    _check_facts(dataset, [labels, np.array(test.targets)])
    parts = (folders.part(train, rows) for rows in shares(labels, dataset, draw_of(config)))
    data = DiskData(dataset, next(parts), test, next(parts), device)
    size = (len(train) + len(test)) * dataset.channels * dataset.image_size**2
    if dataset.name == "imagenet" or size > MOST_BYTES:
        return data
    names = ("test", "validation") if dataset.validation else ("test",)
    tests = {name: data.split(name) for name in names}
    return TensorData(dataset, data.split("train"), tests, device)


def shares(labels: np.ndarray, dataset: DatasetConfig, draw: int = 0) -> Parts:
    """Indices of the samples to train on and of those held out, both stratified."""
    advice = f"{dataset.name} has {len(labels)}"
    require(dataset.samples <= len(labels), "dataset.samples", dataset.samples, advice)
    rows = subset(labels, dataset.samples, draw)
    held_rows = subset(labels[rows], held_out(dataset), draw)
    return np.delete(rows, held_rows), rows[held_rows]


def _check_facts(dataset: DatasetConfig, labels: Sequence[np.ndarray], *images: Any) -> None:
    classes, size = max(int(part.max()) for part in labels) + 1, dataset.image_size
    advice = f"the files hold {classes}"
    require(dataset.classes == classes, "dataset.classes", dataset.classes, advice)
    for shape in (part.shape[1:] for part in images):
        numbers = "x".join(map(str, shape))
        advice = f"the files hold images of {numbers} (height x width x channels)"
        require(shape == (size, size, dataset.channels), "dataset.image_size", size, advice)
