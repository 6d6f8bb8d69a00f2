"""Images of folders resized once, in a file that all runs of a machine map."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from igo.data.folders import Images
from igo.data.readers import digest
from igo.ground.errors import Outside, UserError, warn
from igo.ground.files import durable, opened, read_bytes, read_json, seal_of, write_json

PIXELS, SHAPES, SEAL = "pixels", "shapes.npy", "seal.json"
FORM = 2  # Increase this version if other pixels are stored for the same files.
Watch = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


class Stored:
    """Images by index, one after the other in a mapped file; ``shapes`` (n, 3) are theirs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shapes = np.load(folder / SHAPES, allow_pickle=False)
        self._ends = self._shapes.prod(axis=1).cumsum()
        # PyTorch warns of an array that cannot be written.
        self._pixels = np.asarray(np.memmap(folder / PIXELS, np.uint8, "c"))

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
        watch: shows progress. ``with watch(message, total) as advance:``, and ``advance()`` is
            called after each image.
    """
    form = images.size, images.channels
    of_files = digest(str(images.root.resolve()), images.names, images.stamps, form, FORM)
    folder = place / f"{name}-{of_files}"
    message = f"{len(images):,} images are resized once and kept in {folder}"
    try:
        if not _is_whole(folder):
            place.mkdir(parents=True, exist_ok=True)
            with opened(folder.with_suffix(".lock"), "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not _is_whole(folder):  # Another process may have made it.
                    if folder.exists():
                        warn(f"{folder} is not what igo wrote, so it is made again")
                        shutil.rmtree(folder, ignore_errors=True)
                    with watch(message, len(images)) as advance:
                        _make(folder, images, advance)
        return Stored(folder)
    except OSError as error:
        raise Outside(
            f"dataset.cache=true: {folder} cannot be used ({error.strerror or error}); make room"
            " or use another data_dir, or dataset.cache=false, which decodes each image in each"
            " epoch"
        ) from None


def _is_whole(folder: Path) -> bool:
    """Whether a folder has what ``_make`` wrote, and as many pixels."""
    with suppress(UserError, OSError), opened(folder / PIXELS) as pixels:
        seal = read_json(folder / SEAL, {})
        facts = seal_of(read_bytes(folder / SHAPES)), pixels.seek(0, os.SEEK_END)
        return facts == (seal.get("shapes"), seal.get("bytes"))
    return False


def _make(folder: Path, images: Images, advance: Callable[[], None]) -> None:
    free = shutil.disk_usage(folder.parent).free
    if images.least_bytes > free:
        sizes = f"{images.least_bytes / 2**30:,.1f} GiB are needed, {free / 2**30:,.1f} are free"
        raise OSError(errno.ENOSPC, sizes)
    # The folder gets its name when all is in it.
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)  # A process that was killed may have left it.
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
        seal = seal_of(read_bytes(partial / SHAPES))
        write_json(partial / SEAL, {"shapes": seal, "bytes": (partial / PIXELS).stat().st_size})
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
