"""Reads each data set as arrays, which are kept; torchvision knows the formats."""

from __future__ import annotations

import gzip
import inspect
import tempfile
import zlib
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from igo.data import cache, facts, npz
from igo.data.source import Place, Source, Split, Splits, missing, one_line
from igo.ground.errors import UserError
from igo.ground.files import sha256_of

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def read(name: str, place: Place) -> Splits:
    """The two splits of a data set, as an earlier call has kept them, or read.

    Raises:
        Missing: the data set is not there.
    """
    source = READERS[name](place)

    def make() -> cache.Arrays:
        train, test = source.read()
        _check_split(name, train)
        _check_split(name, test)
        return dict(
            zip(ARRAYS, (train.images, train.labels, test.images, test.labels), strict=True)
        )

    file = place.cache / f"{name}-{cache.digest(*source.parts, code_of(name))}.npz"
    kept = cache.kept(file, ARRAYS, make)
    train, test = (
        Split(kept[f"{part}_images"], kept[f"{part}_labels"]) for part in ("train", "test")
    )
    return train, test


def find_facts(name: str, place: Place) -> facts.Facts:
    """The facts ``facts.NAMES`` of a data set, as in conf/dataset; found once for the same files.

    Raises:
        Missing: the data set is not there.
    """
    if name == "folder":
        from igo.data import folders  # imports torch

        return folders.facts(place)
    sources = *READERS[name](place).parts, code_of(name), facts.NAMES
    file = place.cache / f"{name}-facts-{cache.digest(*sources)}.npz"
    return dict(cache.remembered(file, lambda: facts.of_arrays(read(name, place))))


def code_of(name: str) -> str:
    """A digest of a reader's file: if the code changes, the data set is read again."""
    reader = READERS[name]
    function = reader.func if isinstance(reader, partial) else reader
    return sha256_of(Path(inspect.getfile(function)))[:16]


def _check_split(name: str, split: Split) -> None:
    images, labels = split.images, split.labels
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(
            f"the reader {name!r} returned images {images.dtype} {images.shape}; they must be uint8"
            " (n, H, W, C)"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise UserError(
            f"the reader {name!r} returned labels {labels.dtype} {labels.shape}; they must be"
            f" integers, one for each of {len(images)} images"
        )


def digits(_: Place) -> Source:
    """scikit-learn's 1,797 digits; a fixed, stratified fifth of them (360) is the test set."""
    package = version("scikit-learn")
    return Source(f"scikit-learn {package}", (package,), _digits)


def _digits() -> Splits:
    from sklearn.datasets import load_digits  # here, as its import takes a second
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    parts = train_test_split(
        images, digits.target, test_size=360, stratify=digits.target, random_state=0
    )
    return Split(parts[0], parts[2]), Split(parts[1], parts[3])


def fashion_mnist(place: Place) -> Source:
    """The idx files in data_dir/FashionMNIST/raw or Debian's package, else a download."""
    ours = place.data_dir / "FashionMNIST" / "raw"
    for folder in (ours, DEBIAN_FASHION_MNIST):
        if all(_idx_file(folder, name) for name in FASHION_MNIST_FILES):
            return _idx_source(folder)
    missing_file = next(name for name in FASHION_MNIST_FILES if not _idx_file(ours, name))
    problem = f"{ours / missing_file} is missing"
    cure = "install Debian's package dataset-fashion-mnist, or put Fashion-MNIST's idx files there"
    if not place.download:
        raise missing(place, problem, cure)
    from torchvision.datasets import FashionMNIST

    _fetched(place, lambda: FashionMNIST(str(place.data_dir), download=True), problem, cure)
    return _idx_source(ours)


def cifar10(place: Place) -> Source:
    """CIFAR-10 in torchvision's format, data_dir/cifar-10-batches-py; downloaded if missing."""
    return _cifar("CIFAR10", place, "cifar-10-batches-py", "cifar-10-python.tar.gz")


def cifar100(place: Place) -> Source:
    """CIFAR-100 in torchvision's format, data_dir/cifar-100-python; downloaded if missing."""
    return _cifar("CIFAR100", place, "cifar-100-python", "cifar-100-python.tar.gz")


def folder(place: Place) -> Source:
    """The user's images in class folders, if they fit in memory."""
    from igo.data import folders  # imports torch

    return folders.source(place)


READERS: dict[str, Callable[[Place], Source]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "arrays": npz.source,
    "folder": folder,
}
NAMES = (*READERS, "imagenet")  # ImageNet is never read into memory


def _cifar(kind: str, place: Place, folder: str, archive: str) -> Source:
    inside = place.data_dir / folder
    problem = f"{inside} is missing or damaged"
    cure = f"download {archive} elsewhere and unpack it in {place.data_dir}"

    def get(train: bool) -> Any:
        from torchvision import datasets

        torchvision_data = partial(getattr(datasets, kind), str(place.data_dir), train=train)
        return _fetched(place, lambda: torchvision_data(download=place.download), problem, cure)

    def read() -> Splits:
        train, test = get(True), get(False)
        return Split(train.data, np.array(train.targets)), Split(test.data, np.array(test.targets))

    if not any(inside.glob("*")):
        if not place.download:
            raise missing(place, problem, cure)
        get(True)
    return Source(str(inside), tuple(sorted(inside.glob("*"))), read)


def _fetched(place: Place, get: Callable[[], Any], problem: str, cure: str) -> Any:
    """Let torchvision find or download the data; it verifies checksums before it reads a file."""
    try:
        return get()
    except (OSError, RuntimeError, HTTPException) as error:
        failed = f" and could not be downloaded ({one_line(error)})" if place.download else ""
        raise missing(place, f"{problem}{failed}", cure) from None


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _idx_source(folder: Path) -> Source:
    files = tuple(_idx_file(folder, name) for name in FASHION_MNIST_FILES)
    return Source(str(folder), files, partial(_idx_splits, folder))


def _idx_splits(folder: Path) -> Splits:
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
    """Read an idx file, plain like torchvision's or compressed like Debian's."""
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
        raise UserError(f"{path} is damaged ({one_line(e)}); get it again") from None
    if values.ndim != dimensions or values.dtype != np.uint8:
        content = f"{values.ndim}-dimensional {values.dtype}"
        raise UserError(f"{path} holds {content}, not {name}; get it again")
    return values
