"""Images that stay on disk, as batches on the device: torchvision's transforms, a DataLoader."""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, dataloader
from torch.utils.data._utils import signal_handling
from torchvision.transforms import v2

from igo.config.schema import DatasetConfig
from igo.data.folders import Images, shorter_side
from igo.ground.errors import Outside, UserError, first_line, require
from igo.ground.ranks import ALONE, Ranks, allowed_cores
from igo.ground.seeds import derive_seed, generator
from igo.train import augment
from igo.train.on_device import Batches, Normalise

MOST_WORKERS = 16  # the most that dataset.workers=null takes
PIECE = 64  # images that a worker passes on at once, which bounds shared memory for any batch
TEST_BATCH = 125  # Photographs are large.
SHARED = Path("/dev/shm")

# Two private names of PyTorch, tried with torch 2.9 to 2.13.
# 1. When a worker dies, PyTorch's handler of SIGCHLD raises a RuntimeError in the main thread, at
#    whatever line it is. Reader.read reports a dead worker where it reads, so PyTorch is told that
#    its handler is installed already. It can go when DataLoader has an option for this.
signal_handling._SIGCHLD_handler_set = True
# 2. If a signal comes while an iterator starts its workers, its clean-up reads `_workers_status`,
#    which is not set yet, and the workers that live are not ended. So the class has a default. It
#    can go when `__init__` sets it before the first worker starts.
dataloader._MultiProcessingDataLoaderIter._workers_status = [True] * 1024


class Transformed(Dataset[Tensor | UserError]):
    """Transformed images, all of one size, in pieces of a batch."""

    def __init__(self, images: Images, transform: Callable[[Any], Any]) -> None:
        self._images, self._transform = images, transform

    def __getitem__(self, piece: tuple[list[int], int]) -> Tensor | UserError:
        """(b, H, W, C) uint8 by b indices and a seed: an image depends on its index and the seed.

        For a damaged file it is the error, of which DataLoader would make a traceback.
        """
        indices, seed = piece
        pixels = []
        with torch.random.fork_rng(devices=[]):
            for index in indices:
                torch.default_generator.manual_seed((seed + index) % 2**63)
                try:
                    pixels.append(np.array(self._transform(self._images[index])))
                except UserError as error:
                    return error
        stacked = torch.from_numpy(np.stack(pixels))
        return stacked if stacked.ndim == 4 else stacked[..., None]


class Reader:
    """Reads batches in worker processes, which live for all passes: their start takes seconds."""

    def __init__(self, images: Transformed, shape: tuple[int, ...], workers: int, pinned: bool):
        self._shape, self._pinned = shape, pinned
        self._pieces: list[tuple[list[int], int]] = []  # all those of a pass
        self._loader = DataLoader(
            images,
            batch_size=None,
            sampler=self._pieces,
            num_workers=workers,
            persistent_workers=workers > 0,
            # A loader draws its workers' seed from PyTorch's default generator: in each pass, or
            # once where workers live on. Dropout would depend on their number.
            generator=torch.Generator(),
        )

    def read(self, batches: Sequence[Tensor], seed: int = 0) -> Iterator[Tensor]:
        """Yield (b, H, W, C) uint8 in the host's memory, for each batch of indices."""
        pieces = (piece for batch in batches if len(batch) for piece in batch.split(PIECE))
        self._pieces[:] = [(piece.tolist(), seed) for piece in pieces]
        try:
            loaded_pieces = iter(self._loader)
            for batch in batches:
                shape = len(batch), *self._shape
                pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
                for start in range(0, len(batch), PIECE):
                    piece = next(loaded_pieces)
                    if isinstance(piece, UserError):
                        raise piece
                    pixels[start : start + PIECE] = piece
                yield pixels
        except (RuntimeError, OSError, EOFError) as error:
            beginnings = ("DataLoader worker", "Too many open files")
            if isinstance(error, RuntimeError) and not str(error).startswith(beginnings):
                raise
            reason = first_line(error).rstrip(". ")
            fault = f"a worker that reads images was killed, or cannot start ({reason})"
            raise Outside(f"{fault}; the same command continues") from None


def check_shared_memory(workers: int, shape: tuple[int, ...]) -> None:
    """Each worker keeps two pieces in /dev/shm. Where one does not fit, it would wait for ever."""
    needed_bytes = workers * 2 * PIECE * math.prod(shape)
    free_bytes = shutil.disk_usage(SHARED).free if SHARED.is_dir() else needed_bytes
    require(
        free_bytes >= needed_bytes,
        "dataset.workers",
        workers,
        f"{SHARED} has {free_bytes / 2**20:.0f} MiB free, and they need"
        f" {needed_bytes / 2**20:.0f}; make it larger (docker run --shm-size=1g), or take fewer",
    )


class DiskData:
    """Images of dataset=folder or dataset=imagenet that do not fit in memory; see Data.

    ``splits`` and ``labels`` are for training and for testing; ``parts`` are indices of training
    images in use, and of those held out.
    """

    def __init__(
        self,
        dataset: DatasetConfig,
        splits: Sequence[Images],
        labels: Sequence[np.ndarray],
        parts: tuple[np.ndarray, np.ndarray],
        device: torch.device,
    ) -> None:
        self._labels, test_labels = map(torch.from_numpy, labels)
        self._keep, held = map(torch.from_numpy, parts)
        self.n = len(self._keep)
        self._augment, self._device = dataset.augment, device
        self._normalise = Normalise(dataset, device)
        most_workers = min(allowed_cores(), MOST_WORKERS)
        workers = most_workers if dataset.workers is None else dataset.workers
        shape = dataset.image_size, dataset.image_size, dataset.channels
        check_shared_memory(workers, shape)
        random: v2.Transform = v2.Identity()  # Flips and other moves follow on the device.
        plain: v2.Transform = v2.Identity()
        if dataset.name == "imagenet":
            size = dataset.image_size
            random = v2.RandomResizedCrop(size, antialias=True)
            resize = v2.Resize(shorter_side(size), antialias=True)
            plain = v2.Compose([resize, v2.CenterCrop(size)])
        readers = [
            Reader(Transformed(images, transform), shape, workers, device.type == "cuda")
            for images, transform in zip([splits[0], *splits], [random, plain, plain], strict=True)
        ]
        self._random, self._plain, test = readers
        self._tests = {
            "test": (test, test_labels, torch.arange(len(test_labels))),
            "validation": (self._plain, self._labels, held),
        }

    def train_batches(self, index_batches: Sequence[Tensor], seed: int) -> Batches:
        """See Data. Each image's crop, moves and flip depend on the seed and the image alone."""
        random = generator(seed, "augmentation")
        moves = augment.draw_moves(self._augment, self.n, random, self._device)
        kept_indices = [self._keep[index] for index in index_batches]
        batches = self._random.read(kept_indices, derive_seed(seed, "crop"))
        for index, pixels in zip(index_batches, batches, strict=True):
            batch_moves = moves.of(index.to(self._device, non_blocking=True))
            indices = torch.arange(len(pixels), device=self._device)
            on_device = pixels.to(self._device, non_blocking=True)
            images = self._normalise(augment.gather(on_device, indices, batch_moves))
            labels = self._labels[self._keep[index]]
            yield images, labels.to(self._device, non_blocking=True)

    def plain_batches(self, index_batches: Sequence[Tensor]) -> Batches:
        """See Data. Images are transformed like test images."""
        kept_indices = [self._keep[index] for index in index_batches]
        return self._not_augmented(self._plain, self._labels, kept_indices)

    def test_batches(self, ranks: Ranks = ALONE, part: str = "test") -> Batches:
        """See Data. Images for validation are transformed like test images."""
        reader, labels, indices = self._tests[part]
        share = indices[ranks.rank :: ranks.size]
        return self._not_augmented(reader, labels, share.split(TEST_BATCH))

    def _not_augmented(
        self, reader: Reader, labels: Tensor, index_batches: Sequence[Tensor]
    ) -> Batches:
        for index, pixels in zip(index_batches, reader.read(index_batches), strict=True):
            images = pixels.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
            yield self._normalise(images), labels[index].to(self._device, non_blocking=True)
