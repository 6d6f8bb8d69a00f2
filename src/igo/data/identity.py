"""Identifies a data set by a fingerprint of its content, and finds the facts about it."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from igo.data import readers
from igo.data.readers import Place, Splits
from igo.ground.files import Record

# Where one of these is null in conf/dataset, it is found in the data.
FACTS = ("classes", "channels", "image_size", "samples", "mean", "std")
AT_ONCE = 1000  # The pixels of so many images are counted together.


@dataclass(frozen=True)
class Identity:
    """Which data a run read."""

    name: str
    n: int  # all training images, in use or not
    fingerprint: str  # of all images and labels; of image files, of their names and a sample
    read_from: str

    def __str__(self) -> str:
        """Which data, from where, for error messages."""
        return (
            f"{self.name} in {self.read_from} ({self.n} training images, fingerprint"
            f" {self.fingerprint})"
        )


def identify(name: str, place: Place) -> Identity:
    """The identity of a data set.

    Raises:
        Missing: the data set is not there.
    """
    if name in readers.FOLDERS:
        from igo.data import folders  # It imports torch.

        images = folders.splits(name, place)
        where = str(Path(images[0].root).parent)
        return Identity(name, len(images[0]), fingerprint(folders.content(images)), where)
    where, splits = readers.READERS[name](place)
    return Identity(name, len(splits[0].labels), fingerprint(content(splits)), where)


def fingerprint(content: Iterable[Any]) -> str:
    """BLAKE2b of buffers, in 16 hexadecimal digits."""
    blake = hashlib.blake2b(digest_size=8)
    for buffer in content:
        blake.update(buffer)
    return blake.hexdigest()


def content(splits: Splits) -> Iterator[Any]:
    """Yield the buffers of arrays for a fingerprint: shapes, images and labels (as int64)."""
    for split in splits:
        # The same labels in a smaller integer type are the same data.
        for array in (np.asarray(split.images), split.labels.astype(np.int64)):
            yield repr((array.shape, str(array.dtype))).encode()
            yield np.ascontiguousarray(array).data


@cache  # A sweep asks for each run.
def find_facts(name: str, place: Place) -> Record:
    """The FACTS of a data set by name; in folders, mean and std are those of a sample of images.

    Raises:
        Missing: the data set is not there.
    """
    pixels: Iterable[np.ndarray]
    if name in readers.FOLDERS:
        from igo.data import folders  # It imports torch.

        classes, channels, size, n, pixels = folders.facts(name, place)
    else:
        train, test = readers.read(name, place)
        n, size, _, channels = train.images.shape
        classes = int(max(train.labels.max(), test.labels.max())) + 1
        pixels = np.array_split(train.images, n // AT_ONCE + 1)
    mean, std = moments(pixels)
    return dict(zip(FACTS, (classes, channels, size, n, mean, std), strict=True))


def moments(images: Iterable[np.ndarray]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of all pixels by channel, scaled to [0, 1], to four decimals.

    Args:
        images: any number of arrays (…, C) uint8.
    """
    n = 0
    total: Any = 0.0  # (C,)
    squares: Any = 0.0
    for array in images:
        pixels = array.reshape(-1, array.shape[-1]) / 255
        n += len(pixels)
        total, squares = total + pixels.sum(axis=0), squares + np.square(pixels).sum(axis=0)
    mean = total / n
    std = np.sqrt((squares / n - mean**2).clip(0))
    return mean.round(4).tolist(), std.round(4).tolist()
