"""Data sets as files: small ones in the genuine formats, written byte by byte, and one's own."""

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

TRAIN, TEST = 20, 10  # images


def pixels(n: int, seed: int) -> np.ndarray:
    return default_rng(seed).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)


def write_cifar(data_dir: Path, classes: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The whole folder of CIFAR-10 or -100 with few images, without checksums."""
    dataset: Any = CIFAR10 if classes == 10 else CIFAR100
    labels_key = "labels" if classes == 10 else "fine_labels"
    folder = data_dir / dataset.base_folder
    folder.mkdir(parents=True)
    names = [name for name, _ in dataset.train_list]
    samples_per_file = TRAIN // len(names)
    for i, name in enumerate([*names, dataset.test_list[0][0]]):
        n, first_sample = (TEST, 0) if i == len(names) else (samples_per_file, i * samples_per_file)
        images = pixels(n, seed=i)
        labels = [(first_sample + j) * (classes - 1) // (TRAIN - 1) for j in range(n)]
        entries: dict[str, Any] = {labels_key: labels, "data": images.reshape(n, 3072)}
        (folder / name).write_bytes(pickle.dumps(entries, protocol=2))
    names_of_classes = [f"class {c}" for c in range(classes)]
    known_classes = {dataset.meta["key"]: names_of_classes}
    (folder / dataset.meta["filename"]).write_bytes(pickle.dumps(known_classes, protocol=2))
    monkeypatch.setattr(
        "torchvision.datasets.cifar.check_integrity", lambda file, _: Path(file).exists()
    )
    return folder


def write_idx(path: Path, values: np.ndarray) -> None:
    """Two zero bytes, the type (8: uint8), the dimensions, big-endian sizes, the values."""
    content = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}i", *values.shape)
    content += values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def clothes(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = default_rng((n, seed))
    return draw.integers(0, 256, (n, 28, 28)), draw.permutation(np.arange(n) % 10)


def write_fashion(folder: Path, suffix: str = "", *, seed: int = 0, n: int = TRAIN) -> None:
    """A small Fashion-MNIST; another seed, other pixels and labels."""
    for part, count in (("train", n), ("t10k", TEST)):
        images, labels = clothes(count, seed)
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)


def write_npz(file: Path, *, n: int = 60, shape: tuple[int, ...] = (8, 8), test: int = 0) -> Path:
    draw = default_rng(n)
    arrays = {
        "images": draw.integers(0, 200, (n, *shape), dtype=np.uint8),
        "labels": np.arange(n) % 3,
    }
    if test:
        arrays["test_images"] = draw.integers(0, 200, (test, *shape), dtype=np.uint8)
        arrays["test_labels"] = np.arange(test) % 3
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file


def write_images(root: Path, val: int) -> Path:
    draw = default_rng(0)
    for part, n in (("train", 20), ("val", val)):
        for label in ("cat", "cow", "dog"):
            (root / part / label).mkdir(parents=True)
            for number in range(n):
                pixels = draw.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / label / f"{number:03}.png")
    return root
