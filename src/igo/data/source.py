"""Where a data set is looked for, what is found there, and stratified parts of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from igo.ground.errors import UserError

TEST_SHARE = 0.2  # for the user's data without a test set


@dataclass(frozen=True)
class Split:
    """Images (n, H, W, C) uint8; labels (n,) integers."""

    images: Any
    labels: np.ndarray


Splits = tuple[Split, Split]  # for training, for testing


@dataclass(frozen=True)
class Place:
    """Where to look for a data set, and the form that the user's own images get.

    ``root`` (a folder of images) and ``file`` (an .npz) are for the user's own data. With None as
    ``image_size`` or ``channels`` the images keep theirs.
    """

    data_dir: Path
    root: Path | None = None
    file: Path | None = None
    image_size: int | None = None
    channels: int | None = None
    download: bool = True

    @property
    def cache(self) -> Path:
        """The folder of cached data sets."""
        return self.data_dir / "cache"


@dataclass(frozen=True)
class Source:
    """A data set that was found.

    Args:
        where: a path, or the package that has it; for the user.
        parts: what its content depends on: files (their size, times and inode number) or versions.
        read: reads it.
    """

    where: str
    parts: tuple[object, ...]
    read: Callable[[], Splits]


class Missing(UserError):
    """A data set is not there; it was not downloaded, or could not be."""


def subset(labels: np.ndarray, samples: int, draw: int = 0) -> np.ndarray:
    """Sorted indices of a part with the same share of each class; it depends on ``draw`` alone."""
    if samples == len(labels):
        return np.arange(len(labels))
    order = np.random.default_rng(draw).permutation(len(labels))
    rank = np.empty(len(labels))  # position of each sample within its class, from 0 to 1
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(order[np.argsort(rank[order], kind="stable")][:samples])


def train_and_test(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on, and those of a fixed fifth of each class as the test set."""
    test = subset(labels, round(TEST_SHARE * len(labels)))
    return np.delete(np.arange(len(labels)), test), test
