"""The host's cost of igo's loop beside bare updates: python -m benchmarks.host [epochs].

A ResNet18 with a sixteenth of its channels on digits, b = 2, computes almost nothing: an update
takes what the host needs to start it, as on a fast GPU. A bare update, by the same Engine, goes
before each of the loop's, so other programs change the ratio little. The seconds are CPU seconds of
one thread. An epoch has 391 updates, as CIFAR's at b = 128: 32 pairs for C², 2 with a twin.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from itertools import pairwise

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

import igo
from benchmarks import report
from benchmarks.cells import configure
from benchmarks.gpu.part import prepared
from benchmarks.gpu.speed import bare_update, epochs
from benchmarks.ratios import Spread

UPDATES, B, WARM_UP = 391, 2, 2


def main(rounds: int) -> None:
    config = configure(
        "dataset=digits",
        "model=own",
        "model._target_=benchmarks.host.narrow",
        "schedule=constant",
        "learning_rate=0.001",
        "engine.device=cpu",
        "engine.precision=fp32",
        "tracking=none",
        f"dataset.samples={UPDATES * B}",
        f"batch_size={B}",
        f"epochs={WARM_UP + rounds}",
    )
    update, bare_seconds = bare_update(prepared(config)), 0.0

    def before_update() -> None:
        nonlocal bare_seconds
        start = time.process_time()
        update()
        bare_seconds += time.process_time() - start

    turns: list[tuple[float, float]] = []
    with closing(epochs(prepared(config), before_update)) as made_epochs:
        for _ in range(WARM_UP + rounds):
            start, bare_seconds = time.process_time(), 0.0
            next(made_epochs)
            turns.append((time.process_time() - start - bare_seconds, bare_seconds))
    turns = turns[WARM_UP:]
    result = {
        "bare_over_ours": Spread.of([bare / loop for loop, bare in turns]),
        "bare_us_an_update": Spread.of([1e6 * bare / UPDATES for _, bare in turns]),
        "ours_more_us": Spread.of([1e6 * (loop - bare) / UPDATES for loop, bare in turns]),
        "sampler_and_schedule_us": 1e6 * schedule_alone(),
    }
    report.show("An update of the loop and a bare one, where layers cost nothing", [result])
    facts = report.facts("python -m benchmarks.host")
    report.save({"facts": facts, **result}, report.RESULTS / "host.json")


def schedule_alone() -> float:
    """CPU seconds an update of sampler and schedule without any training."""
    plan = igo.plan("constant", n=1600, epochs=20, learning_rate=0.05, batch_size=16)
    batches = igo.BatchSampler(plan, range(plan.n))
    schedule = igo.Schedule(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.05), batches)
    start = time.process_time()
    for _ in batches.epochs():
        for _ in schedule(batches):
            pass
    return (time.process_time() - start) / plan.updates


def narrow() -> nn.Module:
    """ResNet18 with a sixteenth of its channels."""
    blocks = []
    for inputs, outputs in pairwise((4, 4, 4, 8, 8, 16, 16, 32, 32)):
        step = outputs // inputs
        convolution = nn.Conv2d(inputs, outputs, 1, step, bias=False)
        shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs)) if step > 1 else None
        blocks.append(BasicBlock(inputs, outputs, step, shortcut))
    stem = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    return nn.Sequential(*stem, *blocks, *head)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
