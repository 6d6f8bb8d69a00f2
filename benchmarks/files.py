"""The data_dir that every contender reads: real images, in the data sets' own file formats.

Fashion-MNIST's idx files hold its own images. The CIFAR-100 files hold Fashion-MNIST too, resized
to 32x32x3 and with its ten labels. CIFAR itself would need a download, and a benchmark needs only
its reader, its shape and its augmentation. torchvision's checksums are replaced by those of the
files.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TRAIN, TEST = 20_000, 1_000  # so many images of Fashion-MNIST


def write(data_dir: Path) -> None:
    """Write both data sets from this machine's Fashion-MNIST."""
    from igo.data import readers
    from igo.data.readers import Place, Split

    train, test = readers.read("fashion_mnist", Place(Path("data")))
    train = Split(train.images[:TRAIN], train.labels[:TRAIN])
    test = Split(test.images[:TEST], test.labels[:TEST])
    raw = data_dir / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, split in (("train", train), ("t10k", test)):
        _write_idx(raw / f"{part}-images-idx3-ubyte", split.images[..., 0])
        _write_idx(raw / f"{part}-labels-idx1-ubyte", split.labels)
    folder = data_dir / "cifar-100-python"
    folder.mkdir()
    for part, split in (("train", train), ("test", test)):
        rows, labels = _cifar_rows(split.images[:10_000]), split.labels[:10_000].tolist()
        _pickle(folder / part, {"data": rows, "fine_labels": labels})
    _pickle(folder / "meta", {"fine_label_names": [str(label) for label in range(10)]})


def accept(data_dir: Path) -> None:
    """Make torchvision in this process accept the CIFAR-100 files of data_dir."""
    from torchvision.datasets import CIFAR100

    dataset: Any = CIFAR100
    folder = data_dir / dataset.base_folder
    if folder.is_dir():
        dataset.train_list = [["train", _md5(folder / "train")]]
        dataset.test_list = [["test", _md5(folder / "test")]]
        dataset.meta = {**dataset.meta, "md5": _md5(folder / "meta")}


def _write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + np.ascontiguousarray(values, dtype=np.uint8).tobytes())


def _cifar_rows(images: np.ndarray) -> np.ndarray:
    """(n, 28, 28, 1) to CIFAR's rows (n, 3072): red, green and blue planes of 32x32."""
    large_images = [np.asarray(Image.fromarray(image[..., 0]).resize((32, 32))) for image in images]
    return np.repeat(np.stack(large_images)[:, None], 3, axis=1).reshape(len(images), -1)


def _pickle(path: Path, entries: dict[str, object]) -> None:
    path.write_bytes(pickle.dumps(entries, protocol=2))


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()
