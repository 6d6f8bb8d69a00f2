"""The test accuracy after a short anneal, which is the same for all runs.

It is 100 updates of b = 32 while η falls linearly from 0.1 to 0, and separates better parameters
from less noise in the last updates. BatchNorm's statistics are then the mean over all training
images. The accuracy is written to after.json in the run's folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F

from igo.ground.files import write_atomically
from igo.ground.seeds import generator
from igo.runs.assemble import load_folder
from igo.train.state import Training
from lab.noise.networks import average_batchnorm

UPDATES, BATCH, RATE = 100, 32, 0.1


def annealed(run: Training) -> float:
    """The accuracy in %."""
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


def measure(folder: Path) -> float:
    """``annealed`` of the run in this folder, measured if after.json lacks it."""
    file = folder / "after.json"
    if not file.is_file():
        training, _ = load_folder(folder, lambda _: None, print)
        write_atomically(file, json.dumps({"annealed": annealed(training)}) + "\n")
    return float(json.loads(file.read_text())["annealed"])
