"""What a reader is asked and what it answers: a place to look, and a source found there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from igo.errors import UserError


@dataclass(frozen=True)
class Split:
    """Images (n, H, W, C) uint8; labels (n,) integers."""

    images: Any
    labels: np.ndarray


Splits = tuple[Split, Split]  # for training, for testing


@dataclass(frozen=True)
class Place:
    """Where a data set is looked for, and in which form own images are wanted.

    ``root`` and ``file`` are those of own data, a folder of images or an .npz; ``image_size`` and
    ``channels`` None mean as they are.
    """

    data_dir: Path
    root: Path | None = None
    file: Path | None = None
    image_size: int | None = None
    channels: int | None = None
    download: bool = True

    @property
    def cache(self) -> Path:
        """Where what was read is kept for the next time."""
        return self.data_dir / "cache"


@dataclass(frozen=True)
class Source:
    """A data set that was found.

    Args:
        where: it is, for a person: a path, or the package that has it.
        parts: what its content depends on: files, whose size, times and inode count, or versions.
        read: reads it.
    """

    where: str
    parts: tuple[object, ...]
    read: Callable[[], Splits]


class Missing(UserError):
    """A data set is not there, and was not or could not be downloaded."""


def missing(place: Place, what: str, cure: str) -> Missing:
    """Say what is missing, that the whole data_dir is where that is so, and what to do."""
    gone = "" if place.data_dir.is_dir() else f" (data_dir={place.data_dir} does not exist)"
    return Missing(f"{what}{gone}; {cure}, or point data_dir=… at a folder that has it")


def one_line(error: Exception) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
