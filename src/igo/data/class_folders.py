"""Images in class folders: their splits and labels, and how they are decoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from igo.data import strata
from igo.data.image_files import File, listing, spread
from igo.data.source import Place, Source, Split, Splits, one_line
from igo.errors import UserError
from igo.files import open_regular

GREY, COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # of Pillow
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")  # others start programs: no EPS
LOOKED_AT = 10_000  # images that size, channels, mean and std are found from, evenly spread
MOST_BYTES = 2 * 2**30  # of decoded images that are kept in memory
AT_ONCE = 512  # images that are decoded together
Resized = tuple[np.ndarray, tuple[int, int]]  # (H, W, C) uint8; height, width in the file
DAMAGED = (OSError, SyntaxError, ValueError)  # what Pillow raises of a bad file


@dataclass(frozen=True)
class Images:
    """A folder's images in two splits; labels count the classes in the order of their names."""

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
        own = tuple((file.name, file.stamp) for file in self.files)
        return (str(self.root.resolve()), own, self.place.image_size, self.place.channels)

    def labels(self, files: Sequence[File]) -> np.ndarray:
        """(n,) int64."""
        number = {name: label for label, name in enumerate(self.classes)}
        return np.array([number[file.label] for file in files], dtype=np.int64)

    def sample(self) -> list[File]:
        """Training images to find facts from: all, or as many as LOOKED_AT says."""
        return spread(self.train, LOOKED_AT)

    @cached_property
    def form(self) -> tuple[int, int]:
        """Height (and width) and channels: as set, else as the images themselves have them."""
        size, channels = self.place.image_size, self.place.channels
        if size is None or channels is None:
            looked = _parallel(self._look, self.sample())
            sizes = sorted({found[0] for found in looked})
            if size is None and (len(sizes) > 1 or sizes[0][0] != sizes[0][1]):
                shown = ", ".join(f"{width}x{height}" for width, height in sizes[:3])
                raise UserError(
                    f"the images in {self.root} are of sizes {shown}{', …' * (len(sizes) > 3)}; set"
                    " dataset.image_size, such as dataset.image_size=64, and each is resized, its"
                    " longer side cropped"
                )
            size = size or sizes[0][0]
            channels = channels or (1 if all(mode in GREY for _, mode in looked) else 3)
        return size, channels

    @property
    def fit_in_memory(self) -> bool:
        """Whether all of them, decoded, are few enough to be kept; ImageNet's are too many."""
        total = (len(self.train) + len(self.test)) * self.least_bytes
        return self.name != "imagenet" and total <= MOST_BYTES

    @property
    def least_bytes(self) -> int:
        """Of an image when it is resized; those of ImageNet are not square, and have more."""
        size, channels = self.form
        return (shorter_side(size) if self.name == "imagenet" else size) ** 2 * channels

    @property
    def open_one(self) -> Callable[[Path], Any]:
        """Opens a file for the transforms of the data set: those of ImageNet resize it."""
        if self.name == "imagenet":
            return partial(opened, mode="RGB")
        size, channels = self.form
        return partial(decode, size=size, channels=channels)

    def resized(self, files: Sequence[File]) -> Iterator[Resized]:
        """Each image in order, of ImageNet as the test images are resized, and what it was."""
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
    """The images of dataset=folder or dataset=imagenet: of train and val, or a split made here.

    Raises:
        Missing: there are none.
    """
    root, files = listing(name, place)
    ordered = sorted(files, key=_as_torchvision) if name == "imagenet" else files
    train, test = ([f for f in ordered if f.name.startswith(f"{s}/")] for s in ("train", "val"))
    classes = sorted({file.label for file in train})
    if len(classes) < 2:
        raise UserError(f"{root / 'train'} holds one class folder, {classes[0]}; two are needed")
    if test and (odd := {file.label for file in test} ^ {*classes}):
        raise UserError(
            f"{root / 'train'} and {root / 'val'} must hold the same class folders; {min(odd)} is"
            " in one of them only"
        )
    found = Images(name, place, root, files, classes, train, test)
    if test:
        return found
    kept, tested = strata.split(found.labels(train))
    train, test = [train[i] for i in kept], [train[i] for i in tested]
    return Images(name, place, root, files, classes, train, test)


def _as_torchvision(file: File) -> tuple[str, tuple[str, str]]:
    """Its ImageFolder goes through a folder's own images first, then through its folders'."""
    return file.label, os.path.split(file.name)


def folder(place: Place) -> Source:
    """dataset=folder as arrays, for images that fit in memory."""
    found = images("folder", place)
    return Source(str(found.root), found.parts, lambda: _arrays(found))


def _arrays(found: Images) -> Splits:
    size, channels = found.form

    def split(files: Sequence[File]) -> Split:
        pixels = np.empty((len(files), size, size, channels), dtype=np.uint8)
        for place, (image, _) in enumerate(found.resized(files)):
            pixels[place] = image
        return Split(pixels, found.labels(files))

    return split(found.train), split(found.test)


def decode(path: Path, size: int, channels: int) -> np.ndarray:
    """One image, its shorter side resized to ``size`` and its longer one cropped, in the middle.

    Returns:
        (size, size, channels) uint8.
    """
    from PIL import Image, ImageOps

    plain = opened(path, "L" if channels == 1 else "RGB")
    if plain.size != (size, size):
        plain = ImageOps.fit(plain, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(plain).reshape(size, size, channels)


def shorter_side(size: int) -> int:
    """To which ImageNet's images are resized before ``size`` pixels are cropped: 256 for 224."""
    return round(size * 8 / 7)


def resize(path: Path, side: int) -> Resized:
    """One image, its shorter side resized to ``side`` as by torchvision's Resize."""
    from PIL import Image

    image = opened(path, "RGB")
    size = tuple(int(side * one / min(image.size)) for one in image.size)
    pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    return pixels, (image.height, image.width)


def opened(path: Path, mode: str) -> Any:
    """One image of Pillow's, in one of its modes."""
    with _opened(path) as image:
        try:
            return image.convert(mode)
        except DAMAGED as error:
            raise UserError(f"{path} is damaged ({one_line(error)}); get it again") from None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The image of a file, its pixels not read yet."""
    from PIL import Image

    with ExitStack() as opened:
        try:
            file = opened.enter_context(open_regular(path))
            image = opened.enter_context(Image.open(file, formats=FORMATS))
        except (*DAMAGED, Image.DecompressionBombError) as error:
            raise UserError(f"{path} is damaged ({one_line(error)}); get it again") from None
        if image.mode not in (*GREY, *COLOUR):
            raise UserError(
                f"{path} is of Pillow's mode {image.mode}; images of 8 bits a channel are needed"
            )
        yield image


def _parallel(work: Any, files: Sequence[File]) -> list[Any]:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # Pillow decodes without the GIL
        return list(pool.map(work, files))
