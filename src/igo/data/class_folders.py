"""Images in class folders: their splits, labels and decoding."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from igo.data import strata
from igo.data.image_files import File, listing, spread
from igo.data.source import Place, Source, Split, Splits, one_line
from igo.ground.errors import UserError

GREY, COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # of Pillow
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")  # no EPS: it starts a program
MOST_SAMPLED = 10_000  # images for size, channels, mean and std, evenly spread over the files
MOST_BYTES = 2 * 2**30  # of decoded images that are kept in memory
AT_ONCE = 512  # images that are decoded together
Resized = tuple[np.ndarray, tuple[int, int]]  # (H, W, C) uint8; ImageNet's size in the file
DAMAGED = (OSError, SyntaxError, ValueError)  # what Pillow raises for a bad file


@dataclass(frozen=True)
class Images:
    """A folder's images in two splits; labels number the classes in the order of their names."""

    name: str
    place: Place
    root: Path
    files: list[File]
    classes: list[str]
    train: list[File]
    test: list[File]

    @property
    def parts(self) -> tuple[object, ...]:
        """What decoded images, and facts about them, depend on."""
        files = tuple((file.name, file.stamp) for file in self.files)
        return (str(self.root.resolve()), files, self.place.image_size, self.place.channels)

    def labels(self, files: Sequence[File]) -> np.ndarray:
        """The labels of these files, (n,) int64."""
        number = {name: label for label, name in enumerate(self.classes)}
        return np.array([number[file.label] for file in files], dtype=np.int64)

    def sample(self) -> list[File]:
        """Training images to find facts from: all, or MOST_SAMPLED."""
        return spread(self.train, MOST_SAMPLED)

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
    def open_file(self) -> Callable[[Path], Any]:
        """A function that opens an image and resizes it; the transforms resize ImageNet's."""
        if self.name == "imagenet":
            return partial(opened, mode="RGB")
        size, channels = self.form
        return partial(decode, size=size, channels=channels)

    def resized(self, files: Sequence[File]) -> Iterator[Resized]:
        """Yield each image resized, in order; ImageNet's like test images, with the size before."""
        for start in range(0, len(files), AT_ONCE):
            yield from _parallel(self._resize, files[start : start + AT_ONCE])

    def _resize(self, file: File) -> Resized:
        path, (size, channels) = self.root / file.name, self.form
        if self.name == "imagenet":
            return resize(path, shorter_side(size))
        return decode(path, size, channels), (size, size)

    def _look(self, file: File) -> tuple[tuple[int, int], str]:
        with _opened(self.root / file.name) as image:
            return image.size, image.mode


def images(name: str, place: Place) -> Images:
    """The images of dataset=folder or dataset=imagenet, in train and val, or in a split made here.

    Raises:
        Missing: there are no images.
    """
    root, files = listing(name, place)
    ordered = files
    if name == "imagenet":  # as torchvision's ImageFolder: a folder's images, then its folders'
        ordered = sorted(files, key=lambda file: (file.label, os.path.split(file.name)))
    train, test = ([f for f in ordered if f.name.startswith(f"{s}/")] for s in ("train", "val"))
    classes = sorted({file.label for file in train})
    if len(classes) < 2:
        raise UserError(f"{root / 'train'} holds one class folder, {classes[0]}; two are needed")
    if test and (different := {file.label for file in test} ^ {*classes}):
        raise UserError(
            f"{root / 'train'} and {root / 'val'} must hold the same class folders;"
            f" {min(different)} is in one of them only"
        )
    result = Images(name, place, root, files, classes, train, test)
    if test:
        return result
    kept, tested = strata.split(result.labels(train))
    return replace(result, train=[train[i] for i in kept], test=[train[i] for i in tested])


def folder(place: Place) -> Source:
    """dataset=folder as arrays, for images that fit in memory."""
    folder_images = images("folder", place)
    return Source(str(folder_images.root), folder_images.parts, lambda: _arrays(folder_images))


def _arrays(images: Images) -> Splits:
    size, channels = images.form

    def split(files: Sequence[File]) -> Split:
        pixels = np.empty((len(files), size, size, channels), dtype=np.uint8)
        for index, (image, _) in enumerate(images.resized(files)):
            pixels[index] = image
        return Split(pixels, images.labels(files))

    return split(images.train), split(images.test)


def decode(path: Path, size: int, channels: int) -> np.ndarray:
    """Read an image, its shorter side resized to ``size``, its longer side cropped in the middle.

    Returns:
        (size, size, channels) uint8.
    """
    from PIL import Image, ImageOps

    image = opened(path, "L" if channels == 1 else "RGB")
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, channels)


def shorter_side(size: int) -> int:
    """The side that ImageNet's images have before ``size`` pixels are cropped: 256 for 224."""
    return round(size * 8 / 7)


def resize(path: Path, side: int) -> Resized:
    """Read an image, its shorter side resized to ``side`` as by torchvision's Resize."""
    from PIL import Image

    image = opened(path, "RGB")
    size = tuple(int(side * side_in_file / min(image.size)) for side_in_file in image.size)
    pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    return pixels, (image.height, image.width)


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
    from PIL import Image

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


def _parallel(work: Any, files: Sequence[File]) -> list[Any]:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # Pillow decodes without the GIL
        return list(pool.map(work, files))
