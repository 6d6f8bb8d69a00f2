"""Image files in class folders, ROOT/SPLIT/CLASS/*: a list of them, and their fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from igo.data.cache import stamp
from igo.data.source import Missing, Place, without_data_dir
from igo.ground.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SAMPLE = 1_000  # files whose contents are in a fingerprint, evenly spread over the names


@dataclass(frozen=True)
class File:
    """An image file: its name under the root, SPLIT/CLASS/…, and its ``cache.stamp``."""

    name: str
    stamp: tuple[int, ...]

    @property
    def label(self) -> str:
        """The class folder that it is in."""
        return self.name.split("/")[1]


def spread(files: Sequence[File], most: int) -> list[File]:
    """All files, or at most ``most`` at equal distances."""
    return list(files[:: max(-(-len(files) // most), 1)])


def listing(name: str, place: Place) -> tuple[Path, list[File]]:
    """The folder of dataset=folder or dataset=imagenet, and all its image files, by name.

    Without a folder val, dataset=folder has training images only.

    Raises:
        Missing: there is no such folder, or no image in it.
    """
    imagenet = name == "imagenet"
    root = place.data_dir / name if imagenet else place.root or place.data_dir
    splits = ("train", "val") if imagenet or (root / "val").is_dir() else ("train",)
    files = sorted(_walk(root, splits), key=lambda file: file.name)
    for split in splits:
        if not any(file.name.startswith(f"{split}/") for file in files):
            raise Missing(
                f"no images to read in {root / split}{without_data_dir(place)}; put its class"
                f" folders there, as {split}/CLASS/*, or point data_dir=… (of dataset=folder:"
                " dataset.root=…) at a folder that has them"
            )
    return root, files


def _walk(root: Path, splits: Sequence[str]) -> list[File]:
    files = []
    folders = [
        (Path(entry.path), {os.path.realpath(root / split)})
        for split in splits for entry in _entries(root / split) if entry.is_dir()
    ]  # fmt: skip
    while folders:
        folder, above = folders.pop()
        if (here := os.path.realpath(folder)) in above:
            raise UserError(f"{folder} is a link to a folder that contains it; remove it")
        for entry in _entries(folder):
            if entry.is_dir():
                folders.append((Path(entry.path), above | {here}))
            elif entry.name.lower().endswith(SUFFIXES):
                files.append(_file(entry, root))
    return files


def _file(entry: os.DirEntry[str], root: Path) -> File:
    name = Path(entry.path).relative_to(root).as_posix()
    try:
        name.encode()
        return File(name, stamp(entry.stat()))
    except UnicodeEncodeError:
        raise UserError(f"{root}: the name {name!r} is not UTF-8; rename the file") from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{entry.path} cannot be read ({reason}); remove it") from None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, without hidden ones such as .ipynb_checkpoints."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []


def fingerprint(root: Path, files: Sequence[File], size: int) -> str:
    """BLAKE2b of all names and sizes and of a sample of contents, in hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=size)
    for file in files:
        digest.update(f"{file.name}\0{file.stamp[0]}\n".encode())  # with its size
    for file in spread(files, SAMPLE):
        try:
            digest.update((root / file.name).read_bytes())
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{root / file.name} cannot be read ({reason})") from None
    return digest.hexdigest()
