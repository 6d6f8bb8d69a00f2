"""The identity of the data that a run read: a fingerprint of the content, without the place."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from igo.data import image_files, readers
from igo.data.cache import remembered
from igo.data.source import Place, Splits

SIZE = 8  # bytes of a fingerprint


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
    """The identity of a data set. It is remembered for the files' sizes, times and inodes.

    Raises:
        Missing: the data set is not there.
    """
    if name in ("imagenet", "folder"):
        return _of_folders(name, place)
    source = readers.READERS[name](place)

    def find() -> dict[str, Any]:
        splits = readers.read(name, place, source)
        return {"n": len(splits[0].labels), "fingerprint": of_arrays(splits)}

    facts = remembered(place.cache, name, source.parts, find)
    return Identity(name, int(facts["n"]), str(facts["fingerprint"]), absolute(source.where))


def of_arrays(splits: Splits) -> str:
    """BLAKE2b of shapes, images and labels (as int64), in hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=SIZE)
    for split in splits:
        for array in (np.asarray(split.images), split.labels.astype(np.int64)):
            digest.update(repr((array.shape, str(array.dtype))).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _of_folders(name: str, place: Place) -> Identity:
    root, files = image_files.listing(name, place)
    facts = remembered(
        place.cache,
        name,
        [(file.name, file.stamp) for file in files],
        lambda: {"fingerprint": image_files.fingerprint(root, files, SIZE)},
    )
    n = sum(file.name.startswith("train/") for file in files)
    return Identity(name, n, str(facts["fingerprint"]), absolute(str(root)))


def absolute(where: str) -> str:
    """A path in full; another text, such as the name of a package, unchanged."""
    return str(Path(where).resolve()) if Path(where).exists() else where
