"""The user's data as an .npz file: images and labels, with a test set or a split made here."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from igo.data import cache, strata
from igo.data.source import Missing, Place, Source, Split, Splits, one_line
from igo.ground.errors import UserError

MOST_CLASSES = 2**20


def source(place: Place) -> Source:
    """The file of dataset.file; its path is used as typed."""
    if place.file is None:
        raise Missing("dataset=arrays needs dataset.file, an .npz of images and labels")
    if not place.file.is_file():
        raise Missing(f"dataset.file={place.file} is missing")
    return Source(str(place.file), (place.file,), partial(_read, place.file))


def _read(file: Path) -> Splits:
    try:
        arrays = cache.read(file)
    except cache.UNREADABLE as error:
        raise UserError(f"{file} cannot be read ({one_line(error)})") from None
    train = _split(file, arrays, "images", "labels")
    if "test_images" in arrays or "test_labels" in arrays:
        test = _split(file, arrays, "test_images", "test_labels")
        if train.images.shape[1:] != test.images.shape[1:]:
            raise UserError(f"{file}: images and test_images differ in size or channels")
        _check_first(file, train.labels, test.labels)
        return train, test
    _check_first(file, train.labels)
    kept, tested = strata.split(train.labels)
    return tuple(Split(train.images[i], train.labels[i]) for i in (kept, tested))  # type: ignore[return-value]


def _check_first(file: Path, *labels: np.ndarray) -> None:
    low, high = min(part.min() for part in labels), max(part.max() for part in labels)
    if low > 0:
        words = f"labels has no 0; it has {low} to {high}: subtract {low}"
        raise UserError(f"{file}: {words}")


def _split(file: Path, arrays: dict[str, np.ndarray], images: str, labels: str) -> Split:
    for name in (images, labels):
        if name not in arrays:
            names = ", ".join(arrays) or "nothing"
            raise UserError(f"{file} has no {name}; it has {names}")
    pixels, classes = arrays[images], arrays[labels]
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[1] != pixels.shape[2]:
        raise UserError(
            f"{file}: {images} is {pixels.dtype} of shape {pixels.shape}; it must be uint8, (n,"
            " H, H) for grey or (n, H, H, C) for colour images"
        )
    whole = np.issubdtype(classes.dtype, np.integer)
    if not whole or classes.shape != (len(pixels),) or len(pixels) < 2 or classes.min() < 0:
        raise UserError(
            f"{file}: {labels} is {classes.dtype} of shape {classes.shape}; it must be a class from"
            f" 0 upwards for each of the {len(pixels)} images, and at least two are needed"
        )
    if classes.max() >= MOST_CLASSES:  # before astype, which wraps around
        raise UserError(
            f"{file}: {labels} has the class {classes.max()}; classes count from 0, and are at most"
            f" {MOST_CLASSES:,}"
        )
    return Split(pixels if pixels.ndim == 4 else pixels[..., None], classes.astype(np.int64))
