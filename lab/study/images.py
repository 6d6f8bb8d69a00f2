"""The images of the studies as .npz files in data/, for dataset=arrays."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from igo.data.folders import opened
from igo.data.readers import read
from igo.data.source import Place
from igo.ground.errors import UserError
from igo.ground.files import durable, partial_of

CIFAR100 = Path("data/cifar100.npz")
FASHION_MNIST_14 = Path("data/fashion_mnist_14.npz")  # as in conf/experiment/exchange.yaml
SPLITS = {"": "train", "test_": "test"}  # by prefix in the .npz
Named = tuple[Sequence[np.ndarray], list[tuple[str, str]]]  # images, (class, file name) of each


def cifar100(words: list[str]) -> None:
    """Write CIFAR-100 as CIFAR100, ordered by the names of classes, and in a class by file names.

    The folder in `words`, else data, has train/CLASS/NAME.png and test/CLASS/NAME.png with the
    names of the original files, or those files, which torchvision downloads if they are missing.
    Both give the same arrays. The labels count the classes in the order of their names.
    """
    folder = Path(words[0] if words else "data")
    reader = _of_class_folders if (folder / "train").is_dir() else _of_original_files
    splits = list(reader(folder))
    classes = sorted({class_name for class_name, _ in splits[0][1]})
    arrays = {}
    for prefix, (images, names) in zip(SPLITS, splits, strict=True):
        order = sorted(range(len(names)), key=names.__getitem__)
        arrays[f"{prefix}images"] = np.stack([images[i] for i in order])
        arrays[f"{prefix}labels"] = np.array([classes.index(names[i][0]) for i in order])
    _write(CIFAR100, arrays)


def _of_class_folders(folder: Path) -> Iterator[Named]:
    for split in SPLITS.values():
        files = list((folder / split).glob("*/*.png"))
        if not files:
            raise UserError(f"{folder / split} has no CLASS/NAME.png")
        images = [np.asarray(opened(file, "RGB")) for file in files]
        yield images, [(file.parent.name, file.name) for file in files]


def _of_original_files(folder: Path) -> Iterator[Named]:
    verified = read("cifar100", Place(folder))
    for name, split in zip(SPLITS.values(), verified, strict=True):
        held, meta = (
            pickle.loads((folder / "cifar-100-python" / file).read_bytes(), encoding="latin1")
            for file in (name, "meta")
        )
        classes = [meta["fine_label_names"][label] for label in split.labels]
        yield split.images, list(zip(classes, held["filenames"], strict=True))


def fashion_mnist_14(_: list[str]) -> None:
    """Write Fashion-MNIST at half its size: each pixel is the mean of 2×2, rounded."""
    arrays = {}
    for prefix, split in zip(SPLITS, read("fashion_mnist", Place(Path("data"))), strict=True):
        squares = split.images.reshape(-1, 14, 2, 14, 2, 1)
        arrays[f"{prefix}images"] = np.rint(squares.mean(axis=(2, 4))).astype(np.uint8)
        arrays[f"{prefix}labels"] = split.labels
    _write(FASHION_MNIST_14, arrays)


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable(partial_of(path)) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    partial_of(path).replace(path)
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    print(f"{path}: {shapes}")
