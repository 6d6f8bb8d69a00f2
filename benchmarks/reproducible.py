"""How far two runs of one configuration come apart: python -m benchmarks.reproducible [epochs].

The same seed on the same machine and versions gives the same bits. A sum in another order, of other
threads, micro-batches or devices, differs by rounding. That stays rounding where the activation is
smooth; ReLU's kink makes more of it as soon as one input is on the other side of 0. Each run is a
process of its own. Written to the terminal as the table of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from igo.config.load import load
from igo.config.plan import make_plan
from igo.config.schema import DatasetConfig, ModelConfig
from igo.files import Record
from igo.runs import assemble
from igo.train import loop, models
from igo.train.state import Progress

CONF = str(Path(__file__).parents[1] / "conf")
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
    """Parameters, flattened, after the first update and each epoch; the records."""

    first: Tensor
    epochs: list[Tensor] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """Two ways to run one configuration, which should give the same."""

    what: str
    precision: str
    one: tuple[str, ...]
    other: tuple[str, ...]
    network: str = "as it is"


class Quiet:
    """A progress bar that shows nothing."""

    def begin_epoch(self, *_: object) -> None:
        """See igo.runs.terminal.ProgressBar."""

    advance = end_epoch = begin_epoch


def comparisons() -> list[Comparison]:
    """All that this machine can make."""
    one, two = ("engine.threads=1",), ("engine.threads=2",)
    parts = (*one, "engine.micro_batch_size=16")
    found = [
        Comparison("nothing: the same command again", "fp32", two, two),
        Comparison("nothing: the same command again", "bf16", two, two),
        Comparison("1 or 2 CPU threads", "fp32", one, two),
        Comparison("1 or 2 CPU threads", "fp32", one, two, "GELU"),
        Comparison("1 or 2 CPU threads", "bf16", one, two),
        Comparison("batches whole or in parts of 16", "fp32", one, parts, "GroupNorm"),
        Comparison("batches whole or in parts of 16", "fp32", one, parts, "GELU, GroupNorm"),
    ]
    if torch.cuda.is_available():
        cuda = ("engine.device=cuda",)
        found += [
            Comparison("nothing, on a GPU", "fp32", cuda, cuda),
            Comparison("nothing, on a GPU", "bf16", cuda, cuda),
            Comparison("CPU or GPU", "fp32", one, cuda),
            Comparison("CPU or GPU", "fp32", one, cuda, "GELU"),
        ]
    return found


def trained(settings: Sequence[str], network: str = "as it is") -> Trace:
    """Train in this process and remember the parameters.

    Args:
        settings: as typed.
        network: what a ResNet-8 has instead of ReLU (``GELU``) and BatchNorm (``GroupNorm``).
    """
    with initialize_config_dir(CONF, version_base="1.3"):
        config = load(compose("config", [*BASE, *settings]))
    original = models.BUILDERS["resnet8"]
    models.BUILDERS["resnet8"] = partial(_changed, original, network)
    run = assemble.prepare(config, make_plan(config))
    models.BUILDERS["resnet8"] = original
    asked: list[int] = []
    trace = Trace(torch.empty(0))

    def look() -> None:
        asked.append(1)
        if len(asked) == 2:  # before the second update
            trace.first = _flat(run.network)

    def epoch_done(record: Record) -> None:
        trace.epochs.append(_flat(run.network))
        trace.records.append(record)

    loop.train(run, Progress(), Quiet(), epoch_done, look)  # type: ignore[arg-type]
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


def distance(one: Tensor, other: Tensor) -> float:
    """‖θ - θ'‖/‖θ‖; 0 only for the same bits."""
    return float((one - other).norm() / one.norm())


def row(what: Comparison, one: Trace, other: Trace) -> list[str]:
    """A comparison as the table has it."""
    distances = [
        distance(one.first, other.first),
        *(distance(one.epochs[e], other.epochs[e]) for e in (0, -1)),
    ]
    before, after = (100 * trace.records[-1]["test/accuracy"] for trace in (one, other))
    shown = ["same bits" if d == 0 else f"{d:.0e}" for d in distances]
    return [
        what.what,
        what.network,
        what.precision,
        *shown,
        f"{before:.2f} %, {after - before:+.2f}",
    ]


def main(words: Sequence[str]) -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("epochs", nargs="?", type=int, default=10)
    epochs: int = parser.parse_args(words).epochs
    titles = [title.format(epochs) for title in TITLES]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}", flush=True)
    spawn = get_context("spawn")
    for what in comparisons():
        traces = []
        for settings in (what.one, what.other):
            with ProcessPoolExecutor(1, spawn) as process:
                own = (*settings, f"epochs={epochs}", f"engine.precision={what.precision}")
                traces.append(process.submit(trained, own, what.network).result())
        print(f"| {' | '.join(row(what, *traces))} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
