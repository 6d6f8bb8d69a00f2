"""Data sets as batches: what is in them, in which order, and that conf/dataset tells the truth."""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rounding
import torch
import torch.nn.functional as F
from conftest import DEVICES, configure, epoch_batches
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torch import Tensor, nn
from torchvision import transforms
from torchvision.datasets import ImageFolder

from igo.config.schema import AugmentConfig, DatasetConfig, EngineConfig
from igo.data import class_folders, readers
from igo.data.source import Place, Split
from igo.ground.errors import ConfigError, UserError
from igo.method import batches as equal
from igo.train import engine, on_device, on_disk
from igo.train.datasets import Data, TensorData, open_data, shares, subset
from igo.train.streamed import FolderData

CPU = torch.device("cpu")
DATASETS = ("digits", "fashion_mnist", "cifar10", "cifar100", "imagenet")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
# Python 3.12 and later say so of every DataLoader with workers.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", DATASETS)
def test_normalisation_equals_torchvisions(name: str, device: str) -> None:
    """ToTensor and Normalize, for every grey level in every channel."""
    dataset = configure(f"dataset={name}").dataset
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = np.stack([np.roll(levels, c) for c in range(dataset.channels)], axis=-1)
    theirs = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
    )(image)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
    ours = on_device.Normalise(dataset, torch.device(device))(batch)
    assert ours.dtype == torch.float32
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours[0].cpu(), theirs, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["digits", "fashion_mnist"])
def test_the_statistics_are_those_of_the_training_images(name: str, tmp_path: Path) -> None:
    if name == "fashion_mnist" and not DEBIAN.exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    dataset = configure(f"dataset={name}").dataset
    train, test = readers.read(name, Place(tmp_path))
    scaled = train.images.astype(np.float64) / 255
    assert dataset.mean == [pytest.approx(scaled.mean(), abs=5e-5)]  # four decimals
    assert dataset.std == [pytest.approx(scaled.std(), abs=5e-5)]
    assert dataset.samples == len(train.labels)
    shape = (dataset.image_size, dataset.image_size, dataset.channels)
    assert train.images.shape[1:] == test.images.shape[1:] == shape
    assert sorted(set(train.labels)) == sorted(set(test.labels)) == list(range(dataset.classes))


@given(
    n=st.integers(1, 300), b=st.integers(1, 320), seed=st.integers(0, 9), epoch=st.integers(1, 9)
)
def test_an_epoch_is_a_permutation_in_equal_parts(n: int, b: int, seed: int, epoch: int) -> None:
    k = math.ceil(n / b)
    pieces = [len(piece) for piece in epoch_batches(n, k, seed, epoch)]
    assert len(pieces) == k == equal.count(n, b)
    assert max(pieces) <= b
    assert max(pieces) - min(pieces) <= 1
    assert (max(pieces), min(pieces)) == equal.sizes(n, k)
    assert sorted(torch.cat(epoch_batches(n, k, seed, epoch)).tolist()) == list(range(n))


@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    share=st.floats(0, 1),
    order=st.randoms(use_true_random=False),
)
def test_a_subset_is_fixed_and_stratified(counts: list[int], share: float, order: Any) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    order.shuffle(labels)
    samples = max(1, round(share * len(labels)))
    kept = subset(np.array(labels), samples)
    np.testing.assert_array_equal(kept, subset(np.array(labels), samples))
    assert len(set(kept.tolist())) == samples
    assert kept.tolist() == sorted(kept)
    # One threshold on the rank within each class: shares differ by rounding alone.
    kept_counts = np.bincount(np.array(labels)[kept], minlength=len(counts))
    low = max((k - 0.5) / n for k, n in zip(kept_counts, counts, strict=True))
    high = min((k + 0.5) / n for k, n in zip(kept_counts, counts, strict=True))
    assert low <= high + 1e-12


def facts(**changes: Any) -> DatasetConfig:
    """A data set whose normalisation is plain x/255."""
    plain = DatasetConfig(
        name="made", classes=10, channels=3, image_size=12, samples=40, mean=[0.0] * 3,
        std=[1.0] * 3, augment=AugmentConfig(crop=3, flip=True, rotation=15), workers=0,
    )  # fmt: skip
    return replace(plain, **changes)


def tensor_data(n: int = 40, device: str = "cpu", same: bool = False, test: int = 5) -> TensorData:
    draw = np.random.default_rng(0)
    train, held_out = (draw.integers(1, 256, (k, 12, 12, 3), dtype=np.uint8) for k in (n, test))
    if same:
        train[:] = train[0]
    splits = Split(train, np.arange(n) % 10), Split(held_out, np.arange(test) % 10)
    return TensorData(facts(samples=n), *splits, torch.device(device))


def by_index(data: Data, index_batches: list[Tensor], seed: int) -> tuple[Tensor, Tensor]:
    """All images and labels of some batches, in the order of the data set."""
    batches = list(data.train_batches(index_batches, seed))
    assert [len(labels) for _, labels in batches] == [len(index) for index in index_batches]
    back = torch.cat(index_batches).argsort()
    images, labels = (torch.cat([batch[k] for batch in batches]).cpu() for k in (0, 1))
    return images[back], labels[back]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("at_once", [1, 17, 256])
@pytest.mark.parametrize("b", [1, 7, 16, 40])
def test_an_image_is_augmented_alike_in_every_batch_size_and_on_every_device(
    b: int, at_once: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igo.train.on_device.MADE_AT_ONCE", at_once)
    whole, _ = by_index(tensor_data(), epoch_batches(40, 1, 3, 1), seed=5)
    parts, labels = by_index(
        tensor_data(device=device), epoch_batches(40, equal.count(40, b), 0, 2), seed=5
    )
    # Places of up to 12 pixels, from two products and two sums; neighbours differ by 1 at most.
    torch.testing.assert_close(parts, whole, rtol=0, atol=12 * rounding.bound(4))
    assert torch.equal(labels, torch.arange(40) % 10)


def test_augmentation_differs_by_image_and_epoch_and_is_reproducible_from_the_seed() -> None:
    data, batches = tensor_data(same=True), epoch_batches(40, 5, 0, 1)
    images, _ = by_index(data, batches, seed=5)
    again, _ = by_index(data, batches, seed=5)
    other, _ = by_index(data, batches, seed=6)
    assert torch.equal(images, again)
    assert len({image.numpy().tobytes() for image in images}) > 35  # 40 copies of one image
    assert (images != other).flatten(1).any(dim=1).sum() > 35


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n", [5, 1000, 2300])
def test_evaluation_covers_each_test_image_once_and_never_augments(n: int, device: str) -> None:
    draw = np.random.default_rng(1)
    pixels = draw.integers(0, 256, (n, 12, 12, 3), dtype=np.uint8)
    labels = draw.integers(0, 10, n)
    split = Split(pixels, labels)
    data = TensorData(facts(), split, split, torch.device(device))
    batches = list(data.test_batches())
    seen = torch.cat([images for images, _ in batches]).cpu()
    wanted = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(seen, wanted, rtol=0, atol=1e-6)
    assert torch.cat([answers for _, answers in batches]).tolist() == labels.tolist()


def test_a_training_subset_holds_the_images_of_its_indices(tmp_path: Path) -> None:
    config = configure("dataset.samples=100")
    data = open_data(config, CPU)
    train, test = readers.read("digits", Place(tmp_path))
    kept = subset(train.labels, 100)
    images, labels = by_index(data, epoch_batches(100, 4, 0, 1), seed=0)
    mean, std = config.dataset.mean[0], config.dataset.std[0]
    wanted = (torch.from_numpy(train.images[kept]).permute(0, 3, 1, 2) / 255 - mean) / std
    torch.testing.assert_close(images, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(labels, torch.from_numpy(train.labels[kept]))
    assert sum(len(answers) for _, answers in data.test_batches()) == len(test.labels) == 360


@pytest.mark.parametrize(
    ("setting", "value", "actual"),
    [
        ("dataset.classes", "9", "10"),
        ("dataset.classes", "11", "10"),
        ("dataset.image_size", "16", "8x8x1"),
        ("dataset.samples", "1438", "1437"),
    ],
)
def test_wrong_facts_in_conf_are_named(setting: str, value: str, actual: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting}={value} is not allowed: .*{actual}"):
        open_data(configure(f"{setting}={value}"), CPU)


CLASSES = ("n01440764", "n01443537", "n01484850")  # named as ImageNet names them
PER_CLASS = {"train": 7, "val": 3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ImageNet: real JPEGs of several sizes, one grey and one CMYK as ImageNet has them."""
    root = tmp_path_factory.mktemp("data") / "imagenet"
    draw = np.random.default_rng(0)
    for part, count in PER_CLASS.items():
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                coarse = draw.integers(0, 256, (5, 6, 3), dtype=np.uint8)
                size = (40 + 7 * i, 60 - 5 * label)
                image = Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR)
                if label == 0:
                    image = image.convert({0: "L", 1: "CMYK"}.get(i, "RGB"))
                image.save(root / part / name / f"{name}_{i}.JPEG", quality=95)
    return root


def folder_facts(**changes: Any) -> DatasetConfig:
    settings = {
        "name": "imagenet", "classes": 3, "image_size": 28, "samples": 21,
        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        "augment": AugmentConfig(flip=True),
    }  # fmt: skip
    return facts(**{**settings, **changes})


def imagenet(root: Path, device: torch.device = CPU, **changes: Any) -> FolderData:
    images = class_folders.images("imagenet", Place(root.parent, image_size=28, channels=3))
    dataset = folder_facts(**changes)
    parts = shares(images.labels(images.train), dataset)
    return FolderData(dataset, images, parts, device)


@pytest.mark.parametrize("device", DEVICES)
def test_folders_are_the_same_batches_for_any_number_of_workers(folders: Path, device: str) -> None:
    batches, after = epoch_batches(21, 3, 0, 1), []
    drawn = []
    for workers, where in ((0, "cpu"), (2, device)):
        torch.manual_seed(1)
        data = imagenet(folders, torch.device(where), workers=workers)
        drawn.append([*data.train_batches(batches, seed=4), *data.test_batches()])
        after.append(torch.random.get_rng_state())
    for (images, labels), (others, other_labels) in zip(*drawn, strict=True):
        torch.testing.assert_close(images.cpu(), others.cpu(), rtol=0, atol=1e-6)
        assert torch.equal(labels.cpu(), other_labels.cpu())
        assert images.shape[1:] == (3, 28, 28)
    assert torch.equal(*after)  # so dropout is the same too


def children() -> set[int | None]:
    return {child.pid for child in multiprocessing.active_children()}


def test_images_are_in_the_order_of_torchvisions_folders(folders: Path, tmp_path: Path) -> None:
    image = next(folders.glob("train/*/*.JPEG"))
    for name in ("b/2", "b/1/0", "b-1/0", "b/zz", "c/x/y/3", "c/x-1/4", "c/x/5"):
        for part in ("train", "val"):
            file = tmp_path / "imagenet" / part / f"{name}.JPEG"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.symlink_to(image)
    ours = class_folders.images("imagenet", Place(tmp_path))
    for part, files in (("train", ours.train), ("val", ours.test)):
        theirs = ImageFolder(str(tmp_path / "imagenet" / part))
        names = [
            Path(file).relative_to(tmp_path / "imagenet").as_posix() for file, _ in theirs.imgs
        ]
        assert [file.name for file in files] == names
        assert ours.labels(files).tolist() == theirs.targets
        assert ours.classes == theirs.classes


def test_workers_live_for_all_epochs(folders: Path) -> None:
    """A pass that was given up leaves nothing behind for the next one, which starts others."""
    data = imagenet(folders, workers=2)
    batches = epoch_batches(21, 3, 0, 1)
    others = children()
    list(data.train_batches(batches, seed=3))
    alive = children() - others
    again = list(data.train_batches(batches, seed=4))
    assert len(alive) == 2
    assert children() - others == alive
    next(data.train_batches(batches, seed=5))
    after = list(data.train_batches(batches, seed=4))
    alone = list(imagenet(folders).train_batches(batches, seed=4))
    for (images, _), (anew, _), (wanted, _) in zip(again, after, alone, strict=True):
        assert torch.equal(images, wanted)
        assert torch.equal(anew, wanted)


def test_a_large_batch_from_disk_takes_little_memory_at_once(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch of 21 images, workers hand over 2 at a time and the device holds 3 at most."""
    handed, normalised = [], []
    collate, normalise = on_disk.collate, on_device.Normalise.__call__

    def handing(samples: list[Any]) -> Any:
        handed.append(len(samples))
        return collate(samples)

    def making(self: on_device.Normalise, images: Tensor) -> Tensor:
        normalised.append(len(images))
        return normalise(self, images)

    monkeypatch.setattr(on_disk, "PIECE", 2)
    monkeypatch.setattr(on_disk, "collate", handing)  # before the reader is made
    monkeypatch.setattr(on_device.Normalise, "__call__", making)
    run = engine.build(EngineConfig(device="cpu", precision="fp32", micro_batch_size=3))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 3))
    data = imagenet(folders)
    (batch,) = data.train_batches([torch.arange(21)], 4, run.micro_batch_size)
    totals = run.backward(network, *batch)
    parts = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    assert (max(handed), sum(handed)) == (2, 21)
    assert (max(normalised), sum(normalised)) == (3, 21)

    (whole,) = data.train_batches([torch.arange(21)], 4)
    loss = F.cross_entropy(network(whole[0]), whole[1])
    wanted = torch.autograd.grad(loss, [*network.parameters()])
    for ours, theirs in zip(parts, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert totals[0].item() == pytest.approx(21 * loss.item(), rel=1e-5)


@pytest.mark.parametrize("part", ["train", "val"])
def test_folders_are_tested_with_resize_and_centre_crop(folders: Path, part: str) -> None:
    """8/7 of 28 is 32; torchvision's first-generation transforms as the reference."""
    data = imagenet(folders)
    plain = data.plain_batches(list(torch.arange(21).split(8)))
    batches = list(data.test_batches() if part == "val" else plain)
    seen = torch.cat([images for images, _ in batches])
    labels = torch.cat([answers for _, answers in batches])
    reference = transforms.Compose(
        [
            transforms.Resize(32),
            transforms.CenterCrop(28),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    files = sorted((folders / part).glob("*/*.JPEG"))
    wanted = torch.stack([reference(Image.open(file).convert("RGB")) for file in files])
    torch.testing.assert_close(seen, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(labels, torch.arange(3).repeat_interleave(PER_CLASS[part]))


@pytest.mark.parametrize("device", DEVICES)
def test_plain_batches_are_the_images_as_they_are(device: str) -> None:
    config = configure("dataset.augment.flip=true", "dataset.augment.crop=2")
    data = open_data(config, torch.device(device))
    train, _ = readers.read("digits", Place(Path("/nonexistent")))
    draw = torch.tensor([5, 3, 1000, 5, 77])
    (images, labels), (other, _) = data.plain_batches([draw, torch.arange(2)])
    mean, std = config.dataset.mean[0], config.dataset.std[0]
    wanted = (train.images[draw.numpy()][..., 0] / 255 - mean) / std
    np.testing.assert_allclose(images[:, 0].cpu(), wanted, rtol=1e-5, atol=1e-5)
    assert labels.tolist() == train.labels[draw.numpy()].tolist()
    assert len(other) == 2


def drawn_of(image: Image.Image, dataset: DatasetConfig, seeds: range) -> Tensor:
    """The same image under the training transform of each seed, (b, C, H, W)."""
    transform = on_disk.train_transform(dataset)
    images = on_disk.OnDisk([image], np.zeros(1, np.int64), transform)
    drawn = [images[0, seed] for seed in seeds]
    return torch.stack([sample.permute(2, 0, 1) for sample in drawn if isinstance(sample, Tensor)])


def test_random_crops_have_imagenets_areas_and_shapes_and_half_are_flipped() -> None:
    """Read back from an image whose red is its column and whose green is its row."""
    columns, rows = np.meshgrid(np.arange(256), np.arange(256))
    ramps = np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)
    drawn = drawn_of(Image.fromarray(ramps), folder_facts(), range(300)).double()
    right, down = (
        (drawn[:, 0, 14, -1] - drawn[:, 0, 14, 0]),
        drawn[:, 1, -1, 14] - drawn[:, 1, 0, 14],
    )
    width, height = right.abs() * 28 / 27, down * 28 / 27
    area, ratio = width * height / 256**2, width / height
    assert 0.07 < area.min() < 0.2
    assert 0.8 < area.max() <= 1.02
    assert 0.70 < ratio.min() < 0.85
    assert 1.2 < ratio.max() < 1.40
    assert stats.binomtest(int((right < 0).sum()), 300, 0.5).pvalue > 1e-3
    corners = drawn[:, 0].flatten(1).min(dim=1).values
    assert stats.ks_2samp(corners, drawn[:, 1].flatten(1).min(dim=1).values).pvalue > 1e-3


@pytest.fixture
def copied(folders: Path, tmp_path: Path) -> Path:
    """The same folders, to be damaged."""
    import shutil

    return Path(shutil.copytree(folders, tmp_path / "imagenet"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_damaged_image_is_named(damage: str, workers: int, copied: Path) -> None:
    path = copied / "train" / CLASSES[1] / f"{CLASSES[1]}_2.JPEG"
    whole = path.read_bytes()
    path.write_bytes(
        {"truncated": whole[: len(whole) // 2], "text": b"<html>", "empty": b""}[damage]
    )
    data = imagenet(copied, workers=workers)
    with pytest.raises(UserError, match=rf"^{path} is damaged \(.+\)") as caught:
        list(data.train_batches(epoch_batches(21, 3, 0, 1), seed=4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["train", "val"])
def test_missing_folders_say_what_to_do(part: str, copied: Path) -> None:
    (copied / part).rename(copied / "elsewhere")
    with pytest.raises(UserError, match=rf"{copied / part}.*data_dir="):
        imagenet(copied)
