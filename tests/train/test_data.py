"""Data sets as batches: what is in them, in which order, and that conf/dataset tells the truth."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rounding
import torch
from conftest import configure, epoch_batches
from torch import Tensor
from torchvision.transforms import functional
from trained import dataset

from igo.config.schema import AugmentConfig
from igo.data import identity, readers
from igo.data.readers import Place, Split
from igo.ground.errors import ConfigError
from igo.plans import batches as equal
from igo.train.datasets import open_data
from igo.train.on_device import Data, TensorData

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["digits", "fashion_mnist"])
def test_the_statistics_are_those_of_the_training_images(name: str, tmp_path: Path) -> None:
    if name == "fashion_mnist" and not readers.DEBIAN_FASHION_MNIST.exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    facts = configure(f"dataset={name}").dataset
    train, test = identity.read(name, Place(tmp_path))
    pixels = train.images.astype(np.float64) / 255
    assert facts.mean == [pytest.approx(pixels.mean(), abs=5e-5)]  # four decimals
    assert facts.std == [pytest.approx(pixels.std(), abs=5e-5)]
    assert facts.samples == len(train.labels)
    shape = (facts.image_size, facts.image_size, facts.channels)
    assert train.images.shape[1:] == test.images.shape[1:] == shape
    assert sorted(set(train.labels)) == sorted(set(test.labels)) == list(range(facts.classes))


MOVED = AugmentConfig(crop=3, flip=True, rotation=15)


def tensor_data(n: int, device: str, **normalisation: Any) -> tuple[TensorData, Split]:
    """A data set that is used to train and to test."""
    images = np.random.default_rng(0).integers(1, 256, (n, 12, 12, 3), dtype=np.uint8)
    facts = dataset(size=12, samples=n, augment=MOVED, **normalisation)
    split = Split(images, np.arange(n) % 10)
    return TensorData(facts, {"train": split, "test": split}, torch.device(device)), split


def by_index(data: Data, index_batches: list[Tensor], seed: int) -> tuple[Tensor, Tensor]:
    """All images and labels of some batches, in the order of the data set."""
    batches = list(data.train_batches(index_batches, seed))
    assert [len(labels) for _, labels in batches] == [len(index) for index in index_batches]
    back = torch.cat(index_batches).argsort()
    images, labels = (torch.cat([batch[k] for batch in batches]).cpu() for k in (0, 1))
    return images[back], labels[back]


def test_an_image_is_augmented_alike_in_every_batch_size_and_on_every_device(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for b, at_once in product((1, 7, 16, 40), (1, 17, 256)):
        monkeypatch.setattr("igo.train.on_device.MADE_AT_ONCE", at_once)
        images, _ = by_index(tensor_data(40, "cpu")[0], epoch_batches(40, 1, 3, 1), seed=5)
        batches = epoch_batches(40, equal.count(40, b), 0, 2)
        images_of_batches, labels = by_index(tensor_data(40, device)[0], batches, seed=5)
        # Places of up to 12 pixels, from two products and two sums; neighbours differ by 1 at most.
        torch.testing.assert_close(images_of_batches, images, rtol=0, atol=12 * rounding.bound(4))
        assert torch.equal(labels, torch.arange(40) % 10)


def test_images_are_as_they_are_in_evaluation_and_plain_batches(device: str) -> None:
    """Normalised as by torchvision."""
    for n in (5, 1000, 2300):
        mean, std = [0.1, 0.3, 0.5], [0.2, 0.3, 0.25]
        (data, split), index = tensor_data(n, device, mean=mean, std=std), [4, 2, n - 1, 4, n // 2]
        plain = list(data.plain_batches([torch.tensor(index), torch.arange(2)]))
        assert [len(labels) for _, labels in plain] == [5, 2]
        for batches, rows in ((data.test_batches(), range(n)), (plain, [*index, 0, 1])):
            batch_images, labels = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
            images = torch.from_numpy(split.images[rows]).permute(0, 3, 1, 2) / 255
            images = functional.normalize(images, mean, std)
            torch.testing.assert_close(batch_images, images, rtol=1e-6, atol=2e-6)
            assert labels.tolist() == split.labels[rows].tolist()


def test_wrong_facts_in_conf_are_named() -> None:
    for words, actual in (
        ("dataset.classes=9", "10"),
        ("dataset.classes=11", "10"),
        ("dataset.image_size=16", r"\(8, 8, 1\)"),
        ("dataset.samples=1438", "1437"),
    ):
        with pytest.raises(ConfigError, match=f"{words} is not allowed: .*{actual}"):
            open_data(configure(words), CPU)
