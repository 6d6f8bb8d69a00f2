"""Images in class folders, ROOT/{train,val}/CLASS/*, as torchvision's ImageFolder finds them.

It imports torchvision, and so torch: it is imported where images of folders are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import is_image_file

from igo.data import cache
from igo.data.source import Missing, Place, Split, Splits, one_line, train_and_test
from igo.ground.errors import UserError

GREY, COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # of Pillow
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")  # no EPS: it starts a program
DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises
MOST_SAMPLED = 10_000  # images for size, channels, mean and std, evenly spread over the files
MOST_BYTES = 2 * 2**30  # of decoded images that are kept in memory
MOST_READ = 1_000  # files whose contents are in a fingerprint, evenly spread over the names
AT_ONCE = 512  # images that are decoded together
Names = list[bytes] | np.ndarray


@dataclass(frozen=True)
class Files:
    """Image files of a split.

    Args:
        names: (n,) bytes, under the root: SPLIT/CLASS/…; forked workers share an array.
        labels: (n,) int64, the classes in the order of their names.
        stamps: (n, 4) int64, of each file.
    """

    names: np.ndarray
    labels: np.ndarray
    stamps: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Files:
        return Files(self.names[index], self.labels[index], self.stamps[index])


@dataclass(frozen=True)
class Images:
    """A folder's images in two splits."""

    name: str
    place: Place
    root: Path
    classes: list[str]
    train: Files
    test: Files

    @cached_property
    def form(self) -> tuple[int, int]:
        """Height (and width) and channels: as set, or as the images have them."""
        size, channels = self.place.image_size, self.place.channels
        if size is None or channels is None:
            seen = _parallel(lambda name: opened(self.root, name), self.sample)
            sizes = sorted({size_and_mode[0] for size_and_mode in seen})
            if size is None and (len(sizes) > 1 or sizes[0][0] != sizes[0][1]):
                shown = ", ".join(f"{width}x{height}" for width, height in sizes[:3])
                raise UserError(
                    f"the images in {self.root} are of sizes {shown}{', …' * (len(sizes) > 3)}; set"
                    " dataset.image_size, such as dataset.image_size=64: each image is then"
                    " resized, and its longer side cropped"
                )
            size = size or sizes[0][0]
            channels = channels or (1 if all(mode in GREY for _, mode in seen) else 3)
        return size, channels

    @property
    def sample(self) -> Names:
        """Training images to find facts from: all, or MOST_SAMPLED."""
        return spread(sorted(self.train.names), MOST_SAMPLED)

    @property
    def fit_in_memory(self) -> bool:
        """Whether all decoded images are kept in memory; ImageNet's are too many."""
        total = (len(self.train) + len(self.test)) * self.least_bytes
        return self.name != "imagenet" and total <= MOST_BYTES

    @property
    def least_bytes(self) -> int:
        """Bytes of a resized image; ImageNet's are not square, and have more."""
        size, channels = self.form
        return (shorter_side(size) if self.name == "imagenet" else size) ** 2 * channels

    @property
    def open(self) -> Callable[[bytes], Any]:
        """A function that opens an image by its name; DataLoader sends it to its workers."""
        size, channels = self.form
        whole = self.name == "imagenet"  # else the middle, the shorter side resized to ``size``
        return partial(_opened, self.root, None if whole else size, "L" if channels == 1 else "RGB")

    def resized(self, names: Names) -> Iterator[np.ndarray]:
        """Yield each image, (H, W, C) uint8; the shorter side of ImageNet's is resized."""
        decode, side = self.open, shorter_side(self.form[0])

        def pixels(name: bytes) -> np.ndarray:
            image = decode(name)
            if self.name == "imagenet":  # as by torchvision's Resize
                size = tuple(int(side * length / min(image.size)) for length in image.size)
                image = image.resize(size, Image.Resampling.BILINEAR)
            return np.asarray(image).reshape(image.height, image.width, self.form[1])

        for start in range(0, len(names), AT_ONCE):
            yield from _parallel(pixels, names[start : start + AT_ONCE])

    def arrays(self) -> Splits:
        """All images in memory."""
        size, channels = self.form

        def split(files: Files) -> Split:
            pixels = np.empty((len(files), size, size, channels), dtype=np.uint8)
            for index, image in enumerate(self.resized(files.names)):
                pixels[index] = image
            return Split(pixels, files.labels)

        return split(self.train), split(self.test)

    @property
    def sources(self) -> tuple[object, ...]:
        """What decoded images, and facts about them, depend on."""
        form = self.place.image_size, self.place.channels
        splits = self.train, self.test
        arrays = (array for files in splits for array in (files.names, files.stamps))
        return str(self.root.resolve()), *form, *arrays

    def content(self) -> Iterator[bytes]:
        """Yield what a fingerprint is of: all names and sizes, and a sample of contents."""
        sizes: dict[bytes, int] = {}
        for files in (self.train, self.test):
            sizes |= zip(files.names, files.stamps[:, 0], strict=True)
        names = sorted(sizes)
        yield from (b"%b\0%d\n" % (name, sizes[name]) for name in names)
        for name in spread(names, MOST_READ):
            try:
                yield (self.root / os.fsdecode(name)).read_bytes()
            except OSError as error:
                raise _unreadable(error) from None


def images(name: str, place: Place) -> Images:
    """The images of dataset=folder or dataset=imagenet, in train and val, or in a split made here.

    Raises:
        Missing: there are no images.
        UserError: a folder cannot be listed, or has no images.
    """
    root = place.data_dir / name if name == "imagenet" else place.root or place.data_dir
    classes, train = _files(root, "train", place)
    if len(classes) < 2:
        raise UserError(f"{root / 'train'} holds one class folder, {classes[0]}; two are needed")
    if name != "imagenet" and not (root / "val").is_dir():
        kept, tested = train_and_test(train.labels)
        return Images(name, place, root, classes, train[kept], train[tested])
    tested_classes, test = _files(root, "val", place)
    if different := {*classes} ^ {*tested_classes}:
        raise UserError(
            f"{root / 'train'} and {root / 'val'} must hold the same class folders;"
            f" {min(different)} is in one of them only"
        )
    return Images(name, place, root, classes, train, test)


class Classes(ImageFolder):  # type: ignore[misc]
    """torchvision's ImageFolder, without hidden files and folders such as .ipynb_checkpoints."""

    def __init__(self, folder: Path) -> None:
        def wanted(path: str) -> bool:
            return is_image_file(path) and f"{os.sep}." not in path[len(str(folder)) :]

        super().__init__(str(folder), is_valid_file=wanted)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """The names of the class folders, and their labels."""
        names = _class_names(directory)
        return names, {name: label for label, name in enumerate(names)}


def _class_names(folder: str | Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")


def _files(root: Path, split: str, place: Place) -> tuple[list[str], Files]:
    folder = root / split
    try:
        if not folder.is_dir() or not _class_names(folder):
            raise Missing(
                f"no images to read in {folder}{place.remark}; put its class folders there, as"
                f" {split}/CLASS/*, or point data_dir=… (of dataset=folder: dataset.root=…) at a"
                " folder that has them"
            )
        _check_listing(folder)
        found = Classes(folder)
        stamps = np.array([cache.stamp(path) for path, _ in found.samples], dtype=np.int64)
    except OSError as error:
        raise _unreadable(error) from None
    names = np.array([os.fsencode(split + path[len(str(folder)) :]) for path, _ in found.samples])
    return found.classes, Files(names, np.array(found.targets, dtype=np.int64), stamps)


def _check_listing(folder: Path) -> None:
    """Refuse a folder that cannot be listed, which torchvision leaves out, or that is a circle."""

    def refuse(error: OSError) -> None:
        raise error

    for here, folders, _ in os.walk(folder, onerror=refuse, followlinks=True):
        path = Path(here)
        if path.is_symlink() and path.resolve() in (above.resolve() for above in path.parents):
            raise UserError(f"{path} is a link to a folder that contains it; remove it")
        folders[:] = [name for name in folders if name[0] != "."]


def _unreadable(error: OSError) -> UserError:
    if error.filename is None:  # torchvision's, which names a class folder without images
        return UserError(one_line(error))
    return UserError(f"{error.filename} cannot be read ({error.strerror or error})")


def spread(names: list[bytes], most: int) -> list[bytes]:
    """All names, or at most ``most`` at equal distances."""
    return names[:: max(-(-len(names) // most), 1)]


def shorter_side(size: int) -> int:
    """The side that ImageNet's images have before ``size`` pixels are cropped: 256 for 224."""
    return round(size * 8 / 7)


def opened(root: Path, name: bytes, mode: str | None = None) -> Any:
    """A file as a Pillow image in this mode; without one its size and mode, from its header."""
    path = root / os.fsdecode(name)
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.mode not in (*GREY, *COLOUR):
                raise UserError(
                    f"{path} has Pillow's mode {image.mode}; images of 8 bits a channel are needed"
                )
            return image.convert(mode) if mode else (image.size, image.mode)
    except DAMAGED as error:
        raise UserError(f"{path} is damaged ({one_line(error)}); get it again") from None


def _opened(root: Path, size: int | None, mode: str, name: bytes) -> Any:
    image = opened(root, name, mode)
    if size is None or image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def _parallel(work: Callable[[bytes], Any], names: Names) -> list[Any]:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # Pillow decodes without the GIL
        return list(pool.map(work, names))
