"""Facts of a data set, in place of null in conf/dataset; computed once and remembered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from igo.data import class_folders, readers
from igo.data.cache import Facts, remembered
from igo.data.source import Place

NAMES = ("classes", "channels", "image_size", "samples", "mean", "std")


def find(name: str, place: Place) -> Facts:
    """The facts NAMES of a data set, as in conf/dataset.

    Raises:
        Missing: the data set is not there.
    """
    if name == "folder":
        images = class_folders.images(name, place)
        parts = (*images.parts, NAMES)
        return remembered(place.cache, f"{name}-facts", parts, lambda: _of_folder(images))
    source = readers.READERS[name](place)
    parts = (*source.parts, readers.code_of(name), NAMES)

    def of_arrays() -> Facts:
        train, test = readers.read(name, place, source)
        classes = int(max(train.labels.max(), test.labels.max())) + 1
        _, size, _, channels = train.images.shape
        sizes = classes, channels, size, len(train.labels)
        return dict(zip(NAMES, (*sizes, *moments([train.images])), strict=True))

    return remembered(place.cache, f"{name}-facts", parts, of_arrays)


def _of_folder(images: class_folders.Images) -> Facts:
    size, channels = images.form
    sizes = len(images.classes), channels, size, len(images.train)
    resized = (image for image, _ in images.resized(images.sample()))
    return dict(zip(NAMES, (*sizes, *moments(resized)), strict=True))


def moments(images: Iterable[np.ndarray]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of all pixels by channel, scaled to [0, 1], to four decimals.

    Args:
        images: any number of arrays (…, C) uint8.
    """
    counts: Any = 0  # (C, 256), how often each level occurs: exact, and small
    for array in images:
        channels = array.reshape(-1, array.shape[-1])
        counts = counts + np.stack([np.bincount(channel, minlength=256) for channel in channels.T])
    levels = np.arange(256) / 255
    mean = counts @ levels / counts.sum(axis=1)
    variance = counts @ levels**2 / counts.sum(axis=1) - mean**2
    return mean.round(4).tolist(), np.sqrt(variance.clip(0)).round(4).tolist()
