"""Images that stay on disk: DataLoader workers open them, each by a transform of torchvision's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igo.config.schema import DatasetConfig
from igo.data.class_folders import File, Images, coloured, decode
from igo.data.source import one_line
from igo.errors import UserError


class ImageFolder(torch.utils.data.Dataset[tuple[Tensor, int] | UserError]):
    """torchvision's ImageFolder whose random transform depends on (seed, image) alone."""

    def __init__(self, folder: Any, seed: int | None = None) -> None:
        self._folder, self._seed = folder, seed
        self.targets: list[int] = folder.targets
        self.classes: list[str] = folder.classes

    def seeded(self, seed: int) -> ImageFolder:
        """The same images with another seed for their transforms."""
        return ImageFolder(self._folder, seed)

    def transformed(self, transform: Callable[[Any], Tensor]) -> ImageFolder:
        """The same images under another transform."""
        other = copy.copy(self._folder)
        other.transform = transform
        return ImageFolder(other)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | UserError:
        """(C, H, W) uint8 and the label; an error, to be raised by who loads, for a damaged file.

        Raised in a worker, an exception would keep DataLoader's processes from ending in order.
        """
        from PIL import Image

        with torch.random.fork_rng(devices=[]):
            if self._seed is not None:
                torch.manual_seed((self._seed + index) % 2**63)
            try:
                pixels, label = self._folder[index]
            except UserError as error:
                return error
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                path = self._folder.samples[index][0]
                return UserError(f"{path} is damaged ({one_line(error)}); get it again")
        return pixels, label


class Decoded(torch.utils.data.Dataset[tuple[Tensor, int] | UserError]):
    """Own images, each decoded as those that are kept in memory are."""

    def __init__(self, images: Images, files: Sequence[File]) -> None:
        self._images, self._files = images, files
        self._form, self._labels = images.form, images.labels(files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | UserError:
        """(H, W, C) uint8 and the label; of a damaged file an error, see ImageFolder."""
        try:
            pixels = decode(self._images.root / self._files[index].name, *self._form)
        except UserError as error:
            return error
        return torch.tensor(pixels), int(self._labels[index])


def collate(samples: list[Any]) -> Any:
    """(b, C, H, W) uint8 and labels (b,) int64; the first error if there is one."""
    errors = (sample for sample in samples if isinstance(sample, UserError))
    return next(errors, None) or torch.utils.data.default_collate(samples)


def image_folder(root: Path, transform: Callable[[Any], Tensor]) -> ImageFolder:
    """Read the class folders under root."""
    from torchvision import datasets

    try:
        return ImageFolder(datasets.ImageFolder(str(root), transform, loader=coloured))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"no images to read in {root} ({one_line(error)}); ImageNet is not"
            " downloaded: put its class folders there, or point data_dir=… at them"
        ) from None


def train_transform(dataset: DatasetConfig) -> Callable[[Any], Tensor]:
    """Random resized crop and flip, as usual for ImageNet; (3, size, size) uint8."""
    from torchvision.transforms import v2

    flip = [v2.RandomHorizontalFlip()] if dataset.augment.flip else []
    crop = v2.RandomResizedCrop(dataset.image_size, antialias=True)
    composed: Callable[[Any], Tensor] = v2.Compose([v2.RGB(), crop, *flip, v2.PILToTensor()])
    return composed


def test_transform(dataset: DatasetConfig) -> Callable[[Any], Tensor]:
    """Resize to 8/7 of the size (256 for 224) and crop the centre, (3, size, size) uint8."""
    from torchvision.transforms import v2

    resize = v2.Resize(round(dataset.image_size * 8 / 7), antialias=True)
    crop = v2.CenterCrop(dataset.image_size)
    composed: Callable[[Any], Tensor] = v2.Compose([v2.RGB(), resize, crop, v2.PILToTensor()])
    return composed
