"""What is measured at the end of a run with new statistics of BatchNorm; kept in after.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import update_bn

from igo.ground.files import write_atomically
from igo.runs.assemble import load_folder
from igo.train.on_device import Batch
from igo.train.state import Training

AT_ONCE = 500  # images of a batch, in the statistics and in the evaluation


def measure(folder: Path) -> dict[str, float]:
    """``anew`` of the run in this folder, measured if its after.json is missing."""
    file = folder / "after.json"
    if not file.is_file():
        training = load_folder(folder)
        write_atomically(file, json.dumps(anew(training)) + "\n")
    return dict(json.loads(file.read_text()))


def anew(run: Training) -> dict[str, float]:
    """Loss and accuracies in %, with BatchNorm's statistics of all training images.

    The statistics are the plain mean over batches of AT_ONCE images at the weights that the run
    ended with. Running statistics are a mean over the last updates, each at other weights and of b
    images.
    """
    network, data = run.network, run.data
    images = torch.arange(data.n).split(AT_ONCE)
    update_bn(data.plain_batches(images), network.train())
    loss, _ = _evaluated(network, data.plain_batches(images))
    found = {"anew_loss": loss, "anew_accuracy": _evaluated(network, data.test_batches())[1]}
    if run.config.dataset.validation:
        found["anew_validation"] = _evaluated(network, data.validation_batches())[1]
    return found


def _evaluated(network: nn.Module, batches: Iterable[Batch]) -> tuple[float, float]:
    """Mean loss, and accuracy in %, in eval mode."""
    network.eval()
    loss = right = count = 0.0
    with torch.no_grad():
        for images, labels in batches:
            logits = network(images)
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            right += float((logits.argmax(dim=1) == labels).sum())
            count += len(labels)
    return loss / count, 100 * right / count
