"""The readers on small files in the genuine formats, written here byte by byte; no network."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import http.server
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

from igo.data import readers
from igo.data.source import Place, Splits
from igo.ground.errors import UserError

TRAIN, TEST = 20, 10  # images written by these tests
IDX = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in
       ("images-idx3", "labels-idx1")]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only 127.0.0.1 can be reached, and Debian's Fashion-MNIST is not installed."""
    real = urllib.request.urlopen

    def urlopen(request: Any, *args: Any, **more: Any) -> Any:
        url = request if isinstance(request, str) else request.full_url
        if url.startswith("http://127.0.0.1"):
            return real(request, *args, **more)
        raise urllib.error.URLError(OSError(101, "Network is unreachable"))

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(readers, "DEBIAN_FASHION_MNIST", Path("/nonexistent"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a local HTTP server offers it."""
    folder = tmp_path / "server"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=folder)
    ) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{service.server_port}"
        service.shutdown()
        thread.join()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def text(raw: bytes) -> bytes:
    return b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + packed(len(raw)) + raw


def packed(number: int) -> bytes:
    return struct.pack("<i", number)


def number(value: int) -> bytes:
    return b"J" + packed(value)


def listed(items: list[bytes]) -> bytes:
    return b"](" + b"".join(items) + b"e"


def array(values: np.ndarray) -> bytes:
    """A two-dimensional uint8 array, as NumPy of 2009 pickled it."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        + number(0) + b"\x85" + text(b"b") + b"\x87R("
        + number(1) + number(values.shape[0]) + number(values.shape[1]) + b"\x86"
        + b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R("
        + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
        + b"\x89" + text(values.tobytes()) + b"tb"
    )  # fmt: skip


def python2_pickle(path: Path, entries: dict[str, bytes]) -> None:
    pairs = b"".join(text(key.encode()) + value for key, value in entries.items())
    path.write_bytes(b"\x80\x02}(" + pairs + b"u.")


def pixels(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)


def write_cifar(data_dir: Path, classes: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The whole folder of CIFAR-10 or -100 with few images, whose checksums torchvision accepts."""
    dataset: Any = CIFAR10 if classes == 10 else CIFAR100
    labels_key = "labels" if classes == 10 else "fine_labels"
    folder = data_dir / dataset.base_folder
    folder.mkdir(parents=True)
    names = [name for name, _ in dataset.train_list]
    each = TRAIN // len(names)
    for i, name in enumerate([*names, dataset.test_list[0][0]]):
        n, first = (TEST, 0) if i == len(names) else (each, i * each)
        images = pixels(n, seed=i)
        labels = [(first + j) * (classes - 1) // (TRAIN - 1) for j in range(n)]
        entries = {
            "batch_label": text(f"training batch {i + 1} of 5".encode()),
            labels_key: listed([number(label) for label in labels]),
            "data": array(images.reshape(n, 3072)),
            "filenames": listed([text(f"image_{j}.png".encode()) for j in range(n)]),
        }
        if classes == 100:
            entries["coarse_labels"] = listed([number(label // 5) for label in labels])
        python2_pickle(folder / name, entries)
    names_of_classes = listed([text(f"class {c}".encode()) for c in range(classes)])
    python2_pickle(folder / dataset.meta["filename"], {dataset.meta["key"]: names_of_classes})
    for lists in ("train_list", "test_list"):
        known = [[name, md5(folder / name)] for name, _ in getattr(dataset, lists)]
        monkeypatch.setattr(dataset, lists, known)
    meta = folder / dataset.meta["filename"]
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": md5(meta)})
    return folder


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_files_are_read_as_their_authors_wrote_them(
    classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path, classes, monkeypatch)
    train, test = readers.read(f"cifar{classes}", Place(tmp_path))
    files = 5 if classes == 10 else 1
    wanted = np.concatenate([pixels(TRAIN // files, seed=i) for i in range(files)])
    assert train.images.dtype == np.uint8
    np.testing.assert_array_equal(train.images, wanted.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(test.images, pixels(TEST, files).transpose(0, 2, 3, 1))
    spread = [j * (classes - 1) // (TRAIN - 1) for j in range(TRAIN)]
    np.testing.assert_array_equal(train.labels, spread)
    np.testing.assert_array_equal(test.labels, spread[:TEST])


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
@pytest.mark.parametrize("which", ["data_batch_3", "test_batch", "batches.meta"])
def test_damaged_cifar_files_are_noticed(
    which: str, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cifar(tmp_path, 10, monkeypatch)
    harm(folder / which, damage)
    with pytest.raises(UserError, match=rf"{folder}.*missing or damaged.*cifar-10-python.tar.gz"):
        readers.read("cifar10", Place(tmp_path))


def harm(path: Path, damage: str) -> None:
    whole = path.read_bytes()
    middle = len(whole) // 2
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(whole[:middle])
    elif damage == "header":
        path.write_bytes(whole[:6])
    elif damage == "longer":
        path.write_bytes(whole + b"x")
    else:
        path.write_bytes(whole[:middle] + bytes(255 - b for b in whole[middle:]))


def write_idx(path: Path, values: np.ndarray) -> None:
    """Two zero bytes, the type (8: uint8), the dimensions, big-endian sizes, the values."""
    content = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}i", *values.shape)
    content += values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def clothes(n: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(n).integers(0, 256, (n, 28, 28))
    return images, np.arange(n) % 10


def write_fashion(folder: Path, suffix: str) -> None:
    for part, n in (("train", TRAIN), ("t10k", TEST)):
        images, labels = clothes(n)
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)


def check_fashion(splits: Splits) -> None:
    for split, n in zip(splits, (TRAIN, TEST), strict=True):
        images, labels = clothes(n)
        assert split.images.dtype == np.uint8
        np.testing.assert_array_equal(split.images, images[..., None])
        np.testing.assert_array_equal(split.labels, labels)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_plain_and_compressed(suffix: str, tmp_path: Path) -> None:
    write_fashion(tmp_path / "FashionMNIST" / "raw", suffix)
    check_fashion(readers.read("fashion_mnist", Place(tmp_path)))


def interrupt_download(data_dir: Path, partial: bytes = b"") -> None:
    """One file is there, and the beginning of the next one."""
    ours = data_dir / "FashionMNIST" / "raw"
    write_idx(ours / IDX[0], clothes(TRAIN)[0])
    if partial:
        (ours / f"{IDX[1]}.gz").write_bytes(partial)


@pytest.mark.parametrize("interrupted", [False, True])
def test_debians_files(interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion(tmp_path / "debian", ".gz")
    monkeypatch.setattr(readers, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    if interrupted:
        interrupt_download(tmp_path / "data")
    check_fashion(readers.read("fashion_mnist", Place(tmp_path / "data")))


@pytest.mark.parametrize("interrupted", [False, True])
def test_fashion_mnist_is_downloaded_where_it_is_missing(
    interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[Path, str]
) -> None:
    write_fashion(server[0], ".gz")
    known = [(f"{name}.gz", md5(server[0] / f"{name}.gz")) for name in IDX]
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"{server[1]}/"])
    monkeypatch.setattr(FashionMNIST, "resources", known)
    if interrupted:
        interrupt_download(tmp_path / "data", (server[0] / f"{IDX[1]}.gz").read_bytes()[:20])
    check_fashion(readers.read("fashion_mnist", Place(tmp_path / "data")))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (IDX[1], np.arange(TRAIN - 1) % 10, f": {TRAIN} train images, {TRAIN - 1} labels"),
        (IDX[0], np.arange(TRAIN) % 10, f"/{IDX[0]}"),  # labels where images should be
        (IDX[1], np.zeros((TRAIN, 28, 28)), f"/{IDX[1]}"),
    ],
)
def test_an_idx_file_of_other_content_is_named(
    name: str, values: np.ndarray, message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "FashionMNIST" / "raw"
    write_fashion(folder, "")
    write_idx(folder / name, values)
    with pytest.raises(UserError, match=f"{folder}{message}"):
        readers.read("fashion_mnist", Place(tmp_path))


# Changed values in a plain file cannot be noticed: there is no checksum.
HARMS = [(d, s) for d in ("empty", "header", "truncated", "longer") for s in ("", ".gz")]


@pytest.mark.parametrize(("damage", "suffix"), [*HARMS, ("changed", ".gz")])
@pytest.mark.parametrize("which", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_idx_file_is_named(which: str, damage: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "FashionMNIST" / "raw" / f"{which}{suffix}"
    write_fashion(path.parent, suffix)
    harm(path, damage)
    with pytest.raises(UserError, match=rf"{path} is damaged \(.+\)") as caught:
        readers.read("fashion_mnist", Place(tmp_path))
    assert "\n" not in str(caught.value)


def test_digits_are_scikit_learns_split_once_and_for_all(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    train, test = readers.read("digits", Place(tmp_path))
    again, _ = readers.read("digits", Place(tmp_path))
    assert (train.images.shape, test.images.shape) == ((1437, 8, 8, 1), (360, 8, 8, 1))
    np.testing.assert_array_equal(train.images, again.images)
    both = np.concatenate([train.images, test.images]).reshape(-1, 64)
    labels = np.concatenate([train.labels, test.labels])
    digits = load_digits()
    restored = np.rint(both * (16 / 255)).astype(int)  # 17 grey levels, none lost
    mine = sorted(map(tuple, np.column_stack([restored, labels])))
    assert mine == sorted(map(tuple, np.column_stack([digits.data.astype(int), digits.target])))
    shares = np.bincount(test.labels) / np.bincount(labels)
    np.testing.assert_allclose(shares, 360 / 1797, atol=0.01)  # stratified


SOURCES = {
    "cifar10": "cifar-10-python.tar.gz",
    "cifar100": "cifar-100-python.tar.gz",
    "fashion_mnist": "dataset-fashion-mnist",
}
FAILURES = [TimeoutError(), RuntimeError(), http.client.IncompleteRead(b"")]


@pytest.mark.parametrize("failure", [None, *FAILURES], ids=repr)
@pytest.mark.parametrize("name", SOURCES)
def test_where_nothing_can_be_downloaded_one_line_says_what_to_do(
    name: str, failure: Exception | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise failure or urllib.error.URLError(OSError(101, "Network is unreachable"))

    monkeypatch.setattr(urllib.request, "urlopen", broken)
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        readers.read(name, Place(tmp_path))
    text = str(caught.value)
    assert all(part in text for part in (SOURCES[name], str(tmp_path), "data_dir="))
    assert failure or "Network is unreachable" in text
    assert "\n" not in text
