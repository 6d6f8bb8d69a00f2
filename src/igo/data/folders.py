"""Images in class folders, ROOT/{train,val}/CLASS/*, as torchvision's ImageFolder finds them.

An image is decoded when it is asked for. Importing this imports torchvision, and so torch.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import is_image_file
from torchvision.transforms.v2 import functional as torchvision

from igo.data.readers import Missing, Place, stamp, train_and_test
from igo.ground.errors import Outside, UserError, first_line, reading, require

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # torchvision takes files of these names.
GREY = ("1", "L", "LA")  # Pillow's modes
MOST_SAMPLED = 10_000  # So many images, spread over the names, tell size, channels, mean and std.
MOST_READ = 1_000  # A fingerprint has the contents of so many files, spread likewise.
AT_ONCE = 512  # So many images are decoded together.


@dataclass(frozen=True)
class Images:
    """The image files of a split, decoded by index.

    Args:
        root: the folder that has ``train``.
        size: pixels, height and width; 0 if it is not known yet.
        channels: 1 or 3; 0 likewise.
        square: False for ImageNet, whose images a transform crops.
        names: (n,) bytes, paths under the root; forked workers share an array.
        stamps: (n, 4) int64, of each file.
        labels: (n,) int64, the classes in the order of their names.
    """

    root: Path
    size: int
    channels: int
    square: bool
    names: np.ndarray
    stamps: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        """An image as Pillow's; if ``square``, the shorter side resized and the middle cropped."""
        image = image_in(self.path(index), "L" if self.channels == 1 else "RGB")
        if not self.square or image.size == (self.size, self.size):
            return image
        return ImageOps.fit(image, (self.size, self.size), Image.Resampling.BILINEAR)

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.root / os.fsdecode(self.names[index])

    def resized(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield images (H, W, C) uint8; of ImageNet's the shorter side is resized."""

        def pixels(index: int) -> np.ndarray:
            image = self[index]
            if not self.square:
                image = torchvision.resize(image, [shorter_side(self.size)], antialias=True)
            return np.asarray(image).reshape(image.height, image.width, self.channels)

        return in_threads(pixels, indices)

    @property
    def least_bytes(self) -> int:
        """Bytes of the resized images; ImageNet's are not square, and have more."""
        side = self.size if self.square else shorter_side(self.size)
        return len(self) * side**2 * self.channels


def splits(name: str, place: Place) -> tuple[Images, Images]:
    """The images of dataset=folder or dataset=imagenet, in train and val or test, or split here.

    Raises:
        Missing: there are no images, or a class has none.
        UserError: a folder cannot be listed.
    """
    require(
        place.channels in (None, 1, 3),
        "dataset.channels",
        place.channels,
        "images of folders have 1 (grey) or 3 (colour)",
    )
    imagenet = name == "imagenet"
    root = (place.data_dir / name if imagenet else place.root or place.data_dir).absolute()
    size, channels = place.image_size or 0, place.channels or 0
    images = functools.partial(Images, root, size, channels, not imagenet)
    classes, *arrays = _listed(root, "train")
    tests = ["val"] if imagenet else [p for p in ("val", "test") if (root / p).is_dir()]
    if not tests:
        labels = arrays[-1]
        train, test = (images(*(array[i] for array in arrays)) for i in train_and_test(labels))
        return train, test
    test_classes, *test_arrays = _listed(root, tests[0])
    # The number of a class is its place in the sorted folders: with other folders, a number would
    # mean another class in the test set.
    if differences := {*classes} ^ {*test_classes}:
        raise UserError(
            f"{root / 'train'} and {root / tests[0]} must hold the same class folders;"
            f" {min(differences)} is in one of them only"
        )
    return images(*arrays), images(*test_arrays)


@functools.cache  # A start asks four times, and on a network's disk a listing takes minutes.
def _listed(root: Path, part: str) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Classes of a split, and names, stamps and labels of its images, listed once a process."""
    folder = root / part

    def refuse(error: OSError) -> None:
        raise error

    def is_image(path: str) -> bool:
        """Those in .ipynb_checkpoints are left out."""
        return is_image_file(path) and f"{os.sep}." not in path[len(str(folder)) :]

    places = set[Path]()
    try:
        for name, *_ in os.walk(folder, onerror=refuse, followlinks=True):
            # ImageFolder leaves out what cannot be listed, and follows links round and round.
            place = Path(name).resolve()
            if place in places:
                raise OSError(f"{name} is a folder that is in it already, by a link")
            places.add(place)
        dataset = ImageFolder(str(folder), is_valid_file=is_image)
        stamps = np.array([stamp(path) for path, _ in dataset.samples], dtype=np.int64)
    except OSError as error:
        kind = Missing if isinstance(error, FileNotFoundError) else Outside
        raise kind(
            f"no images to read in {folder} ({first_line(error)}); put its class folders there, as"
            f" {part}/CLASS/*, or point data_dir=… (of dataset=folder: dataset.root=…) at a folder"
            " that has them"
        ) from None
    # A list of a million strings would be copied into each worker, because counting references
    # writes into its pages. An array of bytes is shared.
    names = np.array([os.fsencode(path[len(str(root)) + 1 :]) for path, _ in dataset.samples])
    labels = np.array(dataset.targets, dtype=np.int64)
    return dataset.classes, names, stamps, labels


def with_form(images: Images) -> Images:
    """The same images with size and channels, found in their headers if they are not known."""
    if images.size and images.channels:
        return images
    sample = spread(images.names, MOST_SAMPLED).tolist()
    headers = list(in_threads(lambda index: image_in(images.path(index)), sample))
    sizes = sorted({size for size, _ in headers})
    if not images.size and (len(sizes) > 1 or sizes[0][0] != sizes[0][1]):
        examples = ", ".join(f"{width}x{height}" for width, height in sizes[:3])
        raise UserError(
            f"the images in {images.root} are of sizes {examples}{', …' * (len(sizes) > 3)}; set"
            " dataset.image_size, such as dataset.image_size=64: each image is then resized, and"
            " its longer side cropped"
        )
    # One image in colour makes all of them colour, as a model takes one number of channels.
    channels = 1 if all(mode in GREY for _, mode in headers) else 3
    return replace(images, size=images.size or sizes[0][0], channels=images.channels or channels)


def content(splits: Sequence[Images]) -> Iterator[bytes]:
    """Yield what a fingerprint is of: all names and sizes, and a sample of contents."""
    names = np.concatenate([images.names for images in splits])
    sizes = np.concatenate([images.stamps[:, 0] for images in splits])
    # They are sorted, because a file system lists its files in any order.
    for index in np.argsort(names):
        yield b"%b\0%d\n" % (names[index], sizes[index])
    for name in names[spread(names, MOST_READ)]:
        yield (splits[0].root / os.fsdecode(name)).read_bytes()


def spread(names: np.ndarray, limit: int) -> np.ndarray:
    """Indices of all names, or of at most ``limit`` at equal distances."""
    return np.argsort(names)[:: max(-(-len(names) // limit), 1)]


def shorter_side(size: int) -> int:
    """The side that ImageNet's images have before ``size`` pixels are cropped: 256 for 224."""
    return round(size * 8 / 7)


def image_in(path: Path, mode: str | None = None) -> Any:
    """A file as a Pillow image in this mode; without one its size and mode, from its header."""
    try:
        # Some of Pillow's other formats start programs, as PostScript does.
        with Image.open(path, formats=FORMATS) as image:
            if image.mode[0] in "IF":  # Pillow would cut their values off.
                raise ValueError(f"Pillow's mode {image.mode}; 8 bits a channel are needed")
            return image.convert(mode) if mode else (image.size, image.mode)
    except Exception as error:  # Pillow raises many kinds.
        raise reading(error)(f"{path} cannot be read ({first_line(error)})") from None


def in_threads(work: Callable[[int], Any], indices: Sequence[int]) -> Iterator[Any]:
    """Yield each result in order; Pillow decodes without the GIL."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(indices), AT_ONCE):
            yield from pool.map(work, indices[start : start + AT_ONCE])
