"""Images of folders, decoded and resized once, in a file that all runs of a machine map."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from igo.data import cache
from igo.data.class_folders import Images
from igo.data.image_files import File
from igo.ground.errors import UserError
from igo.ground.files import durable

UNUSABLE = (OSError, ValueError, EOFError)  # what a missing or damaged file raises
PIXELS, SHAPES = "pixels", "shapes.npy"
FORM = 1  # a version: increase it if other pixels are stored for the same files and size
Watch = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


class Stored:
    """Images by index, (H, W, C) uint8 of different sizes, one after the other in a mapped file.

    ``sizes_in_files`` is (n, 2), heights and widths.

    Raises:
        OSError, ValueError, EOFError: the file is missing or not whole.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        shapes = np.load(folder / SHAPES, allow_pickle=False)  # (n, 5)
        self._shapes, self.sizes_in_files = shapes[:, :3], shapes[:, 3:]
        self._ends = self._shapes.prod(axis=1).cumsum()
        self._pixels = np.asarray(np.memmap(folder / PIXELS, np.uint8, "r"))
        if len(self._pixels) != self._ends[-1]:
            raise ValueError(f"{folder} is not whole")

    def __reduce__(self) -> tuple[type[Stored], tuple[Path]]:
        """Pickle the folder's name: a worker that is not forked maps the file itself."""
        return Stored, (self._folder,)

    def __getitem__(self, index: int) -> np.ndarray:
        start = self._ends[index - 1] if index else 0
        return self._pixels[start : self._ends[index]].reshape(self._shapes[index])


def splits(images: Images, watch: Watch = lambda *_: nullcontext(lambda: None)) -> list[Stored]:
    """Training and test images from place.cache, where the first call puts them.

    One process at a time makes them, and the others wait.

    Args:
        images: of a folder; other files, another size or other channels are stored apart.
        watch: makes a context from a message and a number of images; its value is called for each.
    """
    parts = {"train": images.train, "test": images.test}
    return [_stored(images, part, files, watch) for part, files in parts.items()]


def _stored(images: Images, part: str, files: list[File], watch: Watch) -> Stored:
    known = tuple((file.name, file.stamp) for file in files)
    digest = cache.digest((str(images.root.resolve()), known, images.form, FORM))
    folder = images.place.cache / f"{images.name}-{part}-{digest}"
    with contextlib.suppress(*UNUSABLE):
        return Stored(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        message = f"{len(files):,} {part} images are resized once and kept in {folder}"
        with folder.with_suffix(".lock").open("ab") as lock, watch(message, len(files)) as advance:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(*UNUSABLE):
                return Stored(folder)  # another process has made it
            _make(folder, images, files, advance)
        return Stored(folder)
    except OSError as error:
        raise UserError(
            f"dataset.cache=true: {folder} cannot be written ({error.strerror or error}); make room"
            " or use another data_dir, or dataset.cache=false, which decodes each image in each"
            " epoch"
        ) from None


def _make(folder: Path, images: Images, files: list[File], advance: Callable[[], None]) -> None:
    least, free = len(files) * images.least_bytes, shutil.disk_usage(folder.parent).free
    if least > free:
        needed = f"{least / 2**30:,.1f} GiB are needed at least, {free / 2**30:,.1f} GiB are free"
        raise OSError(errno.ENOSPC, needed)
    partial = folder.with_name(f"{cache.PARTIAL}{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir()
    try:
        shapes = []
        with durable(partial / PIXELS) as file:
            for image, size_in_file in images.resized(files):
                file.write(image.tobytes())
                shapes.append((*image.shape, *size_in_file))
                advance()
        with durable(partial / SHAPES) as file:
            np.save(file, np.array(shapes, dtype=np.int64))
        shutil.rmtree(folder, ignore_errors=True)  # it is damaged
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
