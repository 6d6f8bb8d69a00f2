"""The cost of sampler and schedule in a plain loop, b = 16: python -m benchmarks.own_loop [rounds].

PyTorch's sampler with constant η, and a plan's sampler and schedule, take turns in one process with
the same small ResNet, images and number of updates. The seconds are CPU seconds of the process:
other programs change them little. A ratio is that of one round.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import igo
from benchmarks import report
from benchmarks.ratios import Spread
from igo.config.schema import DatasetConfig, ModelConfig
from igo.train import models

N, BATCH, RATE = 1600, 16, 0.05


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(N, 1, 28, 28), torch.randint(10, (N,)))
    network = models.build(ModelConfig(name="resnet8", width=16), facts())
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    plan = igo.plan("constant", n=N, epochs=2 * rounds + 2, learning_rate=RATE, batch_size=BATCH)
    batches = igo.BatchSampler(plan, range(plan.n))
    planned = DataLoader(data, batch_sampler=batches)
    plain = DataLoader(data, BATCH, shuffle=True)
    schedule = igo.Schedule(optimizer, batches)

    def turn(loader: DataLoader[Any], wrapped: Callable[[Any], Iterable[Any]]) -> float:
        start = time.process_time()
        for images, labels in wrapped(loader):
            loss = cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.process_time() - start

    contenders: dict[str, Any] = {"ours": (planned, schedule), "theirs": (plain, iter)}
    turns: list[tuple[float, float]] = []
    for index in range(rounds + 1):
        order = ("ours", "theirs") if index % 2 else ("theirs", "ours")
        seconds = {name: turn(*contenders[name]) for name in order}
        if index:  # the first turn is the warm-up
            turns.append((seconds["ours"], seconds["theirs"]))
    alone = batches_alone(plan)
    result = {
        "updates_a_turn": N // BATCH,
        "ours_over_plain": Spread.of([ours / theirs for ours, theirs in turns]),
        "seconds_an_update": Spread.of([theirs / (N // BATCH) for _, theirs in turns]),
        "sampler_and_schedule_alone": alone,
        "pytorchs_sampler_alone": pytorch_alone(),
    }
    report.show("Sampler and schedule in a plain loop, b = 16", [result])
    command = "python -m benchmarks.own_loop"
    report.save({"facts": report.facts(command), **result}, report.RESULTS / "own-loop.json")


def batches_alone(plan: Any) -> float:
    """CPU seconds an update of sampler and schedule without any training."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    batches = igo.BatchSampler(plan, range(plan.n))
    schedule = igo.Schedule(torch.optim.SGD([parameter], lr=RATE), batches)
    start = time.process_time()
    for _ in batches.epochs():
        for _ in schedule(batches):
            pass
    return (time.process_time() - start) / plan.updates


def pytorch_alone() -> float:
    """CPU seconds an update of PyTorch's batch sampler without any training."""
    loader = DataLoader(range(N), BATCH, shuffle=True)  # type: ignore[arg-type, var-annotated]
    sampler = loader.batch_sampler
    start = time.process_time()
    count = sum(1 for _ in range(20) for _ in sampler)  # type: ignore[union-attr]
    return (time.process_time() - start) / count


def facts() -> DatasetConfig:
    return DatasetConfig("fashion_mnist", 10, 1, 28, N, [0.5], [0.5])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
