"""The readers on small files in the genuine formats, written here byte by byte; no network."""

import errno
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damages import ANY, Damage, written
from data_files import TEST, TRAIN, clothes, pixels, write_cifar, write_fashion, write_idx
from PIL import Image
from torchvision.datasets import CIFAR10, FashionMNIST

from igo.data import identity, readers
from igo.data.folders import image_in
from igo.data.readers import Missing, Place, Splits
from igo.ground.errors import Outside, UserError

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
DAMAGES: dict[str, Damage] = {
    **ANY,
    "changed": lambda file: file.write_bytes(file.read_bytes()[::-1]),
    "header": written(b"\0\0\x08\x03\0\0"),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"x"),
    "labels": lambda file: write_idx(file, np.arange(TRAIN) % 10),
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be reached, and Debian's Fashion-MNIST is not installed."""

    def urlopen(*_: Any, **__: Any) -> Any:
        raise urllib.error.URLError(OSError(101, "Network is unreachable"))

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(readers, "DEBIAN_FASHION_MNIST", Path("/nonexistent"))


def test_cifar_files_are_read_as_their_authors_wrote_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for classes in (10, 100):
        write_cifar(tmp_path, classes, monkeypatch)
        train, test = identity.read(f"cifar{classes}", Place(tmp_path))
        files = 5 if classes == 10 else 1
        images = np.concatenate([pixels(TRAIN // files, seed=i) for i in range(files)])
        assert train.images.dtype == np.uint8
        np.testing.assert_array_equal(train.images, images.transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(test.images, pixels(TEST, files).transpose(0, 2, 3, 1))
        spread = [j * (classes - 1) // (TRAIN - 1) for j in range(TRAIN)]
        np.testing.assert_array_equal(train.labels, spread)
        np.testing.assert_array_equal(test.labels, spread[:TEST])


@pytest.mark.parametrize(
    ("name", "damage"),
    [("data_batch_3", "torn"), ("test_batch", "changed"), ("batches.meta", "missing")],
)
def test_damaged_cifar_files_are_noticed(
    name: str, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cifar(tmp_path, 10, monkeypatch)
    DAMAGES[damage](folder / name)
    with pytest.raises(UserError, match=rf"{folder}.*missing or damaged.*cifar-10-python.tar.gz"):
        identity.read("cifar10", Place(tmp_path))


def check_fashion(splits: Splits) -> None:
    for split, n in zip(splits, (TRAIN, TEST), strict=True):
        images, labels = clothes(n)
        assert split.images.dtype == np.uint8
        np.testing.assert_array_equal(split.images, images[..., None])
        np.testing.assert_array_equal(split.labels, labels)


@pytest.mark.parametrize("interrupted", [False, True])
def test_fashion_mnist_is_debians_or_downloaded(
    interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one file is there, and the beginning of the next one."""
    write_fashion(tmp_path / "packed", ".gz")
    for place in ("debians", "ours") * interrupted:
        raw = tmp_path / place / "FashionMNIST" / "raw"
        write_idx(raw / IDX[0], clothes(TRAIN)[0])
        (raw / IDX[1]).write_bytes(b"\0\0\x08")
    with monkeypatch.context() as patched:
        patched.setattr(readers, "DEBIAN_FASHION_MNIST", tmp_path / "packed")
        check_fashion(identity.read("fashion_mnist", Place(tmp_path / "debians")))
    check_fashion(identity.read("fashion_mnist", Place(tmp_path / "debians")))  # They are kept.
    monkeypatch.setattr(FashionMNIST, "download", lambda s: write_fashion(Path(s.raw_folder)))
    check_fashion(identity.read("fashion_mnist", Place(tmp_path / "ours")))


def test_of_readers_that_start_at_once_one_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_cifar(tmp_path / "source", 10, monkeypatch)
    downloading, downloads = threading.Lock(), []

    def download(self: CIFAR10) -> None:
        assert downloading.acquire(blocking=False)
        if not self._check_integrity():
            downloads.append(self.root)
            time.sleep(0.1)
            shutil.copytree(source, Path(self.root) / source.name)
        downloading.release()

    monkeypatch.setattr(CIFAR10, "download", download)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(identity.read, "cifar10", Place(tmp_path)) for _ in range(3)]
        assert [len(future.result()[0].labels) for future in futures] == [TRAIN] * 3
    assert downloads == [str(tmp_path)]


def test_damaged_idx_files_are_noticed(tmp_path: Path) -> None:
    """Changed values cannot be: there is no checksum."""
    for damage in ("empty", "header", "torn", "longer", "labels"):
        folder = tmp_path / "FashionMNIST" / "raw"
        write_fashion(folder)
        check_fashion(identity.read("fashion_mnist", Place(tmp_path)))
        DAMAGES[damage](folder / IDX[0])
        with pytest.raises(Missing, match=rf"{folder} is missing or damaged.*delete it") as caught:
            identity.read("fashion_mnist", Place(tmp_path))
        assert "\n" not in str(caught.value)


def test_a_disk_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a sweep tries its run again."""
    for name in ("fashion_mnist", "arrays", "an image"):

        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        write_fashion(tmp_path / "FashionMNIST" / "raw")
        (file := tmp_path / "mine.npz").touch()
        monkeypatch.setattr("torchvision.datasets.mnist.read_image_file", fail)
        monkeypatch.setattr(np, "load", fail)
        monkeypatch.setattr(Image, "open", fail)
        place = Place(tmp_path, file=file)
        with pytest.raises(Outside, match=os.strerror(errno.EIO)):
            image_in(file) if name == "an image" else identity.read(name, place)


def test_digits_are_scikit_learns_split_once_and_for_all(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    train, test = identity.read("digits", Place(tmp_path))
    assert (train.images.shape, test.images.shape) == ((1437, 8, 8, 1), (360, 8, 8, 1))
    images = np.concatenate([train.images, test.images]).reshape(-1, 64)
    labels = np.concatenate([train.labels, test.labels])
    digits = load_digits()
    levels = np.rint(images * (16 / 255)).astype(int)  # None of the 17 grey levels is lost.
    rows, expected = np.c_[levels, labels], np.c_[digits.data.astype(int), digits.target]
    assert sorted(map(tuple, rows)) == sorted(map(tuple, expected))
    shares = np.bincount(test.labels) / np.bincount(labels)
    np.testing.assert_allclose(shares, 360 / 1797, atol=0.01)  # stratified


SOURCES = {
    "cifar10": "cifar-10-python.tar.gz",
    "cifar100": "cifar-100-python.tar.gz",
    "fashion_mnist": "dataset-fashion-mnist",
}


def test_where_nothing_can_be_downloaded_one_line_says_what_to_do(tmp_path: Path) -> None:
    for name, source in SOURCES.items():
        with pytest.raises(UserError, match="could not be downloaded") as caught:
            identity.read(name, Place(tmp_path))
        text = str(caught.value)
        assert all(part in text for part in (source, str(tmp_path), "data_dir="))
        assert "Network is unreachable" in text
        assert "\n" not in text
