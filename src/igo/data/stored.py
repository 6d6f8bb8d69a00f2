"""Images of folders, decoded and resized once, in a file that all runs of a machine map."""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from igo.data.folders import Images
from igo.data.identity import digest
from igo.ground.errors import UserError
from igo.ground.files import durable

PIXELS, SHAPES = "pixels", "shapes.npy"
FORM = 2  # a version: increase it if other pixels are stored for the same files and size
Watch = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


class Stored:
    """Images by index, one after the other in a mapped file; ``shapes`` (n, 3) are theirs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shapes = np.load(folder / SHAPES, allow_pickle=False)
        self._ends = self._shapes.prod(axis=1).cumsum()
        self._pixels = np.asarray(np.memmap(folder / PIXELS, np.uint8, "c"))  # torch may not write
        if len(self._pixels) != self._ends[-1]:
            raise ValueError("its length is wrong")

    def __reduce__(self) -> tuple[type[Stored], tuple[Path]]:
        """Pickle the folder's name: a worker that is not forked maps the file itself."""
        return Stored, (self._folder,)

    def __getitem__(self, index: int) -> Any:
        """An image as Pillow's."""
        height, width, channels = self._shapes[index]
        start = self._ends[index - 1] if index else 0
        shape = (height, width) if channels == 1 else (height, width, channels)
        return Image.fromarray(self._pixels[start : self._ends[index]].reshape(shape))

    def together(self) -> np.ndarray:
        """(n, H, W, C) uint8; all images must be of one size."""
        return self._pixels.reshape(-1, *self._shapes[0])


def kept(
    place: Path, name: str, images: Images, watch: Watch = lambda *_: nullcontext(lambda: None)
) -> Stored:
    """Images from a folder of ``place``, which the first call makes, while others wait.

    Args:
        place: the folder of all that is kept.
        name: of the data set and the split; other files, sizes or channels are stored apart.
        images: the files.
        watch: makes a context from a message and a number of images; its value is called for each.
    """
    form = images.size, images.channels
    content = digest(str(images.root.resolve()), images.names, images.stamps, form, FORM)
    folder = place / f"{name}-{content}"
    message = f"{len(images):,} images are resized once and kept in {folder}"
    try:
        if not folder.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            with folder.with_suffix(".lock").open("ab") as lock, watch(message, len(images)) as bar:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not folder.is_dir():  # no other process has made it
                    _make(folder, images, bar)
        return Stored(folder)
    except OSError as error:
        raise UserError(
            f"dataset.cache=true: {folder} cannot be used ({error.strerror or error}); make room"
            " or use another data_dir, or dataset.cache=false, which decodes each image in each"
            " epoch"
        ) from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{folder} is damaged ({error}); delete it") from None


def _make(folder: Path, images: Images, advance: Callable[[], None]) -> None:
    free = shutil.disk_usage(folder.parent).free
    if images.least_bytes > free:
        needed = f"{images.least_bytes / 2**30:,.1f} GiB are needed, {free / 2**30:,.1f} are free"
        raise OSError(errno.ENOSPC, needed)
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir()
    try:
        shapes = []
        with durable(partial / PIXELS) as file:
            for image in images.resized(range(len(images))):
                file.write(image.tobytes())
                shapes.append(image.shape)
                advance()
        with durable(partial / SHAPES) as file:
            np.save(file, np.array(shapes, dtype=np.int64))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
