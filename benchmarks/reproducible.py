"""The difference of two runs of one configuration: python -m benchmarks.reproducible [epochs].

The same seed on the same machine and versions gives the same bits. Other threads, micro-batches or
devices sum in another order, and the sums differ by rounding. With a smooth activation the runs
then differ by rounding too. With ReLU they differ by more as soon as an input changes its sign.
Each run has a process. It prints the table of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context

import torch
from torch import Tensor, nn

from benchmarks.cells import configure
from benchmarks.gpu.part import Quiet
from igo.config.plan import make_plan
from igo.config.schema import DatasetConfig, ModelConfig
from igo.ground.files import Record
from igo.runs import assemble
from igo.train import loop, models
from igo.train.state import Progress

BASE = ("tracking=none", "batch_size=64", "engine.device=cpu")
Build = Callable[[ModelConfig, DatasetConfig], nn.Module]
TITLES = (
    "what differs",
    "network",
    "precision",
    "after 1 update",
    "1 epoch",
    "{} epochs",
    "test accuracy",
)


@dataclass
class Trace:
    """The flat parameters after the first update and after each epoch, and the records."""

    first: Tensor
    epochs: list[Tensor] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """Two ways to run a configuration, which should have the same result."""

    difference: str
    precision: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    network: str = "as it is"


def comparisons() -> list[Comparison]:
    """The comparisons that this machine can make."""
    threads_1, threads_2 = ("engine.threads=1",), ("engine.threads=2",)
    in_parts = (*threads_1, "engine.micro_batch_size=16")
    pairs = [
        Comparison("nothing: the same command again", "fp32", threads_2, threads_2),
        Comparison("nothing: the same command again", "bf16", threads_2, threads_2),
        Comparison("1 or 2 CPU threads", "fp32", threads_1, threads_2),
        Comparison("1 or 2 CPU threads", "fp32", threads_1, threads_2, "GELU"),
        Comparison("1 or 2 CPU threads", "bf16", threads_1, threads_2),
        Comparison("batches whole or in parts of 16", "fp32", threads_1, in_parts, "GroupNorm"),
        Comparison(
            "batches whole or in parts of 16", "fp32", threads_1, in_parts, "GELU, GroupNorm"
        ),
    ]
    if torch.cuda.is_available():
        cuda = ("engine.device=cuda",)
        pairs += [
            Comparison("nothing, on a GPU", "fp32", cuda, cuda),
            Comparison("nothing, on a GPU", "bf16", cuda, cuda),
            Comparison("CPU or GPU", "fp32", threads_1, cuda),
            Comparison("CPU or GPU", "fp32", threads_1, cuda, "GELU"),
        ]
    return pairs


def trained(settings: Sequence[str], network: str = "as it is") -> Trace:
    """Train in this process and keep the parameters.

    Args:
        settings: as typed.
        network: what a ResNet-8 has for ReLU (``GELU``) and for BatchNorm (``GroupNorm``).
    """
    config = configure(*BASE, *settings)
    original = models.BUILDERS["resnet8"]
    models.BUILDERS["resnet8"] = partial(_changed, original, network)
    run = assemble.prepare(config, make_plan(config))
    models.BUILDERS["resnet8"] = original
    update = itertools.count(1)
    trace = Trace(torch.empty(0))

    def before_update() -> None:
        if next(update) == 2:
            trace.first = _flat(run.network)

    def epoch_done(record: Record) -> None:
        trace.epochs.append(_flat(run.network))
        trace.records.append(record)

    loop.train(run, Progress(), Quiet(), epoch_done, before_update)  # type: ignore[arg-type]
    return trace


def _flat(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().cpu().double().flatten() for p in network.parameters()])


def _changed(build: Build, to: str, model: ModelConfig, dataset: DatasetConfig) -> nn.Module:
    network = build(model, dataset)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d) and "GroupNorm" in to:
                setattr(module, name, nn.GroupNorm(1, child.num_features))
            if isinstance(child, nn.ReLU) and "GELU" in to:
                setattr(module, name, nn.GELU())
    return network


def distance(first: Tensor, second: Tensor) -> float:
    """‖θ - θ'‖/‖θ‖; 0 only for the same bits."""
    return float((first - second).norm() / first.norm())


def row(comparison: Comparison, first: Trace, second: Trace) -> list[str]:
    """The cells of a comparison in the table."""
    distances = [
        distance(first.first, second.first),
        *(distance(first.epochs[e], second.epochs[e]) for e in (0, -1)),
    ]
    before, after = (100 * trace.records[-1]["test/accuracy"] for trace in (first, second))
    shown = ["same bits" if d == 0 else f"{d:.0e}" for d in distances]
    accuracy = f"{before:.2f} %, {after - before:+.2f}"
    return [comparison.difference, comparison.network, comparison.precision, *shown, accuracy]


def main(words: Sequence[str]) -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("epochs", nargs="?", type=int, default=10)
    epochs: int = parser.parse_args(words).epochs
    titles = [title.format(epochs) for title in TITLES]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}", flush=True)
    spawn = get_context("spawn")
    for comparison in comparisons():
        traces = []
        for settings in (comparison.first, comparison.second):
            with ProcessPoolExecutor(1, spawn) as process:
                typed = (*settings, f"epochs={epochs}", f"engine.precision={comparison.precision}")
                traces.append(process.submit(trained, typed, comparison.network).result())
        print(f"| {' | '.join(row(comparison, *traces))} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
