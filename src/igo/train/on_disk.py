"""Images that stay on disk: DataLoader workers open them, in pieces that bound the memory used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igo.config.schema import DatasetConfig
from igo.data.class_folders import File, Images, coloured, decode
from igo.data.source import one_line
from igo.errors import UserError

Seeded = tuple[int, int | None]  # an image's index, and the seed of its random transform
PIECE = 64  # images that a worker hands over at once, through shared memory


class ImageFolder(torch.utils.data.Dataset[tuple[Tensor, int] | UserError]):
    """torchvision's ImageFolder whose random transform depends on (seed, image) alone."""

    def __init__(self, folder: Any) -> None:
        self._folder = folder
        self.targets: list[int] = folder.targets
        self.classes: list[str] = folder.classes

    def transformed(self, transform: Callable[[Any], Tensor]) -> ImageFolder:
        """The same images under another transform."""
        other = copy.copy(self._folder)
        other.transform = transform
        return ImageFolder(other)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, which: Seeded) -> tuple[Tensor, int] | UserError:
        """(C, H, W) uint8 and the label; of a damaged file an error, which the reader raises.

        Raised in a worker, an exception would keep DataLoader's processes from ending in order.
        """
        from PIL import Image

        index, seed = which
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.manual_seed((seed + index) % 2**63)
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

    def __getitem__(self, which: Seeded) -> tuple[Tensor, int] | UserError:
        """(H, W, C) uint8 and the label; of a damaged file an error, see ImageFolder."""
        index = which[0]
        try:
            pixels = decode(self._images.root / self._files[index].name, *self._form)
        except UserError as error:
            return error
        return torch.tensor(pixels), int(self._labels[index])


def collate(samples: list[Any]) -> Any:
    """(b, C, H, W) uint8 and labels (b,) int64; the first error if there is one."""
    errors = (sample for sample in samples if isinstance(sample, UserError))
    return next(errors, None) or torch.utils.data.default_collate(samples)


class Pieces:
    """The pieces of the batches that are being read, as DataLoader asks for them.

    An object of its own: a cycle of references through the loader would be collected in any order,
    its queues before its workers.
    """

    def __init__(self) -> None:
        self.given: list[list[Seeded]] = []

    def __iter__(self) -> Iterator[list[Seeded]]:
        return iter(self.given)


class Reader:
    """Batches of images as DataLoader workers read them.

    The workers live as long as the reader: they are not started anew for each epoch. They hand over
    PIECE images at a time, so that shared memory is bounded whatever the size of a batch.
    """

    def __init__(self, images: ImageFolder | Decoded, workers: int, pinned: bool) -> None:
        self._images, self._workers, self._pinned = images, workers, pinned
        self._pieces = Pieces()
        self._loader = self._started()

    def _started(self) -> torch.utils.data.DataLoader[Any]:
        return torch.utils.data.DataLoader(
            self._images,
            batch_sampler=self._pieces,
            collate_fn=collate,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
        )

    def read(
        self, batches: Sequence[Tensor], seed: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (b, …) uint8 and labels (b,) int64 in the host's memory, for each batch of indices.

        An empty batch has no pixels to tell their shape from: (0,) and (0,).

        Raises:
            UserError: a file is damaged.
        """
        pieces = [[piece.tolist() for piece in batch.split(PIECE)] for batch in batches]
        self._pieces.given = [
            [(i, seed) for i in piece] for some in pieces for piece in some if piece
        ]
        loaded, whole = iter(self._loader), False
        try:
            yield from self._batches(pieces, loaded)
            whole = True
        finally:
            if not whole:  # what its workers have sent is of no use to the next pass
                self._loader = self._started()

    def _batches(
        self, pieces: list[list[list[int]]], loaded: Iterator[Any]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for some in pieces:
            size = sum(map(len, some))
            pixels, labels = torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
            start = 0
            for piece in filter(None, some):
                read = next(loaded)
                if isinstance(read, UserError):
                    raise read
                if not start:
                    pixels = torch.empty(
                        (size, *read[0].shape[1:]), dtype=torch.uint8, pin_memory=self._pinned
                    )
                    labels = torch.empty(size, dtype=torch.int64)
                end = start + len(piece)
                pixels[start:end], labels[start:end] = read
                start = end
            yield pixels, labels


class OnHost:
    """A batch whose images are made on the device where they are sliced, a part at a time.

    Args:
        pixels: (b, …) uint8 in the host's memory.
        make: the images (b', C, H, W) float32 on the device of some pixels and where they are.
    """

    def __init__(self, pixels: Tensor, make: Callable[[Tensor, slice], Tensor]) -> None:
        self._pixels, self._make = pixels, make

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, part: slice) -> Tensor:
        return self._make(self._pixels[part], part)


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
