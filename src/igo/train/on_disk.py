"""Images that stay in folders, as batches on the device: torchvision's transforms, a DataLoader."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, dataloader
from torch.utils.data._utils import signal_handling
from torchvision import transforms

from igo.config.schema import DatasetConfig
from igo.data import folders
from igo.data.readers import Split
from igo.ground.errors import Outside, UserError
from igo.ground.ranks import allowed_cores
from igo.loop.seeded import Indices, Seeded
from igo.train.on_device import Batches, Data, Normalise

MOST_WORKERS = 16  # the most that dataset.workers=null takes
# Two private names of PyTorch, tried with torch 2.9 to 2.13, and 2.15.
# 1. When a worker dies, PyTorch's handler of SIGCHLD raises a RuntimeError in the main thread, at
#    whatever line it is. DiskData reports a dead worker where it reads, so PyTorch is told that
#    its handler is installed already. It can go when DataLoader has an option for this.
signal_handling._SIGCHLD_handler_set = True
# 2. If a signal comes while an iterator starts its workers, its clean-up reads `_workers_status`,
#    which is not set yet, and the workers that live are not ended. So the class has a default. It
#    can go when `__init__` sets it before the first worker starts.
dataloader._MultiProcessingDataLoaderIter._workers_status = [True] * 1024


class DiskData(Data):
    """Images of dataset=folder or dataset=imagenet, decoded anew in each pass."""

    device = torch.device("cpu")  # Workers decode the images there.
    test_batch = 125  # Photographs are large.

    def __init__(
        self, dataset: DatasetConfig, parts: Mapping[str, folders.Files], device: torch.device
    ) -> None:
        self._batch_device = device
        self.sizes = {name: len(images) for name, images in parts.items()}
        self._normalise = Normalise(dataset, device)
        most_workers = min(allowed_cores(), MOST_WORKERS)
        self._workers = most_workers if dataset.workers is None else dataset.workers
        size, augment = dataset.image_size, dataset.augment
        plain = folders.plain(dataset.name, size, dataset.channels)  # transforms of a test image
        self._plain = {name: files.transformed(*plain) for name, files in parts.items()}
        crop = [*plain, transforms.RandomCrop(size, padding=augment.crop)]
        if dataset.name == "imagenet":
            # As is usual for ImageNet, one random crop and resize takes the place of the resize and
            # the crop with which ``plain`` ends.
            crop = [*plain[:-2], transforms.RandomResizedCrop(size, antialias=True)]
        flip = transforms.RandomHorizontalFlip(0.5 if augment.flip else 0)
        rotation = transforms.RandomRotation(augment.rotation)
        self._augmented = Seeded(parts["train"].transformed(*crop, flip, rotation))

    def decoded(self, part: str) -> Split:
        """All images of a part as arrays, decoded as test images are."""
        rows = torch.arange(self.sizes[part]).split(self.test_batch)
        images, labels = zip(*self._loaded(self._plain[part], rows), strict=True)
        return Split(torch.cat(images).permute(0, 2, 3, 1).numpy(), torch.cat(labels).numpy())

    def train_batches(self, index_batches: Sequence[Tensor], seed: int) -> Batches:
        """See Data. An image's augmentation depends on the seed and its index, see Seeded."""
        return self._batches(self._augmented, index_batches, seed)

    def plain_batches(self, index_batches: Sequence[Tensor], part: str = "train") -> Batches:
        """See Data. All parts are transformed like test images."""
        return self._batches(self._plain[part], index_batches)

    def _batches(self, images: Any, index_batches: Sequence[Tensor], seed: int = 0) -> Batches:
        """Yield batches of some images, a data set for a DataLoader, normalised on the device."""
        for batch in self._loaded(images, index_batches, seed):
            pixels, labels = (t.to(self._batch_device, non_blocking=True) for t in batch)
            yield self._normalise(pixels), labels

    def _loaded(self, images: Any, index_batches: Sequence[Tensor], seed: int = 0) -> Iterator[Any]:
        """Yield (b, C, H, W) uint8 and (b,) int64 in the host's memory for b indices.

        Raises:
            UserError: an image cannot be read.
            Outside: a worker was killed, or cannot start.
        """
        batches = [Indices(index.tolist()) for index in index_batches]
        for batch in batches:
            # Seeded draws by seed and epoch. The seed itself is another in each epoch.
            batch.seed, batch.epoch = seed, 0
        loader = DataLoader(
            images,
            batch_sampler=batches,
            num_workers=self._workers,
            pin_memory=self._batch_device.type == "cuda",
            # A loader draws its workers' seed, by default from the generator that dropout has, too.
            generator=torch.Generator(),
        )
        try:
            yield from loader
        except UserError as error:
            # PyTorch puts the traceback of a worker before the message of its error.
            kind = type(error)
            raise kind(str(error).rpartition(f"{kind.__name__}: ")[2].rstrip()) from None
        except (RuntimeError, OSError, EOFError) as error:  # A worker has died, or cannot start.
            *_, reason = (str(error) or type(error).__name__).rstrip(". \n").splitlines()
            raise Outside(
                f"a worker that reads images was killed, or cannot start ({reason}). Fewer"
                " dataset.workers or a larger /dev/shm (docker run --shm-size=1g) may help; the"
                " same command continues"
            ) from None
