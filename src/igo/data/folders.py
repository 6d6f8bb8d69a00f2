"""Images in class folders, ROOT/{train,val}/CLASS/*, as torchvision's ImageFolder finds them.

It imports torchvision, and so torch: it is imported where images of folders are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import is_image_file

from igo.data import cache, strata
from igo.data.facts import NAMES, Facts, moments
from igo.data.source import Missing, Place, Source, Split, Splits, one_line, without_data_dir
from igo.ground.errors import UserError

GREY, COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # of Pillow
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")  # no EPS: it starts a program
MOST_SAMPLED = 10_000  # images for size, channels, mean and std, evenly spread over the files
MOST_BYTES = 2 * 2**30  # of decoded images that are kept in memory
MOST_READ = 1_000  # files whose contents are in a fingerprint, evenly spread over the names
AT_ONCE = 512  # images that are decoded together
Names = list[bytes] | np.ndarray
DAMAGED = (OSError, SyntaxError, ValueError)  # what Pillow raises for a bad file


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


class Classes(ImageFolder):  # type: ignore[misc]
    """torchvision's ImageFolder, without hidden files and folders such as .ipynb_checkpoints."""

    def __init__(self, folder: Path) -> None:
        def wanted(path: str) -> bool:
            inside = path[len(str(folder)) :]
            return is_image_file(path) and f"{os.sep}." not in inside

        super().__init__(str(folder), is_valid_file=wanted)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """The names of the class folders, and their labels."""
        names = _class_names(directory)
        return names, {name: label for label, name in enumerate(names)}


@dataclass(frozen=True)
class Images:
    """A folder's images in two splits."""

    name: str
    place: Place
    root: Path
    classes: list[str]
    train: Files
    test: Files

    @property
    def n(self) -> int:
        """How many images there are to train on, in use or not."""
        return len(self.train)

    @cached_property
    def form(self) -> tuple[int, int]:
        """Height (and width) and channels: as set, or as the images have them."""
        size, channels = self.place.image_size, self.place.channels
        if size is None or channels is None:
            seen = _parallel(self._look, self.sample())
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
        return partial(
            opened_in_form, self.root, None if self.name == "imagenet" else size, channels
        )

    def resized(self, names: Names) -> Iterator[np.ndarray]:
        """Yield each image, (H, W, C) uint8; the shorter side of ImageNet's is resized."""
        for start in range(0, len(names), AT_ONCE):
            yield from _parallel(self._resize, names[start : start + AT_ONCE])

    def _resize(self, name: bytes) -> np.ndarray:
        image, (size, channels) = self.open(name), self.form
        if self.name == "imagenet":
            image = resize(image, shorter_side(size))
        return np.asarray(image).reshape(image.height, image.width, channels)

    def _look(self, name: bytes) -> tuple[tuple[int, int], str]:
        with _opened(self.root / os.fsdecode(name)) as image:
            return image.size, image.mode

    @property
    def sources(self) -> tuple[object, ...]:
        """What decoded images, and facts about them, depend on."""
        form = self.place.image_size, self.place.channels
        splits = self.train, self.test
        arrays = (array for files in splits for array in (files.names, files.stamps))
        return str(self.root.resolve()), *form, *arrays


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
        kept, tested = strata.split(train.labels)
        return Images(name, place, root, classes, train[kept], train[tested])
    tested_classes, test = _files(root, "val", place)
    if different := {*classes} ^ {*tested_classes}:
        raise UserError(
            f"{root / 'train'} and {root / 'val'} must hold the same class folders;"
            f" {min(different)} is in one of them only"
        )
    return Images(name, place, root, classes, train, test)


def _files(root: Path, split: str, place: Place) -> tuple[list[str], Files]:
    folder = root / split
    try:
        if folder.is_dir():
            _check_listing(folder)
        if not folder.is_dir() or not any(
            p.is_dir() and p.name[0] != "." for p in folder.iterdir()
        ):
            raise Missing(
                f"no images to read in {folder}{without_data_dir(place)}; put its class"
                f" folders there, as {split}/CLASS/*, or point data_dir=… (of dataset=folder:"
                " dataset.root=…) at a folder that has them"
            )
        found = Classes(folder)
        stamps = np.array([cache.stamp(path) for path, _ in found.samples], dtype=np.int64)
    except OSError as error:
        raise _unreadable(error) from None
    paths = (path[len(str(folder)) :] for path, _ in found.samples)
    names = np.array([os.fsencode(split + inside) for inside in paths])
    return found.classes, Files(names, np.array(found.targets, dtype=np.int64), stamps)


def _class_names(folder: str | Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")


def _check_listing(folder: Path) -> None:
    """Raise a UserError for a folder that cannot be listed, which torchvision leaves out."""

    def refuse(error: OSError) -> None:
        raise _unreadable(error)

    for here, folders, _ in os.walk(folder, onerror=refuse, followlinks=True):
        path = Path(here)
        if path.is_symlink() and path.resolve() in (above.resolve() for above in path.parents):
            raise UserError(f"{path} is a link to a folder that contains it; remove it")
        folders[:] = [name for name in folders if name[0] != "."]


def _unreadable(error: OSError) -> UserError:
    if error.filename is None:  # torchvision's, which names a class folder without images
        return UserError(one_line(error))
    return UserError(f"{error.filename} cannot be read ({error.strerror or error})")


def source(place: Place) -> Source:
    """dataset=folder as arrays, for images that fit in memory."""
    found = images("folder", place)
    return Source(str(found.root), found.sources, lambda: _arrays(found))


def _arrays(images: Images) -> Splits:
    size, channels = images.form

    def split(files: Files) -> Split:
        pixels = np.empty((len(files), size, size, channels), dtype=np.uint8)
        for index, image in enumerate(images.resized(files.names)):
            pixels[index] = image
        return Split(pixels, files.labels)

    return split(images.train), split(images.test)


def content(images: Images) -> Iterator[bytes]:
    """Yield what a fingerprint is of: all names and sizes, and a sample of contents."""
    sizes: dict[bytes, int] = {}
    for files in (images.train, images.test):
        sizes |= zip(files.names, files.stamps[:, 0], strict=True)
    names = sorted(sizes)
    yield from (b"%b\0%d\n" % (name, sizes[name]) for name in names)
    for name in spread(names, MOST_READ):
        try:
            yield (images.root / os.fsdecode(name)).read_bytes()
        except OSError as error:
            raise _unreadable(error) from None


def facts(place: Place) -> Facts:
    """The facts NAMES of dataset=folder; those of pixels are found once."""
    found = images("folder", place)

    def look() -> Facts:
        size, channels = found.form
        sizes = len(found.classes), channels, size, len(found.train)
        pixels = moments(found.resized(found.sample()))
        return dict(zip(NAMES, (*sizes, *pixels), strict=True))

    file = place.cache / f"folder-facts-{cache.digest(*found.sources, NAMES)}.npz"
    return dict(cache.remembered(file, look))


def spread(names: list[bytes], most: int) -> list[bytes]:
    """All names, or at most ``most`` at equal distances."""
    return names[:: max(-(-len(names) // most), 1)]


def opened_in_form(root: Path, size: int | None, channels: int, name: bytes) -> Any:
    """An image as Pillow's: its middle, its shorter side resized to ``size``, or all of it."""
    image = opened(root / os.fsdecode(name), "L" if channels == 1 else "RGB")
    if size is None or image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def shorter_side(size: int) -> int:
    """The side that ImageNet's images have before ``size`` pixels are cropped: 256 for 224."""
    return round(size * 8 / 7)


def resize(image: Any, side: int) -> Any:
    """The image, its shorter side resized to ``side`` as by torchvision's Resize."""
    size = tuple(int(side * length / min(image.size)) for length in image.size)
    return image.resize(size, Image.Resampling.BILINEAR)


def opened(path: Path, mode: str) -> Any:
    """Read a file as a Pillow image in this mode."""
    with _opened(path) as image:
        try:
            return image.convert(mode)
        except DAMAGED as error:
            raise UserError(f"{path} is damaged ({one_line(error)}); get it again") from None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The image of a file, with its pixels not read yet."""
    with ExitStack() as opened:
        try:
            file = opened.enter_context(path.open("rb"))
            image = opened.enter_context(Image.open(file, formats=FORMATS))
        except (*DAMAGED, Image.DecompressionBombError) as error:
            raise UserError(f"{path} is damaged ({one_line(error)}); get it again") from None
        if image.mode not in (*GREY, *COLOUR):
            raise UserError(
                f"{path} has Pillow's mode {image.mode}; images of 8 bits a channel are needed"
            )
        yield image


def _parallel(work: Callable[[bytes], Any], names: Names) -> list[Any]:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # Pillow decodes without the GIL
        return list(pool.map(work, names))
