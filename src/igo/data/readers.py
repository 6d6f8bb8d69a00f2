"""Where each data set is, and its arrays; torchvision downloads and reads the published ones.

``identity.found`` finds a data set by its name, also in folders.
"""

import fcntl
import gzip
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from igo.ground.errors import Outside, UserError, first_line, reading, warn_once
from igo.ground.files import opened, replace_all

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
# A model has an output for each class up to the largest label: one of 10^9 would take all memory.
MOST_CLASSES = 2**20
ARRAYS = ("images", "labels", "test_images", "test_labels")  # An .npz has these; others are left.
TEST_SHARE = 0.2  # The user's data may come without a test set.
AT_ONCE = 1000  # The pixels of so many images are counted together.


@dataclass(frozen=True)
class Split:
    """Images (n, H, W, C) uint8; labels (n,) integers."""

    images: Any
    labels: np.ndarray

    def of(self, rows: np.ndarray) -> "Split":
        """The images with these indices (k,), and their labels."""
        return Split(self.images[rows], self.labels[rows])

    def content(self) -> Iterator[Any]:
        """Yield buffers for a fingerprint: shapes, images and labels (as int64)."""
        # The same labels in a smaller integer type are the same data.
        for array in (np.asarray(self.images), self.labels.astype(np.int64)):
            yield repr((array.shape, str(array.dtype))).encode()
            yield np.ascontiguousarray(array).data

    def pixels(self, *_: object) -> list[np.ndarray]:
        """All images, in arrays (k, H, W, C) uint8 of some AT_ONCE each."""
        return np.array_split(self.images, len(self.images) // AT_ONCE + 1)


# The first is for training, the second for testing: ``Split`` or, in folders, ``folders.Files``.
Splits = tuple[Any, Any]


@dataclass(frozen=True)
class Place:
    """Where to look for a data set, and the form that the user's own images get.

    ``root`` (a folder of images) and ``file`` (an .npz) are for the user's own data. With None as
    ``image_size`` or ``channels`` the images keep theirs.
    """

    data_dir: Path
    root: Path | None = None
    file: Path | None = None
    image_size: int | None = None
    channels: int | None = None
    download: bool = True


# Where a data set was found, an absolute path or the package that has it; then the data set.
Found = tuple[str, Splits]


class Missing(UserError):
    """A data set is not there; it was not downloaded, or could not be."""


def digits(_: Place) -> Found:
    """scikit-learn's 1,797 digits; a fixed, stratified fifth of them (360) is the test set."""
    from sklearn.datasets import load_digits  # Its import takes a second.
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # scikit-learn's pixels are from 0 to 16, and all images here are bytes.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, digits.target, test_size=360, stratify=digits.target, random_state=0
    )
    splits = Split(train_images, train_labels), Split(test_images, test_labels)
    return f"scikit-learn {version('scikit-learn')}", splits


def published(kind: str, folder: str, cure: str, place: Place) -> Found:
    """A data set of torchvision's, in its format under data_dir; downloaded if it is missing.

    Args:
        kind: the name of torchvision's class.
        folder: where torchvision keeps the files of this class, below data_dir.
        cure: what the user can do if the files are damaged or not to be had.
        place: where to look.
    """
    files = place.data_dir / folder

    def splits(download: bool) -> Splits:
        """Read both splits with torchvision, which downloads files that are missing, if asked."""
        from torchvision import datasets

        # Debian's package has the very files that torchvision would download. If they are unpacked
        # where torchvision looks, it downloads nothing.
        if download and kind == "FashionMNIST":
            files.mkdir(parents=True, exist_ok=True)
            archives = DEBIAN_FASHION_MNIST.glob("*.gz")
            replace_all({files / f.stem: gzip.decompress(f.read_bytes()) for f in archives})
        parts = []
        for is_train in (True, False):
            data = getattr(datasets, kind)(str(place.data_dir), train=is_train, download=download)
            images = np.asarray(data.data)  # (n, H, W) of grey or (n, H, W, C) of colour images
            parts.append(Split(images.reshape(*images.shape[:3], -1), np.asarray(data.targets)))
        return parts[0], parts[1]

    return str(files.resolve()), _fetched(place, files, splits, cure)


def _fetched(place: Place, files: Path, splits: Callable[[bool], Splits], cure: str) -> Splits:
    """Both splits; torchvision finds the data or, one process at a time, unpacks or downloads them.

    torchvision verifies checksums of what it downloads. ``splits`` is called with whether it may
    download. ``files`` is the folder that an error names.

    Raises:
        Missing: the data are neither there nor could be downloaded.
        Outside: the system failed, as when a disk is full; the same command may succeed later.
    """
    with suppress(Exception):  # A missing or damaged file raises errors of many kinds.
        return splits(False)
    kind: type[UserError] = Missing
    failure = ""
    if place.download:
        try:
            place.data_dir.mkdir(parents=True, exist_ok=True)
            # The lock is held until the file is closed: a second process waits here, and then
            # finds the files of the first.
            with opened(place.data_dir / ".lock", "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                return splits(True)
        except Exception as error:
            reason = " ".join(str(error).split())  # torchvision's text has several lines.
            failure = f" and could not be downloaded ({reason})"
            if reading(error) is Outside:
                kind = Outside
    raise kind(
        f"{files} is missing or damaged{failure}; {cure}, or point data_dir=… at a folder that has"
        " it"
    )


def arrays(place: Place) -> Found:
    """The user's .npz, ``dataset.file``: images and labels, with a test set or without."""
    file = place.file
    if file is None or not file.is_file():
        path = file and file.absolute()
        raise Missing(f"dataset.file={path} is missing: an .npz of images and labels, by np.savez")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            # Of other arrays only the name is kept, for the error that lists what there is.
            entries = {name: arrays[name] if name in ARRAYS else None for name in arrays}
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds.
        raise reading(error)(
            f"{file} cannot be read as an .npz, as np.savez writes it ({first_line(error)})"
        ) from None
    train = _npz_split(file, entries, "")
    if "test_images" in entries or "test_labels" in entries:
        test = _npz_split(file, entries, "test_")
    else:
        rows, test_rows = train_and_test(train.labels)
        train, test = train.of(rows), train.of(test_rows)
    _check_fit(file, train, test)
    return str(file.resolve()), (train, test)


def _check_fit(file: Path, train: Split, test: Split) -> None:
    """Refuse a test set that does not fit the training set, and classes that are not from 0 on.

    Classes between 0 and the largest that no image has are allowed, with a warning.
    """
    classes, test_classes = {*train.labels.tolist()}, {*test.labels.tolist()}
    # Classes of the test set that no training image has.
    strays = test_classes - classes
    lowest = min(classes)
    fault = ""
    if train.images.shape[1:] != test.images.shape[1:]:
        fault = "images and test_images differ in size or channels"
    elif strays:
        fault = f"test_labels has {min(strays)}, a class that labels has not"
    # Classes from 1 upwards would leave the model an output that no image has.
    elif lowest > 0:
        fault = f"labels has no 0; it has {lowest} upwards: subtract {lowest}"
    if fault:
        raise UserError(f"{file}: {fault}")
    if len(classes) <= max(classes):
        counts = f"{len(classes)} classes from 0 to {max(classes)}"
        warn_once(f"{file}: labels has {counts}; no image has the model's other outputs")


def _npz_split(file: Path, entries: dict[str, Any], prefix: str) -> Split:
    """The arrays ``{prefix}images`` and ``{prefix}labels`` of an .npz, checked.

    ``prefix`` is empty for training, and ``test_`` for testing.
    """
    for name in (f"{prefix}images", f"{prefix}labels"):
        # An .npz is a zip, which may hold any file under this name; NumPy gives its bytes.
        if not isinstance(entries.get(name), np.ndarray):
            raise UserError(f"{file} has no array {name}; it has {', '.join(entries) or 'nothing'}")
    images, labels = entries[f"{prefix}images"], entries[f"{prefix}labels"]
    are_square = images.ndim in (3, 4) and images.shape[1] == images.shape[2]
    if images.dtype != np.uint8 or not are_square or not all(images.shape[1:]):
        raise UserError(
            f"{file}: {prefix}images is {images.dtype} of shape {images.shape}; it must be uint8,"
            " (n, H, H) for grey or (n, H, H, C) for colour images"
        )
    n = len(images)
    are_whole = np.issubdtype(labels.dtype, np.integer) and labels.shape == (n,)
    # A fifth of three images is one, and of fewer none. So three have a test set in any case.
    if not are_whole or n < 3 or labels.min() < 0 or labels.max() >= MOST_CLASSES:
        raise UserError(
            f"{file}: {prefix}labels is {labels.dtype} of shape {labels.shape}; it must be a class"
            f" from 0 to {MOST_CLASSES - 1:,} for each of the {n} images, three at least"
        )
    return Split(images if images.ndim == 4 else images[..., None], labels.astype(np.int64))


def subset(labels: np.ndarray, samples: int, draw: int = 0) -> np.ndarray:
    """Sorted indices (samples,) of some samples, with the same share of each class.

    Args:
        labels: (n,) of all samples.
        samples: how many to choose, at most n.
        draw: the seed that chooses them.
    """
    if samples == len(labels):
        return np.arange(len(labels))
    order = np.random.default_rng(draw).permutation(len(labels))
    # Each sample gets a number in [0, 1]. Those of a class are evenly spread, in random order. So
    # the samples with the smallest numbers have the same share of each class.
    numbers = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        numbers[members] = (np.arange(len(members)) + 0.5) / len(members)
    # Classes of one size have equal numbers; a stable sort leaves these in their random order.
    return np.sort(order[np.argsort(numbers[order], kind="stable")][:samples])


def train_and_test(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on, and those of the test set: a fifth of each class, always the same."""
    test = subset(labels, round(TEST_SHARE * len(labels)))
    return np.delete(np.arange(len(labels)), test), test


CIFAR = "download cifar-{}-python.tar.gz elsewhere and unpack it in data_dir"
CLOTHES = "delete it, then put the idx files there or install Debian's dataset-fashion-mnist"
READERS: dict[str, Callable[[Place], Found]] = {
    "digits": digits,
    "fashion_mnist": partial(published, "FashionMNIST", "FashionMNIST/raw", CLOTHES),
    "cifar10": partial(published, "CIFAR10", "cifar-10-batches-py", CIFAR.format(10)),
    "cifar100": partial(published, "CIFAR100", "cifar-100-python", CIFAR.format(100)),
    "arrays": arrays,
}
NAMES = (*READERS, "folder", "imagenet")  # igo.data.folders reads the last two.
