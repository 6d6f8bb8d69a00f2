"""Images in folders, ROOT/SPLIT/CLASS/*: what is there, and by which fingerprint it is known."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from igo.errors import UserError
from igo.images.source import Missing, Place

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SAMPLE = 1_000  # files whose contents are in a fingerprint, evenly spread over the names


@dataclass(frozen=True)
class File:
    """An image file: its name under the root, SPLIT/CLASS/…, its size and when it was written."""

    name: str
    size: int
    time: int


def listing(root: Path, splits: Sequence[str], place: Place) -> list[File]:
    """All image files of some splits, by name.

    Raises:
        Missing: there is no such folder, or no image in it.
    """
    files = sorted(_walk(root, splits), key=lambda file: file.name)
    for split in splits:
        if not any(file.name.startswith(f"{split}/") for file in files):
            gone = "" if place.data_dir.is_dir() else f" (data_dir={place.data_dir} does not exist)"
            raise Missing(
                f"no images to read in {root / split}{gone}; put its class folders there, or point"
                " data_dir=… at them"
            )
    return files


def _walk(root: Path, splits: Sequence[str]) -> list[File]:
    found = []
    folders = [entry for split in splits for entry in _entries(root / split) if entry.is_dir()]
    while folders:
        for entry in _entries(Path(folders.pop().path)):
            if entry.is_dir():
                folders.append(entry)
            elif entry.name.lower().endswith(SUFFIXES):
                facts = entry.stat()
                name = Path(entry.path).relative_to(root).as_posix()
                found.append(File(name, facts.st_size, facts.st_mtime_ns))
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def fingerprint(root: Path, files: Sequence[File], size: int) -> str:
    """BLAKE2b of all names and sizes and of a sample of contents, in hexadecimal digits.

    Raises:
        UserError: a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=size)
    for file in files:
        digest.update(f"{file.name}\0{file.size}\n".encode())
    step = max(-(-len(files) // SAMPLE), 1)
    for file in files[::step]:
        try:
            digest.update((root / file.name).read_bytes())
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{root / file.name} cannot be read ({reason})") from None
    return digest.hexdigest()
