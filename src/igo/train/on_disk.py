"""Images that stay in folders, as batches on the device: torchvision's transforms, a DataLoader."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, dataloader
from torch.utils.data._utils import signal_handling
from torchvision import transforms
from torchvision.datasets import ImageFolder

from igo.config.schema import DatasetConfig
from igo.data import folders
from igo.data.readers import Split
from igo.ground.errors import Outside, UserError
from igo.ground.ranks import ALONE, Ranks, allowed_cores
from igo.loop.seeded import Indices, Seeded
from igo.train.on_device import Batches, Normalise

MOST_WORKERS = 16  # the most that dataset.workers=null takes
TEST_BATCH = 125  # Photographs are large.
# Two private names of PyTorch, tried with torch 2.9 to 2.13.
# 1. When a worker dies, PyTorch's handler of SIGCHLD raises a RuntimeError in the main thread, at
#    whatever line it is. DiskData reports a dead worker where it reads, so PyTorch is told that
#    its handler is installed already. It can go when DataLoader has an option for this.
signal_handling._SIGCHLD_handler_set = True
# 2. If a signal comes while an iterator starts its workers, its clean-up reads `_workers_status`,
#    which is not set yet, and the workers that live are not ended. So the class has a default. It
#    can go when `__init__` sets it before the first worker starts.
dataloader._MultiProcessingDataLoaderIter._workers_status = [True] * 1024


class DiskData:
    """Images of dataset=folder or dataset=imagenet, decoded anew in each pass; see Data."""

    def __init__(
        self,
        dataset: DatasetConfig,
        train: ImageFolder,
        test: ImageFolder,
        validation: ImageFolder,
        device: torch.device,
    ) -> None:
        self.n, self._device = len(train), device
        self._normalise = Normalise(dataset, device)
        most_workers = min(allowed_cores(), MOST_WORKERS)
        self._workers = most_workers if dataset.workers is None else dataset.workers
        size, augment = dataset.image_size, dataset.augment
        plain = folders.plain(dataset.name, size, dataset.channels)
        crop = [*plain, transforms.RandomCrop(size, padding=augment.crop)]
        if dataset.name == "imagenet":
            crop = [*plain[:-2], transforms.RandomResizedCrop(size, antialias=True)]
        flip, rotation = (
            transforms.RandomHorizontalFlip(augment.flip / 2),
            transforms.RandomRotation(augment.rotation),
        )
        self._augmented = Seeded(folders.transformed(train, *crop, flip, rotation))
        self._plain = {
            name: folders.transformed(images, *plain)
            for name, images in (("train", train), ("test", test), ("validation", validation))
        }

    def split(self, part: str) -> Split:
        """All images of a part, decoded once."""
        images, labels = zip(*self._loaded(self._plain[part], self._order(part)), strict=True)
        return Split(torch.cat(images).permute(0, 2, 3, 1).numpy(), torch.cat(labels).numpy())

    def train_batches(self, index_batches: Sequence[Tensor], seed: int) -> Batches:
        """See Data. An image's augmentation depends on the seed and its index, see Seeded."""
        batches = [Indices(index.tolist()) for index in index_batches]
        for batch in batches:
            batch.seed, batch.epoch = seed, 0  # The seed is another in each epoch.
        return self._batches(self._augmented, batches)

    def plain_batches(self, index_batches: Sequence[Tensor]) -> Batches:
        """See Data. Images are transformed like test images."""
        return self._batches(self._plain["train"], [index.tolist() for index in index_batches])

    def test_batches(self, ranks: Ranks = ALONE, part: str = "test") -> Batches:
        """See Data. Images for validation are transformed like test images."""
        return self._batches(self._plain[part], self._order(part, ranks))

    def _order(self, part: str, ranks: Ranks = ALONE) -> list[list[int]]:
        share = torch.arange(ranks.rank, len(self._plain[part]), ranks.size)
        return [index.tolist() for index in share.split(TEST_BATCH)]

    def _batches(self, images: Any, index_batches: Sequence[list[int]]) -> Batches:
        for batch in self._loaded(images, index_batches):
            pixels, labels = (t.to(self._device, non_blocking=True) for t in batch)
            yield self._normalise(pixels), labels

    def _loaded(self, images: Any, index_batches: Sequence[list[int]]) -> Iterator[Any]:
        """Yield (b, C, H, W) uint8 and (b,) int64 in the host's memory for b indices."""
        loader = DataLoader(
            images,
            batch_sampler=index_batches,
            num_workers=self._workers,
            pin_memory=self._device.type == "cuda",
            # A loader draws its workers' seed, by default from the generator that dropout has, too.
            generator=torch.Generator(),
        )
        try:
            yield from loader
        except UserError as error:
            kind = type(error)  # The message of one in a worker comes after its traceback.
            raise kind(str(error).rpartition(f"{kind.__name__}: ")[2].rstrip()) from None
        except (RuntimeError, OSError, EOFError) as error:
            *_, reason = (str(error) or type(error).__name__).rstrip(". \n").splitlines()
            raise Outside(
                f"a worker that reads images was killed, or cannot start ({reason}). Fewer"
                " dataset.workers or a larger /dev/shm (docker run --shm-size=1g) may help; the"
                " same command continues"
            ) from None
