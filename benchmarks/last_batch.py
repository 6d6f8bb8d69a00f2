"""The effect of an epoch's short last batch: `python -m benchmarks.last_batch`.

A plain PyTorch loop at constant noise makes the batches of an epoch in three ways: as a DataLoader
by default (the shorter last batch is kept), with ``drop_last``, or as equal parts. It trains a
ResNet-8 of width 8 on Fashion-MNIST, b = 54, η = 0.2, 12 epochs, with the same images and seeds for
all three. The last batch has r = n mod 54 images. Finished runs are kept in
results/last_batch/runs.csv; the same command continues.
"""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from benchmarks.cells import configure
from igo.ground.files import write_atomically
from igo.ground.seeds import generator
from igo.method import batches
from igo.train import datasets, models

FOLDER = Path(__file__).parents[1] / "results" / "last_batch"
B, ETA, EPOCHS, SEEDS = 54, 0.2, 12, range(5)
REMAINDERS = {"none": 1998, "1": 1999, "2": 2000, "8": 2006}  # from r to n
WAYS = ("kept", "dropped", "equal")
COLUMNS = (
    "r", "way", "seed", "accuracy before the last update %", "accuracy %",
    "training loss", "updates",
)  # fmt: skip


def cut(order: Tensor, way: str) -> list[Tensor]:
    """The batches of an epoch's permutation."""
    if way == "equal":
        return list(order.tensor_split(batches.count(len(order), B)))
    pieces = list(order.split(B))
    return pieces if way == "kept" or len(pieces[-1]) == B else pieces[:-1]


def train(n: int, way: str, seed: int) -> tuple[float, float, float, int]:
    """Test accuracy before and after the last update, loss of the last epoch, updates."""
    config = configure(
        "dataset=fashion_mnist", f"dataset.samples={n}", "model.width=8", f"seed={seed}"
    )
    data = datasets.open_data(config, torch.device("cpu"))
    torch.manual_seed(seed)
    network = models.build(config.model, config.dataset)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=ETA)
    updates, before, losses = 0, 0.0, np.zeros(2)
    for epoch in range(1, EPOCHS + 1):
        pieces = cut(torch.randperm(n, generator=generator(seed, "permutation", epoch)), way)
        losses[:] = 0
        for index, (images, labels) in enumerate(data.train_batches(pieces, 1000 * seed + epoch)):
            if epoch == EPOCHS and index + 1 == len(pieces):
                before = accuracy(network, data)
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += loss.item() * len(labels), len(labels)
            updates += 1
    return before, accuracy(network, data), losses[0] / losses[1], updates


@torch.no_grad()
def accuracy(network: torch.nn.Module, data: datasets.Data) -> float:
    """Test accuracy, % of 10,000 images."""
    network.eval()
    right = [
        (network(images).argmax(dim=1) == labels).float() for images, labels in data.test_batches()
    ]
    network.train()
    return 100 * float(torch.cat(right).mean())


def rows() -> list[dict[str, str]]:
    """The finished runs."""
    file = FOLDER / "runs.csv"
    return list(csv.DictReader(file.open(newline=""))) if file.is_file() else []


def table(finished: list[dict[str, str]]) -> str:
    """Mean with Student's 95 % interval over seeds, lowest seed, change at the last update."""
    lines = [
        "| r = n mod 54 | last batch | test accuracy, % | lowest seed, % | change at the last"
        " update, points | training loss |",
        "|---|---|---|---|---|---|",
    ]
    for r, way in itertools.product(REMAINDERS, WAYS):
        runs = [row for row in finished if (row["r"], row["way"]) == (r, way)]
        if not runs:
            continue
        end = np.array([float(row[COLUMNS[4]]) for row in runs])
        change = end - np.array([float(row[COLUMNS[3]]) for row in runs])
        loss = np.array([float(row["training loss"]) for row in runs])
        reach = stats.t.ppf(0.975, len(end) - 1) * stats.sem(end) if len(end) > 1 else np.nan
        lines.append(
            f"| {r} | {way} | {end.mean():.1f} ± {reach:.1f} | {end.min():.1f} |"
            f" {change.mean():+.1f} | {loss.mean():.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the missing runs, then write the table."""
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    finished = rows()
    known = {(row["r"], row["way"], row["seed"]) for row in finished}
    for seed, (r, n), way in itertools.product(SEEDS, REMAINDERS.items(), WAYS):
        if (r, way, str(seed)) in known:
            continue
        before, after, loss, updates = train(n, way, seed)
        numbers = (f"{before:.2f}", f"{after:.2f}", f"{loss:.4f}", str(updates))
        finished.append(dict(zip(COLUMNS, (r, way, str(seed), *numbers), strict=True)))
        lines = [COLUMNS, *(row.values() for row in finished)]
        write_atomically(Path(FOLDER / "runs.csv"), "".join(",".join(x) + "\n" for x in lines))
        print(*finished[-1].values(), flush=True)
    write_atomically(FOLDER / "table.md", f"# The last batch of an epoch\n\n{table(finished)}")
    print(table(finished))


if __name__ == "__main__":
    main()
