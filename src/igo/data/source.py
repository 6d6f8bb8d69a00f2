"""The argument and the result of a reader: a place to look, and the source found there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from igo.ground.errors import UserError


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


def missing(place: Place, problem: str, cure: str) -> Missing:
    """The error for a missing data set."""
    where = without_data_dir(place)
    return Missing(f"{problem}{where}; {cure}, or point data_dir=… at a folder that has it")


def without_data_dir(place: Place) -> str:
    """A remark for errors if the whole data_dir is missing, otherwise empty."""
    return "" if place.data_dir.is_dir() else f" (data_dir={place.data_dir} does not exist)"


def one_line(error: Exception) -> str:
    """An error's message on one line; its type if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__
