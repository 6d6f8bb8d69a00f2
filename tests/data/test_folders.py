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
from conftest import configure, epoch_batches, status
from forked import Death, forge
from PIL import Image
from torch import Tensor
from torchvision import transforms

from igo.data import folders
from igo.data.readers import Missing, Place
from igo.ground.errors import Outside, UserError
from igo.ground.seeds import derive_seed
from igo.train.datasets import open_data
from igo.train.on_disk import DiskData

CPU = torch.device("cpu")
CLASSES = ("n01440764", "n01443537", "n01484850")  # named as ImageNet names them
PER_CLASS = {"train": 7, "val": 3}
SMALL = (
    "dataset=imagenet",
    "dataset.classes=3",
    "dataset.image_size=28",
    "dataset.samples=21",
    "batch_size=6",
    "noise.batches=2",
)
SHORT = (
    *SMALL,
    "dataset.workers=0",
    "epochs=2",
    "model.width=4",
    "tracking=none",
    "engine.precision=fp32",
    "evaluate_every=1",
)
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
def data_copy(data_dir: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(data_dir / "imagenet", tmp_path / "data" / "imagenet")
    return tmp_path / "data"


def imagenet(data_dir: Path, *settings: str, device: str = "cpu") -> DiskData:
    data = open_data(configure(*SMALL, f"data_dir={data_dir}", *settings), torch.device(device))
    assert isinstance(data, DiskData)
    return data


def reference(*moves: Any) -> transforms.Compose:
    """torchvision's first-generation transforms of an image file."""
    facts = configure(*SMALL).dataset
    scale = transforms.ToTensor(), transforms.Normalize(facts.mean, facts.std)
    return transforms.Compose([Image.open, lambda image: image.convert("RGB"), *moves, *scale])


def splits_of(data_dir: Path, size: int = 28) -> tuple[folders.Images, folders.Images]:
    folders._listed.cache_clear()  # A new process has listed nothing.
    return folders.splits("imagenet", Place(data_dir, image_size=size, channels=3))


def test_what_is_missing_too_much_or_closed_is_named(
    data_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, val = data_copy / "imagenet" / "train", data_copy / "imagenet" / "val"
    for hidden in (f"{CLASSES[0]}/.ipynb_checkpoints/x.JPEG", f"{CLASSES[0]}/._2.JPEG"):
        (train / hidden).parent.mkdir(exist_ok=True)
        (train / hidden).write_bytes(b"")
    assert [len(images) for images in splits_of(data_copy)] == [21, 9]
    (train / "n9").mkdir()
    with pytest.raises(Missing, match=r"no images .*Found no valid file for the classes n9"):
        splits_of(data_copy)
    shutil.copy(train / CLASSES[0] / f"{CLASSES[0]}_0.JPEG", train / "n9")
    with pytest.raises(UserError, match=r"the same class folders; n9 is in one of them only"):
        splits_of(data_copy)
    (train / CLASSES[1] / "more").mkdir()
    scandir, folder = os.scandir, str(train / CLASSES[1] / "more")

    def refuse(path: Any) -> Any:
        if str(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(path)

    with monkeypatch.context() as patched:  # The system refuses no folder to root.
        patched.setattr(os, "scandir", refuse)
        with pytest.raises(UserError, match=rf"no images .*Permission denied: '{folder}'"):
            splits_of(data_copy)
    for part in (val, train):
        shutil.rmtree(part)
        with pytest.raises(Missing, match=rf"no images to read in {part} .*data_dir="):
            splits_of(data_copy)


@pytest.mark.parametrize(("damage", "workers"), [("truncated", 2), ("text", 0), ("gone", 0)])
def test_an_image_that_cannot_be_read_is_named(damage: str, workers: int, data_copy: Path) -> None:
    path = data_copy / "imagenet" / "train" / CLASSES[1] / f"{CLASSES[1]}_2.JPEG"
    data, content = imagenet(data_copy, f"dataset.workers={workers}"), path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"<html>")
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
    other_processes, handler = multiprocessing.active_children(), signal.getsignal(signal.SIGCHLD)
    data = imagenet(data_dir, "dataset.workers=2")
    full = patch("os.fork", side_effect=BlockingIOError(errno.EAGAIN, "no room"))
    with full, pytest.raises(Outside, match=r"^a worker .* cannot start \(.*no room\); the same"):
        next(data.train_batches(epoch_batches(21, 21, 0, 1), seed=4))
    stream = data.train_batches(epoch_batches(21, 21, 0, 1), seed=4)
    next(stream)
    assert signal.getsignal(signal.SIGCHLD) == handler
    for worker in multiprocessing.active_children():
        if worker not in other_processes:
            worker.kill()
    with pytest.raises(Outside, match=r"^a worker that reads images was killed.*\(.*\); the same"):
        list(stream)


@pytest.mark.parametrize(
    ("moment", "name"),
    [("igo.train.engine.Engine.update", "SIGHUP"), ("igo.runs.checkpoint.save", "SIGUSR2")],
)
def test_a_signal_to_all_processes_of_a_run_is_one_signal(
    moment: str, name: str, data_dir: Path
) -> None:
    """As a terminal and SLURM send it: the record is closed, and the exit code is the signal's."""
    death = Death(moment, signal=signal.Signals[name], group=True)
    settings = (*SHORT, "dataset.workers=2", f"data_dir={data_dir}")
    process = forge.run(*settings, death=death)
    assert (process.returncode, process.stderr) == (128 + signal.Signals[name], "")
    assert (status()["state"], status()["signal"]) == ("interrupted", name)


def test_random_crops_are_torchvisions_and_half_are_flipped(data_dir: Path, device: str) -> None:
    """An image's crop depends on the epoch's seed and the image alone, whatever batch and worker.

    The flips are splits_of by comparing.
    """
    data_without_workers, data_with_workers = (
        imagenet(data_dir, f"dataset.workers={workers}", device=device) for workers in (0, 2)
    )
    random_states = []
    cropped = reference(transforms.RandomResizedCrop(28, antialias=True))
    files, flips = sorted(data_dir.glob("imagenet/train/*/*.JPEG")), 0
    for seed in range(10):
        order = epoch_batches(21, 1 + seed % 4, 0, seed)
        data = data_with_workers if seed < 3 else data_without_workers
        torch.manual_seed(1)
        shuffled = torch.cat([images[:].cpu() for images, _ in data.train_batches(order, seed)])
        random_states.append(torch.get_rng_state())
        images = shuffled[torch.cat(order).argsort()]
        for index, (file, image) in enumerate(zip(files, images, strict=True)):
            torch.manual_seed((derive_seed(seed, "crop") + index) % 2**63)
            expected = cropped(file)
            mirror_image = expected.flip(-1)
            if (image - mirror_image).abs().max() < (image - expected).abs().max():
                expected = mirror_image
                flips += 1
            torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-5)
    assert 75 < flips < 135  # There are 210 images.
    # The numbers that dropout draws are as without augmentation.
    assert all(torch.equal(state, random_states[0]) for state in random_states)


def test_images_are_tested_with_resize_and_centre_crop(data_dir: Path, tmp_path: Path) -> None:
    """8/7 of 28 is 32."""
    Path("imagenet").symlink_to(data_dir / "imagenet")
    settings = "dataset.workers=0", "dataset.validation=0.3"
    data = imagenet(tmp_path, *settings)
    cut = reference(transforms.Resize(32), transforms.CenterCrop(28))

    def expected(part: str) -> Tensor:
        files = sorted((data_dir / "imagenet" / part).glob("*/*.JPEG"))
        return torch.stack([cut(file) for file in files])

    test_images = torch.cat([images for images, _ in data.test_batches()])
    torch.testing.assert_close(test_images, expected("val"), rtol=1e-5, atol=1e-5)
    labels = torch.cat([answers for _, answers in data.test_batches()])
    assert torch.equal(labels, torch.arange(3).repeat_interleave(PER_CLASS["val"]))
    batches = [*data.plain_batches([torch.arange(data.n)]), *data.test_batches(part="validation")]
    images, expected_images = torch.cat([images for images, _ in batches]), expected("train")
    assert len(images) == len(expected_images)
    distances = torch.cdist(images.flatten(1), expected_images.flatten(1))
    assert distances.min(dim=0).values.max() < 1e-3
