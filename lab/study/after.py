"""Measurements at the end of the study's runs, written to after.json in each run's folder.

``annealed`` is the test accuracy in % after a short anneal, the same for all runs: 100 updates of
b = 32 while η falls linearly from 0.1 to 0. It separates better parameters from less noise in the
last updates. BatchNorm's statistics are then the mean over all training images. ``tail`` is Hill's
index of the norms of the one-sample gradients minus their mean, in eval mode.
``train_loss`` is the mean cross-entropy on all training images, in eval mode, without augmentation.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from igo.ground.files import write_atomically
from igo.ground.seeds import generator
from igo.runs.assemble import load_folder
from igo.train.state import Training
from lab.noise.networks import average_batchnorm, sample_gradients
from lab.noise.quantities import tail_index

UPDATES, BATCH, RATE = 100, 32, 0.1
EVALUATED = 512  # images at a time


def annealed(run: Training) -> float:
    """Test accuracy in % after the anneal."""
    network, data = run.network.train(), run.data
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    random = generator(run.config.seed, "anneal")
    batches: list[torch.Tensor] = []
    while len(batches) < UPDATES:
        whole = data.n // BATCH * BATCH
        batches += list(torch.randperm(data.n, generator=random)[:whole].split(BATCH))
    batches = batches[:UPDATES]
    for step, (images, labels) in enumerate(data.train_batches(batches, run.config.seed)):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / UPDATES)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    average_batchnorm(network, data.plain_batches(torch.arange(data.n).tensor_split(4)))
    network.eval()
    with torch.no_grad():
        right = [(network(x).argmax(dim=1) == y).float() for x, y in data.test_batches()]
    return 100 * float(torch.cat(right).mean())


def tail(run: Training) -> float:
    """Hill's tail index of the one-sample gradients."""
    gradients = sample_gradients(run.network, run.data)
    sizes = (gradients - gradients.mean(dim=0)).norm(dim=1)
    return tail_index(sizes.double().numpy()).value


def train_loss(run: Training) -> float:
    """Mean cross-entropy on all training images."""
    network = run.network.eval()
    parts = torch.arange(run.data.n).split(EVALUATED)
    with torch.no_grad():
        losses = [
            F.cross_entropy(network(images), labels, reduction="none")
            for images, labels in run.data.plain_batches(parts)
        ]
    return float(torch.cat(losses).double().mean())


MEASURES: dict[str, Callable[[Training], float]] = {
    "tail": tail,
    "annealed": annealed,
    "train_loss": train_loss,
}


def measure(folder: Path, names: list[str]) -> dict[str, float]:
    """Add the named measurements that after.json lacks. Each starts from the end of the run."""
    file = folder / "after.json"
    measured: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
    for name in names:
        if name in measured:
            continue
        training, _ = load_folder(folder, lambda _: None, print)
        measured[name] = MEASURES[name](training)
        write_atomically(file, json.dumps(measured) + "\n")
    return measured
