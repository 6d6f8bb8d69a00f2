"""What a data set is: a fingerprint of its content, without its place, and facts about it."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from igo.data import readers
from igo.data.readers import Place, Splits, digest
from igo.ground.errors import UserError, warn
from igo.ground.files import Record, read_json, write_json

# Where one of these is null in conf/dataset, it is found in the data.
FACTS = ("classes", "channels", "image_size", "samples", "mean", "std")
AT_ONCE = 1000  # The pixels of so many images are counted together.


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
        return (
            f"{self.name} in {self.read_from} ({self.n} training images, fingerprint"
            f" {self.fingerprint})"
        )


def identify(name: str, place: Place) -> Identity:
    """The identity of a data set; a fingerprint of arrays is found once for the same files.

    Raises:
        Missing: the data set is not there.
    """
    if name in readers.FOLDERS:
        from igo.data import folders  # It imports torch.

        splits = folders.splits(name, place)
        digits = fingerprint(folders.content(splits))
        return Identity(name, len(splits[0]), digits, str(splits[0].root.resolve()))
    source = readers.READERS[name](place)

    def find() -> Record:
        splits = source.read()
        return {"n": len(splits[0].labels), "fingerprint": fingerprint(content(splits))}

    # To hash all pixels takes seconds, and each start asks. The name has the stamps of the files:
    # if one changes, all are hashed again.
    facts = remembered(place.cache / f"{name}-fingerprint-{digest(*source.parts)}.json", find)
    return Identity(name, facts["n"], facts["fingerprint"], source.where)


def fingerprint(content: Iterable[Any]) -> str:
    """BLAKE2b of buffers, in 16 hexadecimal digits."""
    blake = hashlib.blake2b(digest_size=8)
    for part in content:
        blake.update(part)
    return blake.hexdigest()


def content(splits: Splits) -> Iterator[Any]:
    """Yield what a fingerprint of arrays is of: shapes, images and labels (as int64)."""
    for split in splits:
        # The same labels in a smaller integer type are the same data.
        for array in (np.asarray(split.images), split.labels.astype(np.int64)):
            yield repr((array.shape, str(array.dtype))).encode()
            yield np.ascontiguousarray(array).data


def find_facts(name: str, place: Place) -> Record:
    """The FACTS of a data set, found once for the same files; those of pixels in a sample of many.

    Raises:
        Missing: the data set is not there.
    """
    if name in readers.FOLDERS:
        from igo.data import folders  # It imports torch.

        splits = folders.splits(name, place)
        form = place.image_size, place.channels
        arrays = (array for images in splits for array in (images.names, images.stamps))
        sources: tuple[object, ...] = (str(splits[0].root.resolve()), *form, *arrays)

        def find() -> tuple[object, ...]:
            images = folders.with_form(splits[0])
            sample = folders.spread(images.names, folders.MOST_SAMPLED).tolist()
            classes, pixels = int(images.labels.max()) + 1, images.resized(sample)
            return classes, images.channels, images.size, len(images), *moments(pixels)
    else:
        source = readers.READERS[name](place)
        sources = source.parts

        def find() -> tuple[object, ...]:
            train, test = source.read()
            classes = int(max(train.labels.max(), test.labels.max())) + 1
            n, size, _, channels = train.images.shape
            pixels = np.array_split(train.images, n // AT_ONCE + 1)
            return classes, channels, size, n, *moments(pixels)

    file = place.cache / f"{name}-facts-{digest(*sources)}.json"
    return remembered(file, lambda: dict(zip(FACTS, find(), strict=True)))


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


def remembered(file: Path, find: Callable[[], Record]) -> Record:
    """An object of JSON from a file or, if igo has not written it, found and kept in it.

    If igo cannot write the file, nothing is kept.
    """
    record: Record | None = None
    with suppress(UserError):
        record = read_json(file, {})
    # Every record of igo's has a seal. One of other sources has the name of another file.
    if record and "seal" in record and record.get("of") == file.name:
        return record
    if record != {}:
        warn(f"{file} is not what igo wrote, so it is made again")
    record = {"of": file.name, **find()}
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, record)
    return record
