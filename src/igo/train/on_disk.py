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
from igo.errors import UserError

Seeded = tuple[int, int | None]  # an image's index, and the seed of its random transform
PIECE = 64  # images that a worker hands over at once, through shared memory


class ByIndex(Protocol):
    """What has an image, or its pixels, at each index."""

    def __getitem__(self, index: int, /) -> Any: ...


class Files:
    """Image files, opened by index. Their names are one array, which forked workers share."""

    def __init__(self, root: Path, files: Sequence[File], open_one: Callable[[Path], Any]) -> None:
        self._root, self._open = root, open_one
        self._names = np.array([file.name.encode() for file in files])

    def __getitem__(self, index: int) -> Any:
        return self._open(self._root / self._names[index].decode())


class OnDisk(torch.utils.data.Dataset[Tensor | UserError]):
    """Images that are opened when they are needed.

    Args:
        images: an image, or its pixels, by index.
        labels: (n,) int64.
        transform: of an image to a uint8 tensor; if it is random, of (seed, index) alone.
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

    def __getitem__(self, which: Seeded) -> Tensor | UserError:
        """The transformed image; of a damaged file an error, which the reader raises.

        Raised in a worker, an exception would keep DataLoader's processes from ending in order.
        """
        index, seed = which
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
    """(b, …) uint8; the first error if there is one."""
    errors = (sample for sample in samples if isinstance(sample, UserError))
    found: Tensor | UserError = next(errors, None) or torch.utils.data.default_collate(samples)
    return found


class Pieces:
    """The pieces of the batches that are being read, as DataLoader asks for them.

    An object of its own: a cycle of references through the loader would be collected in any order,
    its queues before its workers.
    """

    def __init__(self) -> None:
        self.batches: Sequence[Tensor] = ()
        self.seed: int | None = None

    def __iter__(self) -> Iterator[list[Seeded]]:
        for batch in self.batches:
            for piece in batch.split(PIECE) if len(batch) else ():
                yield [(index, self.seed) for index in piece.tolist()]


class Reader:
    """Batches of images as DataLoader workers read them.

    The workers live as long as the reader: they are not started anew for each epoch. They hand over
    PIECE images at a time, so that shared memory is bounded whatever the size of a batch.
    """

    def __init__(self, images: OnDisk, workers: int, pinned: bool) -> None:
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
        """
        self._pieces.batches, self._pieces.seed = batches, seed
        loaded, whole = iter(self._loader), False
        try:
            for batch in batches:
                yield self._pixels(len(batch), loaded), self._images.labels[batch]
            whole = True
        finally:
            if not whole:  # what its workers have sent is of no use to the next pass
                self._loader = self._started()

    def _pixels(self, size: int, loaded: Iterator[Tensor | UserError]) -> Tensor:
        pixels, start = torch.empty(0, dtype=torch.uint8), 0
        while start < size:
            read = next(loaded)
            if isinstance(read, UserError):
                raise read
            if not start:
                shape = size, *read.shape[1:]
                pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
            pixels[start : start + len(read)] = read
            start += len(read)
        return pixels


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

    def whole_up_to(self, at_once: int | None) -> Tensor:
        """The images on the device; of more than ``at_once`` this object, for who slices it."""
        whole = at_once is None or len(self) <= at_once
        return self[:] if whole else cast(Tensor, self)


class Photographs:
    """Stored images as those of Pillow's, each of which knows its size in its file."""

    def __init__(self, kept: Stored) -> None:
        self._kept = kept

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        image: Any = Image.fromarray(self._kept[index])
        image.was = tuple(self._kept.were[index].tolist())
        return image


class RandomCrop:
    """torchvision's RandomResizedCrop, of an image in its file's size with the same bits.

    Of a stored image it is the same part, to which the same draws lead.
    """

    def __init__(self, size: int) -> None:
        from torchvision.transforms import v2

        self._size, self._crop = size, v2.RandomResizedCrop(size, antialias=True)

    def __call__(self, image: Any) -> Any:
        """A random part of the image, resized to the size."""
        height, width = getattr(image, "was", (image.height, image.width))
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
    """(H, W, C) uint8 of an image of Pillow's."""
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
