"""Images in class folders: Pillow and torchvision are the reference."""

import errno
import multiprocessing
import shutil
import signal
import traceback
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import configure, epoch_batches, run_folder, status
from data_files import write_images
from forked import Death, forge
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from igo.config.schema import Config
from igo.data import folders
from igo.data.readers import Missing, Place
from igo.ground.errors import Outside, UserError
from igo.ground.seeds import derive_seed
from igo.train import datasets
from igo.train.datasets import open_data
from igo.train.on_device import Data, TensorData

CPU = torch.device("cpu")
CLASSES = ("n01440764", "n01443537", "n01484850")  # named as ImageNet names them
PER_CLASS = {"train": 7, "val": 3}
SMALL = ("dataset.image_size=28", "batch_size=6", "noise.batches=2")
# What a user types, and what becomes of a test image; of ImageNet's 8/7 of 28 is 32.
KINDS: dict[str, tuple[str, list[v2.Transform]]] = {
    "imagenet": (
        "dataset=imagenet dataset.classes=3 dataset.samples=21",
        [v2.Resize(32), v2.CenterCrop(28)],
    ),
    "folder": ("dataset=folder", [v2.Resize(28), v2.CenterCrop(28)]),
    "grey": (
        "dataset=folder dataset.channels=1",
        [v2.Grayscale(), v2.Resize(28), v2.CenterCrop(28)],
    ),
}
SHORT = ("dataset.workers=2", "epochs=2", "model.width=4", "tracking=none", "engine.precision=fp32")
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


def configured(kind: str, data_dir: Path, *settings: str) -> Config:
    root = (f"dataset.root={data_dir / 'imagenet'}",) if kind != "imagenet" else ()
    return configure(*KINDS[kind][0].split(), *SMALL, *root, f"data_dir={data_dir}", *settings)


def imagenet(data_dir: Path, *settings: str, device: str = "cpu") -> Data:
    return open_data(configured("imagenet", data_dir, *settings), torch.device(device))


def files(data_dir: Path, part: str) -> list[Path]:
    return sorted(data_dir.glob(f"imagenet/{part}/*/*.JPEG"))


def pixels(file: Path, *moves: v2.Transform) -> Tensor:
    """(C, H, W) uint8 after transforms of Pillow's image."""
    return v2.Compose([*moves, v2.PILToTensor()])(Image.open(file).convert("RGB"))


@pytest.mark.parametrize("most_bytes", [datasets.MOST_BYTES, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_images_and_what_is_found_in_them(
    kind: str, most_bytes: int, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, or decoded in each pass."""
    monkeypatch.setattr(datasets, "MOST_BYTES", most_bytes)
    config = configured(kind, data_dir, "dataset.validation=0.3", "dataset.workers=2")
    data, facts = open_data(config, CPU), config.dataset
    assert isinstance(data, TensorData) == (most_bytes > 0 and kind != "imagenet")
    train, test = (
        torch.stack([pixels(file, *KINDS[kind][1]) for file in files(data_dir, part)])
        for part in PER_CLASS
    )
    if kind != "imagenet":
        counts = facts.classes, facts.channels, facts.image_size, facts.samples
        assert counts == (3, train.shape[1], 28, 21)
        std, mean = torch.std_mean(train / 255, dim=(0, 2, 3), correction=0)
        np.testing.assert_allclose([facts.mean, facts.std], [mean, std], atol=6e-5)

    def as_rows(images: Tensor, labels: Tensor) -> list[bytes]:
        return [bytes(i.numpy()) + bytes([x]) for i, x in zip(images, labels.tolist(), strict=True)]

    def read(batches: Any) -> list[bytes]:
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        scale, shift = (torch.tensor(x).view(-1, 1, 1) for x in (facts.std, facts.mean))
        return as_rows(((images * scale + shift) * 255).round().byte(), labels)

    assert read(data.test_batches()) == as_rows(test, torch.arange(3).repeat_interleave(3))
    order = torch.randperm(data.n).split(5)
    rows = [*read(data.plain_batches(order)), *read(data.test_batches(part="validation"))]
    assert data.n == 15
    assert sorted(rows) == sorted(as_rows(train, torch.arange(3).repeat_interleave(7)))


MOVES: dict[str, list[v2.Transform]] = {
    "imagenet": [v2.RandomResizedCrop(28), v2.RandomHorizontalFlip()],
    "folder": [
        *KINDS["folder"][1],
        v2.RandomCrop(28, padding=3),
        v2.RandomHorizontalFlip(),
        v2.RandomRotation(15),
    ],
}


@pytest.mark.parametrize("kind", MOVES)
def test_augmentation_is_torchvisions_by_seed_and_image_alone(
    kind: str, data_dir: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever batch and worker."""
    monkeypatch.setattr(datasets, "MOST_BYTES", 0)
    moves = ("crop=3", "rotation=15") if kind == "folder" else ()
    settings = [f"dataset.augment.{move}" for move in ("flip=true", *moves)]
    random_states = []
    for seed, workers in ((3, 0), (4, 2), (5, 0)):
        config = configured(kind, data_dir, *settings, f"dataset.workers={workers}")
        order = epoch_batches(21, seed, 0, seed)
        torch.manual_seed(1)
        batches = [*open_data(config, torch.device(device)).train_batches(order, seed)]
        random_states.append(torch.get_rng_state())
        images = torch.cat([images.cpu() for images, _ in batches])[torch.cat(order).argsort()]
        normalise = v2.Normalize(config.dataset.mean, config.dataset.std)
        for index, file in enumerate(files(data_dir, "train")):
            torch.manual_seed(derive_seed(seed, "sample", 0, index))
            expected = normalise(pixels(file, *MOVES[kind]) / 255)
            torch.testing.assert_close(images[index], expected, rtol=1e-5, atol=1e-5)
    # The numbers that dropout draws are as without augmentation.
    assert all(torch.equal(state, random_states[0]) for state in random_states)


def test_where_the_images_are_is_no_setting_and_others_are_noticed(tmp_path: Path) -> None:
    root, copy = write_images(tmp_path / "mine", 4), tmp_path / "copy"
    settings = ("dataset=folder", "epochs=2", "batch_size=8", "model.width=4", "noise.batches=2")

    def train(place: Path) -> Any:
        return forge.run(*settings, "tracking=none", f"dataset.root={place}")

    train(root).good()
    assert status()["data"]["read_from"] == str(root)
    shutil.copytree(root, copy)
    assert "finished before" in train(copy).good().stdout
    file = copy / "val" / "cow" / "000.png"
    content = file.read_bytes()
    for change in (lambda: file.write_bytes(b""), lambda: file.rename(file.with_name("9.png"))):
        change()
        line = train(copy).error()
        assert str(root) in line
        assert str(copy) in line
        file.write_bytes(content)
    assert run_folder().name.startswith("folder-")


def sizes(root: Path) -> list[int]:
    folders._listed.cache_clear()  # A new process has listed nothing.
    _, splits = folders.found("folder", Place(root, root))
    return [len(images) for images in splits]


def test_the_test_set_is_in_val_or_else_in_test_or_a_fifth(tmp_path: Path) -> None:
    root = write_images(tmp_path / "mine", 4)
    assert sizes(root) == [60, 12]
    (root / "val").rename(root / "test")
    assert sizes(root) == [60, 12]
    shutil.copytree(root / "test", root / "val")
    (root / "val" / "cat" / "000.png").unlink()
    assert sizes(root) == [60, 11]
    for part in ("val", "test"):
        shutil.rmtree(root / part)
    assert sizes(root) == [48, 12]


def test_what_is_missing_or_too_much_is_named(data_copy: Path) -> None:
    root = data_copy / "imagenet"
    (root / "train" / "n9").mkdir()
    with pytest.raises(Missing, match=r"no images .*Found no valid file for the classes n9"):
        sizes(root)
    shutil.copy(files(data_copy, "train")[0], root / "train" / "n9")
    with pytest.raises(UserError, match=r"the same class folders; n9 is in one of them only"):
        sizes(root)
    shutil.rmtree(root / "train" / "n9")
    folders._listed.cache_clear()
    with pytest.raises(UserError, match=r"of sizes 40x50, 40x55, .*, …; set dataset.image_size"):
        configured("folder", data_copy, "dataset.image_size=null")
    with pytest.raises(UserError, match=r"dataset.channels=2 is not allowed"):
        configured("folder", data_copy, "dataset.channels=2")
    shutil.rmtree(root / "train")
    with pytest.raises(Missing, match=rf"no images to read in {root}/train .*data_dir="):
        sizes(root)


@pytest.mark.parametrize(
    ("damage", "workers"), [("truncated", 2), ("text", 0), ("gone", 0), ("16 bits", 0)]
)
def test_an_image_that_cannot_be_read_is_named(damage: str, workers: int, data_copy: Path) -> None:
    path = files(data_copy, "train")[9]
    data, content = imagenet(data_copy, f"dataset.workers={workers}"), path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "16 bits":
        Image.fromarray(np.zeros((12, 12), dtype=np.uint16)).save(path, "PNG")
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"<html>")
    with pytest.raises(UserError, match=rf"^{path} cannot be read \(.+\)$") as caught:
        list(data.train_batches(epoch_batches(21, 3, 0, 1), seed=4))
    traceback.clear_frames(caught.tb)  # Workers end now, and not in a later test.
    assert "\n" not in str(caught.value)


def test_a_worker_that_is_killed_is_one_line_where_it_is_read(data_dir: Path) -> None:
    """And not anywhere, by a handler of PyTorch's for SIGCHLD."""
    other_processes, handler = multiprocessing.active_children(), signal.getsignal(signal.SIGCHLD)
    data = imagenet(data_dir, "dataset.workers=2")
    full = patch("os.fork", side_effect=BlockingIOError(errno.EAGAIN, "no room"))
    with full, pytest.raises(Outside, match=r"^a worker .* cannot start \(.*no room\)"):
        next(data.train_batches(epoch_batches(21, 21, 0, 1), seed=4))
    stream = data.train_batches(epoch_batches(21, 21, 0, 1), seed=4)
    next(stream)
    assert signal.getsignal(signal.SIGCHLD) == handler
    for worker in multiprocessing.active_children():
        if worker not in other_processes:
            worker.kill()
    with pytest.raises(Outside, match=r"^a worker that reads images was killed.*\(.*\)"):
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
    settings = (*KINDS["imagenet"][0].split(), *SMALL, *SHORT, f"data_dir={data_dir}")
    process = forge.run(*settings, death=death)
    assert (process.returncode, process.stderr) == (128 + signal.Signals[name], "")
    assert (status()["state"], status()["signal"]) == ("interrupted", name)
