"""Where each data set is, and its arrays; torchvision downloads, and knows CIFAR's files."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from igo.ground.errors import UserError, first_line, reading

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MOST_CLASSES = 2**20
TEST_SHARE = 0.2  # for the user's data without a test set


@dataclass(frozen=True)
class Split:
    """Images (n, H, W, C) uint8; labels (n,) integers."""

    images: Any
    labels: np.ndarray


Splits = tuple[Split, Split]  # for training, for testing


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

    @property
    def cache(self) -> Path:
        """The folder of cached data sets."""
        return self.data_dir / "cache"


@dataclass(frozen=True)
class Source:
    """A data set that was found.

    Args:
        where: a path, or the package that has it; for the user.
        parts: what its content depends on: files (their size, times and inode number) or versions.
        read: reads it.
    """

    where: str
    parts: tuple[object, ...]
    read: Callable[[], Splits]


class Missing(UserError):
    """A data set is not there; it was not downloaded, or could not be."""


def read(name: str, place: Place) -> Splits:
    """The two splits of a data set.

    Raises:
        Missing: the data set is not there.
    """
    return READERS[name](place).read()


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
    folder = DEBIAN_FASHION_MNIST if _absent(ours) and not _absent(DEBIAN_FASHION_MNIST) else ours
    if absent := _absent(folder):

        def fetch(download: bool) -> None:
            from torchvision.datasets import FashionMNIST

            FashionMNIST(str(place.data_dir), download=download)

        cure = "install Debian's package dataset-fashion-mnist, or put Fashion-MNIST's idx files"
        _fetched(place, fetch, f"{ours / absent[0]} is missing", f"{cure} there")
    files = [_idx_file(folder, name) for name in FASHION_MNIST_FILES]

    def split(images_file: Path, labels_file: Path) -> Split:
        images, labels = _idx(images_file, 3), _idx(labels_file, 1)
        if len(images) != len(labels):
            raise UserError(f"{folder}: {len(images)} images, {len(labels)} labels; get it again")
        return Split(images[..., None], labels)

    return Source(str(folder), tuple(files), lambda: (split(*files[:2]), split(*files[2:])))


def _absent(folder: Path) -> list[str]:
    return [name for name in FASHION_MNIST_FILES if not _idx_file(folder, name).is_file()]


def _idx_file(folder: Path, name: str) -> Path:
    """The file, plain like torchvision's or compressed like Debian's."""
    return folder / name if (folder / name).is_file() else folder / f"{name}.gz"


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """An idx file: two zero bytes, the type (8: uint8), the dimensions, their sizes, the values."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        if content[:4] != bytes([0, 0, 8, dimensions]):
            raise ValueError(f"it does not begin like {dimensions}-dimensional uint8")
        start = 4 + 4 * dimensions
        shape = np.frombuffer(content[4:start], ">i4")
        return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise reading(error)(f"{path} is damaged ({first_line(error)}); get it again") from None


def cifar(kind: str, folder: str, archive: str, place: Place) -> Source:
    """CIFAR-10 or -100 in torchvision's format under data_dir; downloaded if missing."""
    inside = place.data_dir / folder

    def get(train: bool) -> Any:
        from torchvision import datasets

        make = partial(getattr(datasets, kind), str(place.data_dir), train=train)
        cure = f"download {archive} elsewhere and unpack it in {place.data_dir}"
        return _fetched(place, lambda d: make(download=d), f"{inside} is missing or damaged", cure)

    def splits() -> Splits:
        train, test = get(True), get(False)
        return Split(train.data, np.array(train.targets)), Split(test.data, np.array(test.targets))

    if not any(inside.glob("*")):
        get(True)
    return Source(str(inside), tuple(sorted(inside.glob("*"))), splits)


def _fetched(place: Place, get: Callable[[bool], Any], problem: str, cure: str) -> Any:
    """Let torchvision find the data or, in one process at a time, download them.

    It verifies checksums before it reads a file. ``get`` is told whether it may download.
    """
    failed = ""
    with suppress(OSError, RuntimeError):
        return get(False)
    if place.download:
        try:
            place.data_dir.mkdir(parents=True, exist_ok=True)
            with (place.data_dir / ".lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                return get(True)
        except (OSError, RuntimeError, HTTPException) as error:
            reason = " ".join(str(error).split())  # torchvision's has several lines
            failed = f" and could not be downloaded ({reason})"
    raise Missing(f"{problem}{failed}; {cure}, or point data_dir=… at a folder that has it")


def arrays(place: Place) -> Source:
    """The user's .npz, ``dataset.file``: images and labels, with a test set or without."""
    file = place.file
    if file is None:
        raise Missing("dataset=arrays needs dataset.file, an .npz of images and labels")
    if not file.is_file():
        raise Missing(f"dataset.file={file} is missing")
    return Source(str(file), (file,), partial(_npz, file))


def _npz(file: Path) -> Splits:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            held = dict(arrays)
    except Exception as error:  # of zipfile, zlib, NumPy
        raise reading(error)(f"{file} cannot be read ({first_line(error)})") from None
    train, test = _npz_split(file, held, ""), None
    if "test_images" in held or "test_labels" in held:
        test = _npz_split(file, held, "test_")
        if train.images.shape[1:] != test.images.shape[1:]:
            raise UserError(f"{file}: images and test_images differ in size or channels")
        if new := {*test.labels.tolist()} - {*train.labels.tolist()}:
            raise UserError(f"{file}: test_labels has {min(new)}, a class that labels has not")
    low = min(split.labels.min() for split in (train, test or train))
    if low > 0:
        raise UserError(f"{file}: labels has no 0; it has {low} upwards: subtract {low}")
    if test is None:
        kept, tested = (
            Split(train.images[i], train.labels[i]) for i in train_and_test(train.labels)
        )
        return kept, tested
    return train, test


def _npz_split(file: Path, held: dict[str, np.ndarray], prefix: str) -> Split:
    images, labels = f"{prefix}images", f"{prefix}labels"
    for name in (images, labels):
        if name not in held:
            raise UserError(f"{file} has no {name}; it has {', '.join(held) or 'nothing'}")
    pixels, classes = held[images], held[labels]
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[1] != pixels.shape[2]:
        raise UserError(
            f"{file}: {images} is {pixels.dtype} of shape {pixels.shape}; it must be uint8, (n,"
            " H, H) for grey or (n, H, H, C) for colour images"
        )
    whole = np.issubdtype(classes.dtype, np.integer) and classes.shape == (len(pixels),)
    if not whole or len(pixels) < 2 or classes.min() < 0 or classes.max() >= MOST_CLASSES:
        raise UserError(
            f"{file}: {labels} is {classes.dtype} of shape {classes.shape}; it must be a class from"
            f" 0 to {MOST_CLASSES - 1:,} for each of the {len(pixels)} images, two at least"
        )
    return Split(pixels if pixels.ndim == 4 else pixels[..., None], classes.astype(np.int64))


def stamp(file: str | Path) -> tuple[int, ...]:
    """What identifies a file's content: `cp -p` and tar keep size and time, not the rest."""
    facts = Path(file).stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def digest(*sources: object) -> str:
    """Twelve digits of a SHA-256: of files (their size, times and inode), arrays and values."""
    known = hashlib.sha256()
    for source in sources:
        if isinstance(source, Path):
            known.update(repr((str(source.resolve()), stamp(source))).encode())
        elif isinstance(source, np.ndarray):
            known.update(np.ascontiguousarray(source).data)
        else:
            known.update(repr(source).encode())
    return known.hexdigest()[:12]


def subset(labels: np.ndarray, samples: int, draw: int = 0) -> np.ndarray:
    """Sorted indices of a part with the same share of each class; it depends on ``draw`` alone."""
    if samples == len(labels):
        return np.arange(len(labels))
    order = np.random.default_rng(draw).permutation(len(labels))
    rank = np.empty(len(labels))  # position of each sample within its class, from 0 to 1
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(order[np.argsort(rank[order], kind="stable")][:samples])


def train_and_test(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on, and those of a fixed fifth of each class as the test set."""
    test = subset(labels, round(TEST_SHARE * len(labels)))
    return np.delete(np.arange(len(labels)), test), test


READERS: dict[str, Callable[[Place], Source]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "cifar10": partial(cifar, "CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": partial(cifar, "CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz"),
    "arrays": arrays,
}
FOLDERS = ("folder", "imagenet")  # see igo.data.folders
NAMES = (*READERS, *FOLDERS)
