"""Images that stay on disk, as batches on the device: torchvision's transforms, a DataLoader."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from igo.config.schema import DatasetConfig
from igo.data import stored
from igo.data.folders import Files, Images, shorter_side
from igo.ground.cores import allowed_cores
from igo.ground.errors import ConfigError, UserError
from igo.ground.ranks import ALONE, Ranks
from igo.ground.seeds import derive_seed, generator
from igo.train import augment, on_device
from igo.train.on_device import Batch

MOST_WORKERS = 16  # if dataset.workers is null
PIECE = 64  # images that a worker passes on at once, which bounds shared memory for any batch
TEST_BATCH = 125  # photographs are large
SHARED = Path("/dev/shm")


class ByIndex(Protocol):
    """Pillow's images by index."""

    def __getitem__(self, index: int, /) -> Any: ...


class Opened:
    """Image files, decoded each time."""

    def __init__(self, images: Images, files: Files) -> None:
        self._open, self._names = images.open, files.names

    def __getitem__(self, index: int) -> Any:
        return self._open(self._names[index])


class Transformed(Dataset[Tensor | UserError]):
    """Transformed images by (index, seed), on which alone a random transform depends."""

    def __init__(self, images: ByIndex, transform: Callable[[Any], Any]) -> None:
        self._images, self._transform = images, transform

    def __getitem__(self, index_and_seed: tuple[int, int]) -> Tensor | UserError:
        """(H, W, C) uint8; for a damaged file the error, of which DataLoader makes a traceback."""
        index, seed = index_and_seed
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed((seed + index) % 2**63)
            try:
                pixels = np.array(self._transform(self._images[index]))
            except UserError as error:
                return error
        return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[..., None])


def collate(samples: list[Tensor | UserError]) -> Tensor | UserError:
    """(b, H, W, C) uint8, or the first error."""
    errors = (sample for sample in samples if isinstance(sample, UserError))
    return next(errors, None) or torch.stack(cast(list[Tensor], samples))


class Pieces:
    """The batches of a pass in pieces, as DataLoader takes them from its ``batch_sampler``."""

    def __init__(self) -> None:
        self.batches: Sequence[Tensor] = ()
        self.seed = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.batches:
            for piece in batch.split(PIECE) if len(batch) else ():
                yield [(index, self.seed) for index in piece.tolist()]


class Reader:
    """Reads batches in worker processes, which live for all passes: their start takes seconds."""

    def __init__(self, images: Transformed, shape: tuple[int, ...], workers: int, pinned: bool):
        self._images, self._shape, self._workers, self._pinned = images, shape, workers, pinned
        self._loader = self._new_loader()

    def _new_loader(self) -> DataLoader[Any]:
        self._pieces = Pieces()
        return DataLoader(
            self._images,
            batch_sampler=self._pieces,
            collate_fn=collate,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
        )

    def read(self, batches: Sequence[Tensor], seed: int = 0) -> Iterator[Tensor]:
        """Yield (b, H, W, C) uint8 in the host's memory, for each batch of indices."""
        self._pieces.batches, self._pieces.seed = batches, seed
        pieces, complete = iter(self._loader), False
        try:
            for batch in batches:
                shape = len(batch), *self._shape
                pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
                for start in range(0, len(batch), PIECE):
                    piece = next(pieces)
                    if isinstance(piece, UserError):
                        raise piece
                    pixels[start : start + PIECE] = piece
                yield pixels
            complete = True
        finally:
            if not complete:  # drop what the workers have sent already
                self._loader = self._new_loader()


def check_shared_memory(workers: int, shape: tuple[int, ...]) -> None:
    """Each worker keeps two pieces in /dev/shm. Where one does not fit, it would wait for ever."""
    needed = workers * 2 * PIECE * math.prod(shape)
    free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else needed
    if free < needed:
        allowed = (
            f"{SHARED} has {free / 2**20:.0f} MiB free, and they need {needed / 2**20:.0f}; make it"
            " larger (docker run --shm-size=1g), or take fewer"
        )
        raise ConfigError("dataset.workers", workers, allowed)


class OnHost:
    """A batch on the host: a slice of it is made on the device.

    Args:
        pixels: (b, H, W, C) uint8 in the host's memory.
        make: makes images (b', C, H, W) float32 on the device from some pixels and their slice.
    """

    def __init__(self, pixels: Tensor, make: Callable[[Tensor, slice], Tensor]) -> None:
        self._pixels, self._make = pixels, make

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, part: slice) -> Tensor:
        return self._make(self._pixels[part], part)


class DiskData:
    """Images of dataset=folder or dataset=imagenet that do not fit in memory; see Data.

    Args:
        dataset: its settings.
        images: the files.
        parts: indices of training images in use, and of those held out.
        device: for the batches.
    """

    def __init__(
        self,
        dataset: DatasetConfig,
        images: Images,
        parts: tuple[np.ndarray, np.ndarray],
        device: torch.device,
    ) -> None:
        splits = images.train, images.test
        opened: Sequence[ByIndex] = (
            stored.splits(images) if dataset.cache else [Opened(images, files) for files in splits]
        )
        self._labels, self._test_labels = (torch.from_numpy(files.labels) for files in splits)
        self._keep, self._held = map(torch.from_numpy, parts)
        self.n = len(self._keep)
        self._augment, self._device = dataset.augment, device
        self._normalise = on_device.Normalise(dataset, device)
        most = min(allowed_cores(), MOST_WORKERS)
        workers = most if dataset.workers is None else dataset.workers
        shape = dataset.image_size, dataset.image_size, dataset.channels
        check_shared_memory(workers, shape)
        train, plain = transforms(dataset)
        self._random, self._plain, self._test = (
            Reader(Transformed(images, transform), shape, workers, device.type == "cuda")
            for images, transform in ((opened[0], train), (opened[0], plain), (opened[1], plain))
        )

    def train_batches(
        self, index_batches: Sequence[Tensor], seed: int, at_once: int | None = None
    ) -> Iterator[Batch]:
        """See Data. Each image's crop, moves and flip depend on the seed and the image alone."""
        random = generator(seed, "augmentation")
        moves = augment.draw_moves(self._augment, self.n, random, self._device)
        kept = [self._keep[index] for index in index_batches]
        loaded = self._random.read(kept, derive_seed(seed, "crop"))
        for index, pixels in zip(index_batches, loaded, strict=True):
            moved = moves.of(index.to(self._device, non_blocking=True))
            make = partial(self._made, moved)
            whole = at_once is None or len(index) <= at_once
            images = make(pixels, slice(None)) if whole else OnHost(pixels, make)
            labels = self._labels[self._keep[index]]
            yield cast(Tensor, images), labels.to(self._device, non_blocking=True)

    def _made(self, moves: augment.Moves, pixels: Tensor, part: slice) -> Tensor:
        """Moved and normalised images (b', C, H, W) of a part of a batch."""
        every = torch.arange(len(pixels), device=self._device)
        pixels = pixels.to(self._device, non_blocking=True)
        return self._normalise(augment.gather(pixels, every, moves.of(part)))

    def plain_batches(self, index_batches: Sequence[Tensor]) -> Iterator[Batch]:
        """See Data. Images are transformed like test images."""
        kept = [self._keep[index] for index in index_batches]
        return self._not_augmented(self._plain, self._labels, kept)

    def test_batches(self, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """See Data."""
        share = torch.arange(len(self._test_labels))[ranks.rank :: ranks.size]
        return self._not_augmented(self._test, self._test_labels, share.split(TEST_BATCH))

    def validation_batches(self, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """See Data. Images are transformed like test images."""
        share = self._held[ranks.rank :: ranks.size]
        return self._not_augmented(self._plain, self._labels, share.split(TEST_BATCH))

    def _not_augmented(
        self, reader: Reader, labels: Tensor, index_batches: Sequence[Tensor]
    ) -> Iterator[Batch]:
        for index, pixels in zip(index_batches, reader.read(index_batches), strict=True):
            images = pixels.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
            yield self._normalise(images), labels[index].to(self._device, non_blocking=True)


def transforms(dataset: DatasetConfig) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """For training and for testing, of Pillow's images; a flip follows on the device."""
    if dataset.name != "imagenet":
        return v2.Identity(), v2.Identity()
    size = dataset.image_size
    resize = v2.Resize(shorter_side(size), antialias=True)
    return (
        v2.RandomResizedCrop(size, antialias=True),
        v2.Compose([resize, v2.CenterCrop(size)]),
    )
