"""Finds a data set by its name, a fingerprint of its content, and the facts about it."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

from igo.data import readers
from igo.data.readers import Found, Place, Splits
from igo.ground.files import Record

# Where one of these is null in conf/dataset, it is found in the data.
FACTS = ("classes", "channels", "image_size", "samples", "mean", "std")


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


def found(name: str, place: Place) -> Found:
    """Where a data set is, and its two splits: the training images and the test images.

    Raises:
        Missing: the data set is not there.
    """
    if name in readers.READERS:
        return readers.READERS[name](place)
    from igo.data import folders  # It imports torch.

    return folders.found(name, place)


def read(name: str, place: Place) -> Splits:
    """The two splits of a data set, as ``found``."""
    _, splits = found(name, place)
    return splits


def identify(name: str, place: Place) -> Identity:
    """The identity of a data set.

    Raises:
        Missing: the data set is not there.
    """
    where, (train, test) = found(name, place)
    return Identity(name, len(train.labels), fingerprint(train, test), where)


def fingerprint(train: Any, test: Any) -> str:
    """BLAKE2b of the content of two splits, in 16 hexadecimal digits."""
    blake = hashlib.blake2b(digest_size=8)
    for buffer in chain(train.content(), test.content()):
        blake.update(buffer)
    return blake.hexdigest()


@cache  # A sweep asks for each run.
def find_facts(name: str, place: Place) -> Record:
    """The FACTS of a data set by name; in folders, mean and std are those of a sample of images.

    Raises:
        Missing: the data set is not there.
    """
    train, test = read(name, place)
    pixels = train.pixels(name, place)
    *_, size, channels = pixels[0].shape
    mean, std = moments(pixels)
    facts = class_count(train, test), channels, size, len(train.labels), mean, std
    return dict(zip(FACTS, facts, strict=True))


def class_count(*splits: Any) -> int:
    """How many classes there are in some splits: labels are from 0 on."""
    return max(int(split.labels.max()) for split in splits) + 1


def moments(images: Iterable[np.ndarray]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of all pixels by channel, scaled to [0, 1], to four decimals.

    Args:
        images: any number of arrays (…, C) uint8.
    """
    n = 0
    total: Any = 0.0  # (C,), the sum of the pixels; the next is that of their squares
    squares: Any = 0.0
    for array in images:
        pixels = array.reshape(-1, array.shape[-1]) / 255
        n += len(pixels)
        total += pixels.sum(axis=0)
        squares += np.square(pixels).sum(axis=0)
    mean = total / n
    # Of a channel with a single value, rounding may make the variance negative.
    std = np.sqrt((squares / n - mean**2).clip(0))
    return mean.round(4).tolist(), std.round(4).tolist()
