"""Images of folders are resized once: the same training, never from a part of a cache."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import configure, records, run_folder
from forked import Death, forge
from PIL import Image
from test_cache import cut
from torchvision.transforms import v2

from igo.data import class_folders, stored
from igo.data.class_folders import Images
from igo.data.source import Place
from igo.data.stored import Stored
from igo.train.datasets import open_data

CPU = torch.device("cpu")
SIZES = ((32, 32), (32, 47), (50, 32))  # (width, height); 8/7 of 28 is 32: nothing to resize
LARGER = ((64, 48), (90, 120), (33, 32))
SHORT = (
    "dataset=imagenet", "dataset.classes=3", "dataset.image_size=28", "dataset.samples=30",
    "dataset.workers=0", "epochs=2", "batch_size=6", "noise.batches=2", "noise.batch_size=4",
    "model.width=4", "tracking=none", "engine.precision=fp32", "evaluate_every=1",
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


def write(data_dir: Path, sizes: tuple[tuple[int, int], ...]) -> Path:
    """Ten smooth images a class to train on, four to test; the class is in the colours."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 10), ("val", 4)):
        for label, name in enumerate(("cat", "cow", "dog")):
            folder = data_dir / "imagenet" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                coarse = draw.integers(0, 160, (4, 5, 3), dtype=np.uint8)
                coarse[..., label] += 90
                image = Image.fromarray(coarse).resize(sizes[number % len(sizes)], 2)
                image.save(folder / f"{number}.png")
    return data_dir


def imagenet(data_dir: Path, size: int = 28) -> Images:
    return class_folders.images("imagenet", Place(data_dir, image_size=size, channels=3))


def folders(data_dir: Path) -> list[str]:
    names = [folder.name for folder in data_dir.glob("cache/*") if folder.is_dir()]
    return sorted(re.sub("-[0-9a-f]{12}$", "", name) for name in names)


def pixels(kept: Stored, n: int) -> list[np.ndarray]:
    return [kept[index] for index in range(n)]


def test_images_are_stored_as_torchvision_resizes_them(tmp_path: Path) -> None:
    images = imagenet(write(tmp_path, LARGER))
    resize = v2.Resize(32, antialias=True)
    for split, files in zip(stored.splits(images), (images.train, images.test), strict=True):
        for image, file in zip(pixels(split, len(files)), files, strict=True):
            opened = Image.open(images.root / file.name).convert("RGB")
            np.testing.assert_array_equal(image, np.asarray(resize(opened)))
    assert folders(tmp_path) == ["imagenet-test", "imagenet-train"]


def trained(place: Path, data_dir: Path, *typed: str) -> list[dict[str, Any]]:
    forge.run(place, *SHORT, f"data_dir={data_dir}", *typed).good()
    return records(run_folder(place))


@pytest.mark.slow
def test_training_from_the_cache_is_the_same_where_nothing_is_resized(tmp_path: Path) -> None:
    data_dir = write(tmp_path / "data", SIZES)
    without = trained(tmp_path / "a", data_dir)
    kept = trained(tmp_path / "b", data_dir, "dataset.cache=true", "dataset.workers=2")
    for record, other in zip(without, kept, strict=True):
        same = {name: value for name, value in record.items() if "seconds" not in name}
        assert same == {name: other[name] for name in same}
    assert {"train/loss", "test/loss"} <= same.keys()
    assert run_folder(tmp_path / "a").name != run_folder(tmp_path / "b").name


def test_batches_from_the_cache(tmp_path: Path) -> None:
    typed = (*SHORT, f"data_dir={write(tmp_path, LARGER)}", "dataset.validation=0.2")
    plain, kept = (
        open_data(configure(*typed, f"dataset.cache={cache}"), CPU) for cache in (False, True)
    )
    order = [torch.arange(24)]
    for name, arguments in (
        ("plain_batches", (order,)), ("test_batches", ()), ("validation_batches", ()),
    ):  # fmt: skip
        both = zip(*(getattr(data, name)(*arguments) for data in (plain, kept)), strict=True)
        assert all(
            torch.equal(a, b) for batch, other in both for a, b in zip(batch, other, strict=True)
        )
    ((images, labels),), ((other, same),) = (data.train_batches(order, 3) for data in (plain, kept))
    assert torch.equal(labels, same)
    assert 0 < (images - other).abs().mean() < 0.05 * images.std()  # the same crops


def test_made_once_for_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, LARGER)
    first = pixels(stored.splits(imagenet(tmp_path))[0], 30)
    with monkeypatch.context() as patched:
        patched.setattr(class_folders, "opened", lambda *_: pytest.fail("opened again"))
        again = pixels(stored.splits(imagenet(tmp_path))[0], 30)
    assert all(map(np.array_equal, first, again))
    assert pixels(stored.splits(imagenet(tmp_path, size=14))[0], 1)[0].shape[0] == 16
    assert len(folders(tmp_path)) == 4
    file = tmp_path / "imagenet" / "train" / "cat" / "0.png"
    Image.new("RGB", (40, 40), "white").save(file)
    changed = pixels(stored.splits(imagenet(tmp_path))[0], 30)
    assert changed[0].min() == 255
    assert all(map(np.array_equal, first[1:], changed[1:]))
    assert len(folders(tmp_path)) == 5  # the test images are as they were


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("file", [stored.PIXELS, stored.SHAPES])
@pytest.mark.parametrize("damage", [cut, empty, Path.unlink])
def test_a_torn_cache_is_remade(damage: Callable[[Path], None], file: str, tmp_path: Path) -> None:
    images = imagenet(write(tmp_path, LARGER))
    first = [image.copy() for image in pixels(stored.splits(images)[0], 30)]
    (folder,) = (tmp_path / "cache").glob("imagenet-train-*/")
    damage(folder / file)
    assert all(map(np.array_equal, first, pixels(stored.splits(images)[0], 30)))


@pytest.mark.parametrize("moment", ["before", "torn", "after"])
@pytest.mark.parametrize("call", [1, 2])
def test_a_process_killed_meanwhile_leaves_no_cache(call: int, moment: str, tmp_path: Path) -> None:
    """At the fsync of the pixels and of the shapes; torn: half of the file is on the disk."""
    data_dir = write(tmp_path / "data", SIZES)
    typed = (*SHORT, "dataset.cache=true", f"data_dir={data_dir}")
    death = Death("os.fsync", call, moment)
    assert forge.run(tmp_path, *typed, death=death).returncode == -signal.SIGKILL
    assert [name[0] for name in folders(data_dir)] == ["."]
    kept = pixels(stored.splits(imagenet(data_dir))[0], 30)
    assert folders(data_dir) == ["imagenet-test", "imagenet-train"]
    for image, file in zip(kept, imagenet(data_dir).train, strict=True):
        wanted = Image.open(data_dir / "imagenet" / file.name)
        np.testing.assert_array_equal(image, np.asarray(wanted))


def test_ranks_make_it_once_together(tmp_path: Path) -> None:
    """A rank waits while another one makes it, and then finds it there."""
    data_dir = write(tmp_path / "data", LARGER)
    typed = (*SHORT, "dataset.cache=true", f"data_dir={data_dir}")
    death = Death("igo.data.class_folders.resize", 45, error="opened again")  # 30 + 12 = 42 images
    ended = forge.run(tmp_path, *typed, ranks=2, death=death).good()
    assert ended.stdout.count("are resized once and kept in") <= 2
    assert folders(data_dir) == ["imagenet-test", "imagenet-train"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_where_it_cannot_be_written_one_line_says_so(number: int, tmp_path: Path) -> None:
    data_dir = write(tmp_path / "data", LARGER)
    typed = (*SHORT, "dataset.cache=true", f"data_dir={data_dir}")
    line = forge.run(tmp_path, *typed, death=Death("os.fsync", errno=number)).error()
    assert line.startswith(f"error: dataset.cache=true: {data_dir}/cache/imagenet-train-")
    assert "dataset.cache=false" in line
    assert not folders(data_dir)
    assert not (tmp_path / "runs").exists()
