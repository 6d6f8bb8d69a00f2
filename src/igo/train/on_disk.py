"""Images that stay on disk: DataLoader workers open them, in pieces that bound the memory used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from igo.config.schema import DatasetConfig
from igo.data.class_folders import shorter_side
from igo.data.image_files import File
from igo.data.stored import Stored
from igo.ground.errors import UserError

Seeded = tuple[int, int | None]  # an image's index, and the seed of its random transform
PIECE = 64  # images that a worker passes on at once, through shared memory


class ByIndex(Protocol):
    """Images, or their pixels, by index."""

    def __getitem__(self, index: int, /) -> Any: ...


class Files:
    """Image files, opened by index. Their names are an array, which forked workers share."""

    def __init__(self, root: Path, files: Sequence[File], open_file: Callable[[Path], Any]) -> None:
        self._root, self._open = root, open_file
        self._names = np.array([file.name.encode() for file in files])

    def __getitem__(self, index: int) -> Any:
        return self._open(self._root / self._names[index].decode())


class OnDisk(torch.utils.data.Dataset[Tensor | UserError]):
    """Images that are opened when they are needed.

    Args:
        images: an image, or its pixels, by index.
        labels: (n,) int64.
        transform: of an image to a uint8 tensor; a random one depends on (seed, index) alone.
    """

    def __init__(
        self,
        images: ByIndex,
        labels: np.ndarray,
        transform: Callable[[Any], Tensor],
    ) -> None:
        self.images, self._transform = images, transform
        self.labels = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, seeded: Seeded) -> Tensor | UserError:
        """The transformed image; for a damaged file the error, which the reader raises.

        An exception in a worker would keep DataLoader's processes from ending in order.
        """
        index, seed = seeded
        before = torch.default_generator.get_state()
        try:
            if seed is not None:
                torch.default_generator.manual_seed((seed + index) % 2**63)
            return self._transform(self.images[index])
        except UserError as error:
            return error
        finally:
            torch.default_generator.set_state(before)


def collate(samples: list[Tensor | UserError]) -> Tensor | UserError:
    """(b, …) uint8, or the first error."""
    errors = (sample for sample in samples if isinstance(sample, UserError))
    batch: Tensor | UserError = next(errors, None) or torch.utils.data.default_collate(samples)
    return batch


class Pieces:
    """The pieces of the batches that a reader reads, for DataLoader.

    The reader itself cannot yield them: in a cycle of references Python could collect the loader's
    queues before its workers.
    """

    def __init__(self) -> None:
        self.batches: Sequence[Tensor] = ()
        self.seed: int | None = None

    def __iter__(self) -> Iterator[list[Seeded]]:
        for batch in self.batches:
            for piece in batch.split(PIECE) if len(batch) else ():
                yield [(index, self.seed) for index in piece.tolist()]


class Reader:
    """Batches of images, read by DataLoader workers.

    The workers live as long as the reader, over epochs. They pass on PIECE images at a time, which
    bounds shared memory for every batch size.
    """

    def __init__(self, images: OnDisk, workers: int, pinned: bool) -> None:
        self._images, self._workers, self._pinned = images, workers, pinned
        self._pieces = Pieces()
        self._loader = self._new_loader()

    def _new_loader(self) -> torch.utils.data.DataLoader[Any]:
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

        An empty batch is (0,) and (0,), as the shape of its pixels is not known.
        """
        self._pieces.batches, self._pieces.seed = batches, seed
        pieces, complete = iter(self._loader), False
        try:
            for batch in batches:
                yield self._pixels(len(batch), pieces), self._images.labels[batch]
            complete = True
        finally:
            if not complete:  # drop what the workers have sent already
                self._loader = self._new_loader()

    def _pixels(self, size: int, pieces: Iterator[Tensor | UserError]) -> Tensor:
        pixels, start = torch.empty(0, dtype=torch.uint8), 0
        while start < size:
            piece = next(pieces)
            if isinstance(piece, UserError):
                raise piece
            if not start:
                shape = size, *piece.shape[1:]
                pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
            pixels[start : start + len(piece)] = piece
            start += len(piece)
        return pixels


class OnHost:
    """A batch on the host: a slice of it is made on the device.

    Args:
        pixels: (b, …) uint8 in the host's memory.
        make: makes images (b', C, H, W) float32 on the device from some pixels and their slice.
    """

    def __init__(self, pixels: Tensor, make: Callable[[Tensor, slice], Tensor]) -> None:
        self._pixels, self._make = pixels, make

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, part: slice) -> Tensor:
        return self._make(self._pixels[part], part)

    def whole_up_to(self, at_once: int | None) -> Tensor:
        """The images on the device; above ``at_once`` this object, which the caller slices."""
        whole = at_once is None or len(self) <= at_once
        return self[:] if whole else cast(Tensor, self)


class Photographs:
    """Stored images as Pillow's, each with the size that it has in its file."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        image: Any = Image.fromarray(self._stored[index])
        image.size_in_file = tuple(self._stored.sizes_in_files[index].tolist())
        return image


class RandomCrop:
    """torchvision's RandomResizedCrop: the same bits for an image in the size of its file.

    For a stored, smaller image, the same draws give the same part.
    """

    def __init__(self, size: int) -> None:
        from torchvision.transforms import v2

        self._size, self._crop = size, v2.RandomResizedCrop(size, antialias=True)

    def __call__(self, image: Any) -> Any:
        """A random part of the image, resized."""
        height, width = getattr(image, "size_in_file", (image.height, image.width))
        if (height, width) == (image.height, image.width):
            return self._crop(image)
        from PIL.Image import Resampling

        drawn = self._crop.make_params([torch.empty((3, height, width), device="meta")])
        across, down = image.width / width, image.height / height
        left, right = drawn["left"] * across, (drawn["left"] + drawn["width"]) * across
        top, bottom = drawn["top"] * down, (drawn["top"] + drawn["height"]) * down
        box = left, top, min(right, image.width), min(bottom, image.height)
        return image.resize((self._size, self._size), Resampling.BILINEAR, box)


def pixels(image: Any) -> Tensor:
    """The pixels of a Pillow image, (H, W, C) uint8."""
    return torch.from_numpy(np.array(image))


def train_transform(dataset: DatasetConfig) -> Callable[[Any], Tensor]:
    """Random resized crop and flip, as usual for ImageNet; (size, size, 3) uint8."""
    from torchvision.transforms import v2

    flip = [v2.RandomHorizontalFlip()] if dataset.augment.flip else []
    crop = RandomCrop(dataset.image_size)
    composed: Callable[[Any], Tensor] = v2.Compose([crop, *flip, pixels])
    return composed


def test_transform(dataset: DatasetConfig) -> Callable[[Any], Tensor]:
    """Resize to 8/7 of the size (256 for 224) and crop the centre, (size, size, 3) uint8."""
    from torchvision.transforms import v2

    resize = v2.Resize(shorter_side(dataset.image_size), antialias=True)
    crop = v2.CenterCrop(dataset.image_size)
    composed: Callable[[Any], Tensor] = v2.Compose([resize, crop, pixels])
    return composed
