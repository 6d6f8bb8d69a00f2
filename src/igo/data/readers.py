"""Files of each data set → arrays or image folders. torchvision reads the genuine formats.

What was read is kept in data_dir/cache, see igo.data.cache.
"""

from __future__ import annotations

import copy
import gzip
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igo.config.schema import DatasetConfig
from igo.data.cache import cached
from igo.errors import UserError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
ARRAYS = {"train_images", "train_labels", "test_images", "test_labels"}


@dataclass(frozen=True)
class Split:
    """Images (n, H, W, C) uint8, None where they stay on disk; labels (n,) integers."""

    images: Any
    labels: np.ndarray


def digits(data_dir: Path) -> tuple[Split, Split]:
    """scikit-learn's 1,797 digits; a fixed, stratified fifth of them (360) is the test set."""
    return _kept(data_dir, "digits", [version("scikit-learn")], _digits)


def _digits() -> tuple[Split, Split]:
    from sklearn.datasets import load_digits  # a second that others need not pay
    from sklearn.model_selection import train_test_split

    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)[..., None]
    parts = train_test_split(
        images, found.target, test_size=360, stratify=found.target, random_state=0
    )
    return Split(parts[0], parts[2]), Split(parts[1], parts[3])


def fashion_mnist(data_dir: Path) -> tuple[Split, Split]:
    """The idx files in data_dir/FashionMNIST/raw or Debian's package, else a download."""
    ours = data_dir / "FashionMNIST" / "raw"
    for folder in (ours, DEBIAN_FASHION_MNIST):
        files = [_idx_file(folder, name) for name in FASHION_MNIST_FILES]
        if all(files):
            return _kept(data_dir, "fashion_mnist", files, partial(_idx_splits, folder))
    from torchvision.datasets import FashionMNIST

    missing = next(name for name in FASHION_MNIST_FILES if not _idx_file(ours, name))
    _download(
        lambda: FashionMNIST(str(data_dir), download=True),
        f"{ours / missing} is missing",
        "install Debian's package dataset-fashion-mnist, or put Fashion-MNIST's idx files there",
    )
    return _idx_splits(ours)


def cifar10(data_dir: Path) -> tuple[Split, Split]:
    """CIFAR-10 in torchvision's format, data_dir/cifar-10-batches-py; downloaded where missing."""
    return _cifar("CIFAR10", data_dir, "cifar-10-batches-py", "cifar-10-python.tar.gz")


def cifar100(data_dir: Path) -> tuple[Split, Split]:
    """CIFAR-100 in torchvision's format, data_dir/cifar-100-python; downloaded where missing."""
    return _cifar("CIFAR100", data_dir, "cifar-100-python", "cifar-100-python.tar.gz")


READERS: dict[str, Callable[[Path], tuple[Split, Split]]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
}


def _kept(
    data_dir: Path, name: str, sources: Sequence[object], read: Callable[[], tuple[Split, Split]]
) -> tuple[Split, Split]:
    """Two splits from the cache of data_dir, or read and left there."""

    def arrays() -> dict[str, np.ndarray]:
        train, test = read()
        return {
            "train_images": train.images, "train_labels": train.labels,
            "test_images": test.images, "test_labels": test.labels,
        }  # fmt: skip

    found = cached(data_dir / "cache", name, sources, arrays)
    if not found.keys() >= ARRAYS:  # whole, and of something else
        found = arrays()
    train = Split(found["train_images"], found["train_labels"])
    return train, Split(found["test_images"], found["test_labels"])


def _cifar(kind: str, data_dir: Path, folder: str, archive: str) -> tuple[Split, Split]:
    def read() -> tuple[Split, Split]:
        from torchvision import datasets

        factory = getattr(datasets, kind)
        train = _download(
            lambda: factory(str(data_dir), train=True, download=True),
            f"{data_dir / folder} is missing or damaged",
            f"download {archive} elsewhere and unpack it in {data_dir}",
        )
        test = factory(str(data_dir), train=False)
        return Split(train.data, np.array(train.targets)), Split(test.data, np.array(test.targets))

    files = sorted((data_dir / folder).glob("*"))
    return _kept(data_dir, kind.lower(), files, read) if files else read()


def _download(get: Callable[[], Any], what: str, cure: str) -> Any:
    """Let torchvision find or download; its checksums are verified before a file is read."""
    try:
        return get()
    except (OSError, RuntimeError, HTTPException) as error:
        raise UserError(
            f"{what} and could not be downloaded ({_reason(error)}); {cure},"
            " or point data_dir=… at a folder that has it"
        ) from None


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.exists()), None)


def _idx_splits(folder: Path) -> tuple[Split, Split]:
    return _idx_split(folder, "train"), _idx_split(folder, "t10k")


def _idx_split(folder: Path, part: str) -> Split:
    images = _read_idx(folder, f"{part}-images-idx3-ubyte", dimensions=3)
    labels = _read_idx(folder, f"{part}-labels-idx1-ubyte", dimensions=1)
    if len(images) != len(labels):
        raise UserError(
            f"{folder}: {len(images)} {part} images, {len(labels)} labels; get it again"
        )
    return Split(images[..., None], labels)


def _read_idx(folder: Path, name: str, dimensions: int) -> np.ndarray:
    """One idx file, plain as torchvision reads it or compressed as Debian has it."""
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    path = _idx_file(folder, name) or folder / name
    try:
        with tempfile.NamedTemporaryFile() as plain:
            if path.suffix == ".gz":
                plain.write(gzip.decompress(path.read_bytes()))
                plain.flush()
            source = plain.name if path.suffix == ".gz" else str(path)
            values: np.ndarray = read_sn3_pascalvincent_tensor(source).numpy()
    except (OSError, EOFError, zlib.error, ValueError, RuntimeError, AssertionError, KeyError) as e:
        raise UserError(f"{path} is damaged ({_reason(e)}); get it again") from None
    if values.ndim != dimensions or values.dtype != np.uint8:
        found = f"{values.ndim}-dimensional {values.dtype}"
        raise UserError(f"{path} holds {found}, not {name}; get it again")
    return values


def _reason(error: Exception) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


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
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                path = self._folder.samples[index][0]
                return UserError(f"{path} is damaged ({_reason(error)}); get it again")
        return pixels, label


def collate(samples: list[Any]) -> Any:
    """(b, C, H, W) uint8 and labels (b,) int64; the first error if there is one."""
    errors = (sample for sample in samples if isinstance(sample, UserError))
    return next(errors, None) or torch.utils.data.default_collate(samples)


def image_folder(root: Path, transform: Callable[[Any], Tensor]) -> ImageFolder:
    """Read the class folders under root."""
    from torchvision import datasets

    try:
        return ImageFolder(datasets.ImageFolder(str(root), transform=transform))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"no images to read in {root} ({_reason(error)}); ImageNet is not"
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
