"""Images in class folders: torchvision and Pillow are the reference; nothing is left out unsaid."""

import errno
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import DEVICES, configure, epoch_batches, records, run_folder, status
from forked import Death, forge
from PIL import Image
from torch import Tensor
from torchvision import transforms

from igo.data import folders, resized
from igo.data.readers import Missing, Place
from igo.ground.errors import Outside, UserError
from igo.ground.seeds import derive_seed
from igo.train.datasets import open_data
from igo.train.on_disk import DiskData

CPU = torch.device("cpu")
CLASSES = ("n01440764", "n01443537", "n01484850")  # named as ImageNet names them
PER_CLASS = {"train": 7, "val": 3}
SMALL = ("dataset=imagenet", "dataset.classes=3", "dataset.image_size=28", "dataset.samples=21",
         "batch_size=6", "noise.batches=2")  # fmt: skip
SHORT = (*SMALL, "dataset.workers=0", "epochs=2", "model.width=4", "tracking=none",
         "engine.precision=fp32", "evaluate_every=1")  # fmt: skip
# Python 3.12 and later say so of every DataLoader with workers.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ImageNet: real JPEGs of several sizes, one grey and one CMYK as ImageNet has them.

    No test changes it.
    """
    data_dir, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for part, count in PER_CLASS.items():
        for label, name in enumerate(CLASSES):
            (data_dir / "imagenet" / part / name).mkdir(parents=True)
            for i in range(count):
                coarse = draw.integers(0, 160, (5, 6, 3), dtype=np.uint8)
                coarse[..., label] += 90
                size = (40 + 7 * i, 60 - 5 * label)
                image = Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR)
                if label == 0:
                    image = image.convert({0: "L", 1: "CMYK"}.get(i, "RGB"))
                file = data_dir / "imagenet" / part / name / f"{name}_{i}.JPEG"
                image.save(file, quality=95)
    return data_dir


@pytest.fixture
def copied(data_dir: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    shutil.copytree(data_dir / "imagenet", tmp_path / "data" / "imagenet")
    return tmp_path / "data"


def imagenet(data_dir: Path, *typed: str, device: str = "cpu") -> DiskData:
    opened = open_data(configure(*SMALL, f"data_dir={data_dir}", *typed), torch.device(device))
    assert isinstance(opened, DiskData)
    return opened


def found(data_dir: Path, size: int = 28) -> tuple[folders.Images, folders.Images]:
    folders._listed.cache_clear()  # as in a new process
    return folders.splits("imagenet", Place(data_dir, image_size=size, channels=3))


def cached(data_dir: Path, size: int = 28) -> list[resized.Stored]:
    named = zip(("train", "test"), found(data_dir, size), strict=True)
    return [resized.kept(data_dir / "cache", f"imagenet-{part}", split) for part, split in named]


def test_what_is_missing_too_much_or_closed_is_named(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, val = copied / "imagenet" / "train", copied / "imagenet" / "val"
    for hidden in (f"{CLASSES[0]}/.ipynb_checkpoints/x.JPEG", f"{CLASSES[0]}/._2.JPEG"):
        (train / hidden).parent.mkdir(exist_ok=True)
        (train / hidden).write_bytes(b"")
    assert [len(images) for images in found(copied)] == [21, 9]
    (train / "n9").mkdir()
    with pytest.raises(Missing, match=r"no images .*Found no valid file for the classes n9"):
        found(copied)
    shutil.copy(train / CLASSES[0] / f"{CLASSES[0]}_0.JPEG", train / "n9")
    with pytest.raises(UserError, match=r"the same class folders; n9 is in one of them only"):
        found(copied)
    (train / CLASSES[1] / "more").mkdir()
    scandir, closed = os.scandir, str(train / CLASSES[1] / "more")

    def refuse(path: Any) -> Any:
        if str(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", closed)
        return scandir(path)

    with monkeypatch.context() as patched:  # root may list every folder
        patched.setattr(os, "scandir", refuse)
        with pytest.raises(UserError, match=rf"no images .*Permission denied: '{closed}'"):
            found(copied)
    for folder in (val, train):
        shutil.rmtree(folder)
        with pytest.raises(Missing, match=rf"no images to read in {folder} .*data_dir="):
            found(copied)


@pytest.mark.parametrize(("damage", "workers"), [("truncated", 2), ("text", 0), ("gone", 0)])
def test_an_image_that_cannot_be_read_is_named(damage: str, workers: int, copied: Path) -> None:
    path = copied / "imagenet" / "train" / CLASSES[1] / f"{CLASSES[1]}_2.JPEG"
    data, whole = imagenet(copied, f"dataset.workers={workers}"), path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"<html>")
    with pytest.raises(UserError, match=rf"^{path} cannot be read \(.+\)") as caught:
        list(data.train_batches(epoch_batches(21, 3, 0, 1), seed=4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_disk_that_fails_is_no_fault_of_an_image(
    number: int, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a sweep tries its run again."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(Outside, match=rf"cannot be read \(.*{os.strerror(number)}\)"):
        list(imagenet(data_dir, "dataset.workers=0").test_batches())


def test_a_worker_that_is_killed_is_one_line_where_it_is_read(data_dir: Path) -> None:
    """And not anywhere, by a handler of PyTorch's for SIGCHLD."""
    before, handler = multiprocessing.active_children(), signal.getsignal(signal.SIGCHLD)
    data = imagenet(data_dir, "dataset.workers=2")
    full = patch("os.fork", side_effect=BlockingIOError(errno.EAGAIN, "no room"))
    with full, pytest.raises(Outside, match=r"^a worker .* cannot start \(.*no room\); the same"):
        next(data.train_batches(epoch_batches(21, 21, 0, 1), seed=4))
    stream = data.train_batches(epoch_batches(21, 21, 0, 1), seed=4)
    next(stream)
    assert signal.getsignal(signal.SIGCHLD) == handler
    for worker in multiprocessing.active_children():
        if worker not in before:
            worker.kill()
    with pytest.raises(Outside, match=r"^a worker that reads images was killed.*\(.*\); the same"):
        list(stream)


@pytest.mark.parametrize(
    ("moment", "name"),
    [("igo.train.engine.Engine.update", "SIGHUP"), ("igo.runs.checkpoint.save", "SIGUSR2")],
)
def test_a_signal_to_all_processes_of_a_run_is_one_signal(
    moment: str, name: str, data_dir: Path, tmp_path: Path
) -> None:
    """As a terminal and SLURM send it: the record is closed, and the exit code is the signal's."""
    death = Death(moment, signal=signal.Signals[name], group=True)
    typed = (*SHORT, "dataset.workers=2", f"data_dir={data_dir}")
    ended = forge.run(tmp_path, *typed, death=death)
    assert (ended.returncode, ended.stderr) == (128 + signal.Signals[name], "")
    assert (status(tmp_path)["state"], status(tmp_path)["signal"]) == ("interrupted", name)


@pytest.mark.parametrize("device", DEVICES)
def test_random_crops_are_torchvisions_and_half_are_flipped(data_dir: Path, device: str) -> None:
    """An image's crop depends on the epoch's seed and the image alone, whatever batch and worker.

    The flips are found by comparing.
    """
    config = configure(*SMALL, f"data_dir={data_dir}").dataset
    alone, with_workers = (
        imagenet(data_dir, f"dataset.workers={workers}", device=device) for workers in (0, 2)
    )
    random_states = []
    crop = transforms.RandomResizedCrop(28, antialias=True)
    normalise = transforms.Normalize(config.mean, config.std)
    to_tensor = transforms.Compose([transforms.ToTensor(), normalise])
    files, flipped = sorted(data_dir.glob("imagenet/train/*/*.JPEG")), 0
    for seed in range(10):
        order, data = epoch_batches(21, 1 + seed % 4, 0, seed), with_workers if seed < 3 else alone
        torch.manual_seed(1)
        shuffled = torch.cat([images[:].cpu() for images, _ in data.train_batches(order, seed)])
        random_states.append(torch.get_rng_state())
        images = shuffled[torch.cat(order).argsort()]
        for index, (file, image) in enumerate(zip(files, images, strict=True)):
            torch.manual_seed((derive_seed(seed, "crop") + index) % 2**63)
            wanted = to_tensor(crop(Image.open(file).convert("RGB")))
            mirrored = wanted.flip(-1)
            if is_flipped := bool((image - mirrored).abs().max() < (image - wanted).abs().max()):
                wanted = mirrored
            torch.testing.assert_close(image, wanted, rtol=1e-5, atol=1e-5)
            flipped += is_flipped
    assert 75 < flipped < 135  # of 210
    assert all(torch.equal(each, random_states[0]) for each in random_states)  # dropout's, too


@pytest.mark.parametrize("cache", [True, False])
def test_images_are_tested_with_resize_and_centre_crop(
    cache: bool, data_dir: Path, tmp_path: Path
) -> None:
    """8/7 of 28 is 32; torchvision's first-generation transforms as the reference."""
    (tmp_path / "imagenet").symlink_to(data_dir / "imagenet")
    typed = "dataset.workers=0", "dataset.validation=0.3", f"dataset.cache={cache}"
    config = configure(*SMALL, *typed, f"data_dir={tmp_path}").dataset
    data = imagenet(tmp_path, *typed)
    reference = transforms.Compose(
        [transforms.Resize(32), transforms.CenterCrop(28), transforms.ToTensor(),
         transforms.Normalize(config.mean, config.std)]
    )  # fmt: skip

    def wanted(part: str) -> Tensor:
        files = sorted((data_dir / "imagenet" / part).glob("*/*.JPEG"))
        return torch.stack([reference(Image.open(file).convert("RGB")) for file in files])

    seen = torch.cat([images for images, _ in data.test_batches()])
    torch.testing.assert_close(seen, wanted("val"), rtol=1e-5, atol=1e-5)
    labels = torch.cat([answers for _, answers in data.test_batches()])
    assert torch.equal(labels, torch.arange(3).repeat_interleave(PER_CLASS["val"]))
    plain = torch.cat([x for x, _ in data.plain_batches([torch.arange(data.n)])])
    held = torch.cat([x for x, _ in data.validation_batches()])
    both, every = torch.cat([plain, held]), wanted("train")
    assert len(both) == len(every)
    assert torch.cdist(both.flatten(1), every.flatten(1)).min(dim=0).values.max() < 1e-3


@pytest.mark.slow
def test_two_ranks_share_the_images_and_make_the_cache_once(copied: Path, tmp_path: Path) -> None:
    typed = (*SHORT, "dataset.cache=true", f"data_dir={copied}", "dataset.workers=1")
    death = Death("igo.data.folders.image_in", 31, error="opened again")  # of 21 + 9 = 30 images
    forge.run(tmp_path, *typed, ranks=2, death=death).good()
    assert made(copied) == ["imagenet-test", "imagenet-train"]
    other = Death("igo.data.folders.image_in", error="opened again", rank=1)
    forge.run(tmp_path, *typed, "fresh=true", ranks=2, death=other).good()
    for record in records(run_folder(tmp_path)):
        assert record["samples"] == 21 * record["epoch"]


def made(data_dir: Path) -> list[str]:
    caches = (folder for folder in data_dir.glob("cache/*") if folder.is_dir())
    return sorted(folder.name.rpartition("-")[0] for folder in caches)


def test_images_are_cached_once_for_the_same_files_and_size(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(copied)
    _, files = found(copied)
    with monkeypatch.context() as patched:
        patched.setattr(folders, "image_in", lambda *_: pytest.fail("opened again"))
        cached(copied)
    Image.new("RGB", (40, 40), "white").save(files.path(0))
    assert np.asarray(cached(copied)[1][0]).min() == 255
    assert made(copied) == [*["imagenet-test"] * 2, "imagenet-train"]
    cached(copied, size=14)
    assert len(made(copied)) == 5


def test_a_process_killed_meanwhile_leaves_no_cache(copied: Path, tmp_path: Path) -> None:
    """At the fsync of the pixels, with half of them on the disk."""
    typed = (*SHORT, "dataset.cache=true", f"data_dir={copied}")
    death = Death("os.fsync", 1, "torn")
    assert forge.run(tmp_path, *typed, death=death).returncode == -signal.SIGKILL
    assert [name[0] for name in made(copied)] == ["."]
    cached(copied)
    assert made(copied) == ["imagenet-test", "imagenet-train"]


def test_where_the_cache_cannot_be_written_one_line_says_so(copied: Path, tmp_path: Path) -> None:
    typed = (*SHORT, "dataset.cache=true", f"data_dir={copied}")
    line = forge.run(tmp_path, *typed, death=Death("os.fsync", errno=errno.ENOSPC)).error()
    assert line.startswith(f"error: dataset.cache=true: {copied}/cache/imagenet-train-")
    assert "dataset.cache=false" in line
    assert not made(copied)
    assert not (tmp_path / "runs").exists()
