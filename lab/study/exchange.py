"""The study of results/exchange.md: its images, and what is measured at the ends of its runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import update_bn

from igo.data.readers import read
from igo.data.source import Place
from igo.ground.files import durable, partial_of, write_atomically
from igo.runs.assemble import load_folder
from igo.train.state import Training

IMAGES = Path("data/fashion_mnist_14.npz")  # as in conf/experiment/exchange.yaml
BATCH = 500  # images at once, in the statistics and in the evaluation


def halved(_: list[str]) -> None:
    """Write Fashion-MNIST at half its size, as IMAGES: each pixel is the mean of 2×2, rounded."""
    arrays = {}
    for name, split in zip(("", "test_"), read("fashion_mnist", Place(Path("data"))), strict=True):
        squares = split.images.reshape(-1, 14, 2, 14, 2, 1)
        arrays[f"{name}images"] = np.rint(squares.mean(axis=(2, 4))).astype(np.uint8)
        arrays[f"{name}labels"] = split.labels
    IMAGES.parent.mkdir(parents=True, exist_ok=True)
    with durable(partial_of(IMAGES)) as file:
        np.savez(file, **arrays)
    partial_of(IMAGES).replace(IMAGES)
    print(IMAGES)


def anew(folder: Path) -> dict[str, float]:
    """``evaluated`` of the run in this folder, measured if its after.json lacks it."""
    file = folder / "after.json"
    if not file.is_file():
        training, _ = load_folder(folder, lambda _: None, print)
        write_atomically(file, json.dumps(evaluated(training)) + "\n")
    return dict(json.loads(file.read_text()))


def evaluated(run: Training) -> dict[str, float]:
    """Loss and accuracies at a run's end, with BatchNorm's statistics of all its training images.

    The statistics are the plain mean over batches of BATCH images at the weights that the run ended
    with. Running statistics are a mean over the last updates, each at other weights and of b
    images. Accuracies are in %; without held-out images there is none of them.
    """
    network, data = run.network, run.data
    training = torch.arange(data.n).split(BATCH)
    update_bn(data.plain_batches(training), network.train())
    network.eval()

    def mean(batches: object, accuracy: bool) -> float:
        total = count = 0.0
        with torch.no_grad():
            for images, labels in batches:  # type: ignore[attr-defined]
                logits = network(images)
                right = (logits.argmax(dim=1) == labels).sum()
                loss = F.cross_entropy(logits, labels, reduction="sum")
                total += float(100 * right if accuracy else loss)
                count += len(labels)
        return total / count

    found = {
        "anew_loss": mean(data.plain_batches(training), accuracy=False),
        "anew_accuracy": mean(data.test_batches(), accuracy=True),
    }
    if run.config.dataset.validation:
        found["anew_validation"] = mean(data.validation_batches(), accuracy=True)
    return found
