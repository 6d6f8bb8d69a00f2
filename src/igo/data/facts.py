"""Facts of a data set, in place of null in conf/dataset."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from igo.data.source import Splits

Facts = dict[str, Any]
NAMES = ("classes", "channels", "image_size", "samples", "mean", "std")


def of_arrays(splits: Splits) -> Facts:
    """The facts NAMES of arrays."""
    train, test = splits
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    _, size, _, channels = train.images.shape
    facts = classes, channels, size, len(train.labels), *moments([train.images])
    return dict(zip(NAMES, facts, strict=True))


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
