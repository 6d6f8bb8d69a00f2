"""The identity of the data that a run read: a fingerprint of the content, without the place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from igo.data import cache, readers
from igo.data.source import Place, Splits


@dataclass(frozen=True)
class Identity:
    """The data that a run read.

    ``n`` counts all training images, in use or not. ``fingerprint`` is of all images and labels;
    for image files, of names, sizes and a sample of contents.
    """

    name: str
    n: int
    fingerprint: str
    read_from: str

    def __str__(self) -> str:
        """Which data, from where, for error messages."""
        content = f"{self.n} training images, fingerprint {self.fingerprint}"
        return f"{self.name} in {self.read_from} ({content})"


def identify(name: str, place: Place) -> Identity:
    """The identity of a data set; its fingerprint is found once for the same files.

    Raises:
        Missing: the data set is not there.
    """
    if name in ("imagenet", "folder"):
        from igo.data import folders  # imports torch

        images = folders.images(name, place)
        where, sources = str(images.root), images.sources

        def find() -> tuple[int, str]:
            return images.n, fingerprint(folders.content(images))
    else:
        source = readers.READERS[name](place)
        where, sources = source.where, source.parts

        def find() -> tuple[int, str]:
            splits = readers.read(name, place)
            return len(splits[0].labels), fingerprint(content(splits))

    file = place.cache / f"{name}-fingerprint-{cache.digest(*sources)}.npz"
    n, digits = cache.remembered(file, find)
    where = str(Path(where).resolve()) if Path(where).exists() else where  # or a package's name
    return Identity(name, n, digits, where)


def fingerprint(content: Iterable[Any]) -> str:
    """BLAKE2b of buffers, in 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for part in content:
        digest.update(part)
    return digest.hexdigest()


def content(splits: Splits) -> Iterator[Any]:
    """Yield what a fingerprint of arrays is of: shapes, images and labels (as int64)."""
    for split in splits:
        for array in (np.asarray(split.images), split.labels.astype(np.int64)):
            yield repr((array.shape, str(array.dtype))).encode()
            yield np.ascontiguousarray(array).data
