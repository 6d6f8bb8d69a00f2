"""Images in class folders, ROOT/{train,val}/CLASS/*, by torchvision's ImageFolder.

Importing this imports torchvision, and so torch.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, Grayscale, PILToTensor, Resize

from igo.data.readers import Found, Missing, Place, train_and_test
from igo.ground.errors import Outside, UserError, first_line, reading, require

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # torchvision takes files of these names.
MOST_READ = 256  # So many images, spread over the names, tell size, mean, std and fingerprint.


class Files(ImageFolder):  # type: ignore[misc]
    """Labelled image files, with what a ``Split`` of arrays has. A file is decoded when asked for.

    ``self[i]`` is an image after ``transform``, if that is set, and its label.
    """

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64: the place of an image's folder among the sorted class folders."""
        return np.array(self.targets)

    def of(self, rows: Iterable[int]) -> Files:
        """The files with these indices."""
        some = copy.copy(self)
        some.samples = [self.samples[row] for row in rows]
        some.targets = [label for _, label in some.samples]
        return some

    def transformed(self, *transforms: Any) -> Files:
        """The files, of which images come as (C, H, W) uint8 after transforms of Pillow's image."""
        others = copy.copy(self)
        others.transform = Compose([*transforms, PILToTensor()])
        return others

    def sample(self) -> Files:
        """At most MOST_READ of the files, evenly spread."""
        step = len(self) // MOST_READ + 1
        return self.of(range(0, len(self), step))

    def content(self) -> Iterator[bytes]:
        """Yield buffers for a fingerprint: the names of all files, and the contents of a sample."""
        for path, _ in self.samples:
            yield os.fsencode(path.removeprefix(self.root)) + b"\0"
        for path, _ in self.sample().samples:
            yield Path(path).read_bytes()

    def pixels(self, name: str, place: Place) -> list[np.ndarray]:
        """A sample of the images, (H, W, C) uint8 each, as data set ``name`` tests with.

        Where ``place`` has no size, all images must be of one size; without channels they keep
        their three.
        """
        sample = self.sample()
        size = place.image_size or _common_size(sample)
        images = sample.transformed(*plain(name, size, place.channels or 3))
        return [image.permute(1, 2, 0).numpy() for image, _ in images]


def found(name: str, place: Place) -> Found:
    """Where dataset=folder or dataset=imagenet is, its training images, and its test images.

    Training images are in the folder train. Test images are in val; those of dataset=folder may be
    in test as well, or be a fifth of train, if there is neither folder.

    Raises:
        Missing: there are no images, or a class has none.
    """
    require(
        place.channels in (None, 1, 3),
        "dataset.channels",
        place.channels,
        "images of folders have 1 (grey) or 3 (colour)",
    )
    if name == "imagenet":
        root = (place.data_dir / name).resolve()
        test_folders = [root / "val"]  # Without this folder ImageNet is not complete.
    else:
        root = (place.root or place.data_dir).resolve()
        test_folders = [folder for folder in (root / "val", root / "test") if folder.is_dir()]
    train = _listed(root / "train")
    if not test_folders:
        rows, test_rows = train_and_test(train.labels)
        return str(root), (train.of(rows), train.of(test_rows))
    test = _listed(test_folders[0])
    # The number of a class is its place in the sorted folders: with other folders, a number would
    # mean another class in the test set.
    differences = {*train.classes} ^ {*test.classes}
    if differences:
        raise UserError(
            f"{train.root} and {test.root} must hold the same class folders;"
            f" {min(differences)} is in one of them only"
        )
    return str(root), (train, test)


@functools.cache  # A start asks often, and on a network's disk a listing takes minutes.
def _listed(folder: Path) -> Files:
    """The files of a folder of class folders, none of which is opened."""
    try:
        return Files(str(folder), loader=image_in)
    except OSError as error:
        kind = Missing if isinstance(error, FileNotFoundError) else Outside
        raise kind(
            f"no images to read in {folder} ({first_line(error)}); put its class folders there, as"
            f" {folder.name}/CLASS/*, or point data_dir=… (of dataset=folder: dataset.root=…) at a"
            " folder that has them"
        ) from None


def plain(name: str, size: int, channels: int) -> list[Any]:
    """Transforms of a test image: grey if there is one channel, then a resize, and last a crop.

    The shorter side is resized, and the middle (``size`` x ``size``) cropped. ImageNet's shorter
    side becomes 8/7 of ``size``: 256 for 224, as is usual for ImageNet.
    """
    side = round(size * 8 / 7) if name == "imagenet" else size
    grey = [Grayscale()] if channels == 1 else []
    return [*grey, Resize(side, antialias=True), CenterCrop(size)]


def _common_size(images: Files) -> int:
    """The side of all these images, in pixels; refuse those that are not squares of one size."""
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


def image_in(path: str | Path) -> Any:
    """A file as a Pillow image in colour (RGB); one in grey gets three equal channels."""
    try:
        # Some of Pillow's other formats start programs, as PostScript does.
        with Image.open(path, formats=FORMATS) as image:
            # The modes I, I;16 and F have more than 8 bits: Pillow would cut values above 255 off.
            if image.mode[0] in "IF":
                raise ValueError(f"Pillow's mode {image.mode}; 8 bits a channel are needed")
            return image.convert("RGB")
    except Exception as error:  # Pillow raises many kinds.
        raise reading(error)(f"{path} cannot be read ({first_line(error)})") from None
