"""Images in class folders, ROOT/{train,val}/CLASS/*, by torchvision's ImageFolder.

Importing this imports torchvision, and so torch.
"""

import copy
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, Grayscale, PILToTensor, Resize

from igo.data.readers import Missing, Place, train_and_test
from igo.ground.errors import Outside, UserError, first_line, reading, require

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # torchvision takes files of these names.
MOST_READ = 256  # So many images, spread over the names, tell size, mean, std and fingerprint.


def splits(name: str, place: Place) -> tuple[ImageFolder, ImageFolder]:
    """The training images of dataset=folder or dataset=imagenet, and the test images.

    They are in the folders train and val, of dataset=folder train and val or test. Without such a
    folder a fifth of train is for testing.

    Raises:
        Missing: there are no images, or a class has none.
    """
    require(
        place.channels in (None, 1, 3),
        "dataset.channels",
        place.channels,
        "images of folders have 1 (grey) or 3 (colour)",
    )
    imagenet = name == "imagenet"
    root = (place.data_dir / name if imagenet else place.root or place.data_dir).resolve()
    train = _listed(root / "train")
    test_folders = [root / name for name in ("val", "test") if (root / name).is_dir()]
    if imagenet:
        test_folders = [root / "val"]  # It is no choice: without it there is an error.
    if not test_folders:
        rows, test_rows = train_and_test(np.array(train.targets))
        return part(train, rows), part(train, test_rows)
    test = _listed(test_folders[0])
    # The number of a class is its place in the sorted folders: with other folders, a number would
    # mean another class in the test set.
    differences = {*train.classes} ^ {*test.classes}
    if differences:
        raise UserError(
            f"{train.root} and {test.root} must hold the same class folders;"
            f" {min(differences)} is in one of them only"
        )
    return train, test


@functools.cache  # A start asks often, and on a network's disk a listing takes minutes.
def _listed(folder: Path) -> ImageFolder:
    try:
        return ImageFolder(str(folder), loader=image_in)
    except OSError as error:
        kind = Missing if isinstance(error, FileNotFoundError) else Outside
        raise kind(
            f"no images to read in {folder} ({first_line(error)}); put its class folders there, as"
            f" {folder.name}/CLASS/*, or point data_dir=… (of dataset=folder: dataset.root=…) at a"
            " folder that has them"
        ) from None


def part(images: ImageFolder, rows: Iterable[int]) -> ImageFolder:
    """The images with these indices."""
    some = copy.copy(images)
    some.samples = [images.samples[row] for row in rows]
    some.targets = [label for _, label in some.samples]
    return some


def transformed(images: ImageFolder, *transforms: Any) -> ImageFolder:
    """The images as (C, H, W) uint8 tensors, after transforms of Pillow's images."""
    others = copy.copy(images)
    others.transform = Compose([*transforms, PILToTensor()])
    return others


def plain(name: str, size: int, channels: int) -> list[Any]:
    """Transforms of a test image: grey if there is one channel, then a resize, and a crop.

    The shorter side is resized, and the middle cropped. ImageNet's shorter side is 8/7 of the
    size: 256 for 224.
    """
    side = round(size * 8 / 7) if name == "imagenet" else size
    grey = [Grayscale()] if channels == 1 else []
    return [*grey, Resize(side, antialias=True), CenterCrop(size)]


def facts(name: str, place: Place) -> tuple[int, int, int, int, Iterator[np.ndarray]]:
    """Classes, channels, size and n of the training images, and pixels (H, W, C) of a sample."""
    train, _ = splits(name, place)
    sample, channels = _sample(train), place.channels or 3
    size = place.image_size or _common_size(sample)
    images = transformed(sample, *plain(name, size, channels))
    pixels = (image.permute(1, 2, 0).numpy() for image, _ in images)
    return len(train.classes), channels, size, len(train), pixels


def _common_size(images: ImageFolder) -> int:
    """The side of all these images; refuse those that are not squares of one size."""
    sizes = sorted({image.size for image, _ in images})
    if len(sizes) > 1 or sizes[0][0] != sizes[0][1]:
        examples = ", ".join(f"{width}x{height}" for width, height in sizes[:3])
        more = ", …" if len(sizes) > 3 else ""
        raise UserError(
            f"the images in {images.root} are of sizes {examples}{more}; set"
            " dataset.image_size, such as dataset.image_size=64: each image is then resized, and"
            " its longer side cropped"
        )
    size: int = sizes[0][0]
    return size


def content(splits: Sequence[ImageFolder]) -> Iterator[bytes]:
    """Yield buffers for a fingerprint: the names of all files, and the contents of a sample."""
    for images in splits:
        for path, _ in images.samples:
            yield os.fsencode(path.removeprefix(images.root)) + b"\0"
        for path, _ in _sample(images).samples:
            yield Path(path).read_bytes()


def _sample(images: ImageFolder) -> ImageFolder:
    """At most MOST_READ of the images, evenly spread."""
    return part(images, range(0, len(images), len(images) // MOST_READ + 1))


def image_in(path: str | Path) -> Any:
    """A file as a Pillow image in colour."""
    try:
        # Some of Pillow's other formats start programs, as PostScript does.
        with Image.open(path, formats=FORMATS) as image:
            if image.mode[0] in "IF":  # Pillow would cut their values off.
                raise ValueError(f"Pillow's mode {image.mode}; 8 bits a channel are needed")
            return image.convert("RGB")
    except Exception as error:  # Pillow raises many kinds.
        raise reading(error)(f"{path} cannot be read ({first_line(error)})") from None
