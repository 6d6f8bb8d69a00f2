"""Images held out to tune on: always the same, never trained on, and n is what is left."""

from collections.abc import Iterator

import numpy as np
import pytest
import rounding
import torch
from conftest import TINY, configure, records, run_folder
from forked import forge
from torch import Tensor
from trained import dataset, loaded

from igo.train.datasets import open_data, shares
from igo.train.on_device import Data

CPU = torch.device("cpu")
VALIDATED = (*TINY, "dataset.validation=0.25", "tracking=none", "engine.precision=fp32")


def test_held_out_images_are_a_fixed_stratified_share() -> None:
    for draw in range(25):
        random = np.random.default_rng(draw)
        counts = random.integers(2, 60, size=random.integers(2, 7)).tolist()
        validation = float(random.uniform(0, 0.9))
        labels = random.permutation([c for c, count in enumerate(counts) for _ in range(count)])
        n = len(labels)
        facts = dataset(samples=n, validation=validation)
        rows, held_rows = shares(labels, facts)
        assert len(held_rows) == round(validation * n)
        assert sorted([*rows, *held_rows]) == list(range(n))
        assert held_rows.tolist() == shares(labels, facts)[1].tolist()
        held_counts = np.bincount(labels[held_rows], minlength=len(counts))
        shares_of_classes = len(held_rows) / n * np.array(counts)
        assert (np.abs(held_counts - shares_of_classes) < 1).all(), (
            "each class gives the same share"
        )


def pixels(batches: Iterator[tuple[Tensor, Tensor]]) -> list[bytes]:
    return [image.numpy().tobytes() for images, _ in batches for image in images]


def some(*words: str) -> Data:
    return open_data(configure("dataset.samples=400", *words), CPU)


def test_training_and_validation_images_are_all_and_redrawn_each_seed_has_its_own() -> None:
    everything = sorted(pixels(some().plain_batches([torch.arange(400)])))
    for redraw in (False, True):
        images_of_seeds = []
        for seed in (1, 2):
            data = some("dataset.validation=0.25", f"dataset.redraw={redraw}", f"seed={seed}")
            images = pixels(data.plain_batches([torch.arange(300)]))
            held_images = pixels(data.test_batches(part="validation"))
            assert (sorted(images + held_images) == everything) is not redraw
            images_of_seeds.append((sorted(images), sorted(held_images)))
            assert data.n == 300
        assert (images_of_seeds[0] == images_of_seeds[1]) is not redraw
    labels = np.arange(100) % 10  # all of them are in use
    facts = dataset(validation=0.2)
    assert {*shares(labels, facts, 1)[1]} != {*shares(labels, facts, 2)[1]}


def test_the_record_has_validation_as_the_network_gives_it() -> None:
    output = forge.run(*VALIDATED).good().stdout
    rows = records()
    assert [row["samples"] for row in rows] == [72, 144, 216], "n = 96 - 24"
    training = loaded(run_folder())
    images, labels = next(iter(training.data.test_batches(part="validation")))
    assert len(labels) == 24
    network = training.network.eval()
    logits = network(images).double()
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    close = rounding.bound(rounding.terms(network, images, backward=False), 10, 24)
    assert rows[-1]["validation/loss"] == pytest.approx(loss, rel=close)
    right = (logits.argmax(1) == labels).sum().item()
    assert rows[-1]["validation/accuracy"] * 24 == pytest.approx(right, rel=1e-6)
    assert f"validation accuracy {rows[-1]['validation/accuracy']:.2%}" in output
