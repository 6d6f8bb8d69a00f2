"""Where each data set is, and its arrays; torchvision downloads and reads the published ones."""

import fcntl
import gzip
from collections.abc import Callable
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


@dataclass(frozen=True)
class Split:
    """Images (n, H, W, C) uint8; labels (n,) integers."""

    images: Any
    labels: np.ndarray

    def of(self, rows: np.ndarray) -> "Split":
        """The images with these indices (k,), and their labels."""
        return Split(self.images[rows], self.labels[rows])


Splits = tuple[Split, Split]  # The first is for training, the second for testing.


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


# A data set, and before it where it was found: an absolute path, or the package that has it.
Found = tuple[str, Splits]


class Missing(UserError):
    """A data set is not there; it was not downloaded, or could not be."""


def read(name: str, place: Place) -> Splits:
    """The two splits of a data set.

    Raises:
        Missing: the data set is not there.
    """
    _, splits = READERS[name](place)
    return splits


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
        folder: of its files, below data_dir.
        cure: what the user can do if they are damaged or not to be had.
        place: where to look.
    """
    files = place.data_dir / folder

    def splits(download: bool) -> Splits:
        from torchvision import datasets

        # Debian's package has the very files that torchvision would download.
        if download and kind == "FashionMNIST":
            files.mkdir(parents=True, exist_ok=True)
            archives = DEBIAN_FASHION_MNIST.glob("*.gz")
            replace_all({files / f.stem: gzip.decompress(f.read_bytes()) for f in archives})
        parts = []
        for is_train in (True, False):
            data = getattr(datasets, kind)(str(place.data_dir), train=is_train, download=download)
            images = np.asarray(data.data)
            parts.append(Split(images.reshape(*images.shape[:3], -1), np.asarray(data.targets)))
        return parts[0], parts[1]

    return str(files.resolve()), _fetched(place, files, splits, cure)


def _fetched(place: Place, files: Path, splits: Callable[[bool], Splits], cure: str) -> Splits:
    """Let torchvision find the data or, in one process at a time, unpack or download them.

    It verifies checksums of what it downloads. ``splits`` is told whether it may download.
    """
    kind: type[UserError] = Missing
    failure = ""
    with suppress(Exception):  # A damaged file raises errors of many kinds.
        return splits(False)
    if place.download:
        try:
            place.data_dir.mkdir(parents=True, exist_ok=True)
            with opened(place.data_dir / ".lock", "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                return splits(True)
        except Exception as error:
            reason = " ".join(str(error).split())  # torchvision's text has several lines.
            failure = f" and could not be downloaded ({reason})"
            kind = Outside if reading(error) is Outside else Missing
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
        if not len(test_rows):
            raise UserError(
                f"{file}: a fifth of {len(train.labels)} images is no test set; add test_images and"
                " test_labels"
            )
        train, test = train.of(rows), train.of(test_rows)
    _check_fit(file, train, test)
    return str(file.resolve()), (train, test)


def _check_fit(file: Path, train: Split, test: Split) -> None:
    """Refuse a test set that does not fit the training set, and classes that are not from 0 on."""
    classes, test_classes = {*train.labels.tolist()}, {*test.labels.tolist()}
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
    """The arrays ``{prefix}images`` and ``{prefix}labels`` of an .npz, checked."""
    for name in (f"{prefix}images", f"{prefix}labels"):
        if not isinstance(entries.get(name), np.ndarray):  # A zip may hold any file.
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
    if not are_whole or n < 2 or labels.min() < 0 or labels.max() >= MOST_CLASSES:
        raise UserError(
            f"{file}: {prefix}labels is {labels.dtype} of shape {labels.shape}; it must be a class"
            f" from 0 to {MOST_CLASSES - 1:,} for each of the {n} images, two at least"
        )
    return Split(images if images.ndim == 4 else images[..., None], labels.astype(np.int64))


def subset(labels: np.ndarray, samples: int, draw: int = 0) -> np.ndarray:
    """Sorted indices of so many samples, with the same share of each class.

    ``draw`` is the seed that chooses them.
    """
    if samples == len(labels):
        return np.arange(len(labels))
    order = np.random.default_rng(draw).permutation(len(labels))
    # Each class is spread evenly over [0, 1], in random order. So the samples with the smallest
    # places have the same share of each class.
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(order[np.argsort(place[order], kind="stable")][:samples])


def train_and_test(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on, and those of a fixed fifth of each class as the test set."""
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
FOLDERS = ("folder", "imagenet")  # igo.data.folders reads them.
NAMES = (*READERS, *FOLDERS)
