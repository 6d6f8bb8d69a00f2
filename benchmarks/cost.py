"""C²'s share of an update: python -m benchmarks.cost.

The seconds of the code that measures C² are taken inside updates, and divided by those of all
updates of an epoch. Epochs are as late in a run, and as long as CIFAR's. The transformer has a loop
of its own, with NoiseMeter and two parts a batch, which it would have without C² as well.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import igo
from benchmarks import cells, ours, report, step
from benchmarks.ratios import Spread
from benchmarks.task import Task, synchronise
from igo.ground.files import Record
from igo.noise.pairs import Pairs
from igo.train import loop

NAMES = ("small-16", "small-128", "transformer-16")
UPDATES = 256  # of an epoch of text


class Stopwatch:
    """Seconds that pass in its blocks; a GPU is waited for before and after."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        synchronise()
        start = time.perf_counter()
        yield
        synchronise()
        self.seconds += time.perf_counter() - start


def share(name: str, folder: Path, quick: bool = False) -> Spread:
    """The share of C² in the updates of each epoch after the first, of the cell of this name."""
    b, epoch = int(name.split("-")[1]), cells.EPOCH
    if quick:
        epoch = 16 * b
    elif name.startswith("transformer"):
        epoch = UPDATES * b
    task = cells.make(name, folder, True, epoch=epoch).task
    shares = of_meter(task) if task.is_text else of_program(task)
    return Spread.of(shares[1:])


def of_program(task: Task) -> list[float]:
    """The share of C² in each epoch, as ``igo train`` measures C²: in the methods of ``Pairs``."""
    watch, shares = Stopwatch(), list[float]()

    class Timed(Pairs):
        def take(self, *arguments: Any) -> None:
            with watch():
                super().take(*arguments)

        def noise(self, *ranks: Any) -> Any:
            with watch():
                return super().noise(*ranks)

    def epoch_done(record: Record) -> None:
        # An epoch of n images takes n over its images a second.
        shares.append(watch.seconds * record["images_per_second"] / training.plan.n)
        watch.seconds = 0.0

    training, progress = ours.prepared(task)
    with mock.patch.object(loop, "Pairs", Timed):
        loop.train(training, progress, mock.Mock(), epoch_done, lambda: None)
    return shares


def of_meter(task: Task) -> list[float]:
    """The share of C² in each epoch of a transformer, whose batches come in two parts."""
    (network, optimizer), (inputs, targets) = step.trained(task), task.tensors()
    meter, shares = igo.NoiseMeter(network, half_life=4096), list[float]()
    for k, _ in task.turns:
        watch, whole = Stopwatch(), Stopwatch()
        with whole():
            for batch in torch.arange(len(targets)).tensor_split(k):
                optimizer.zero_grad()
                for part in batch.tensor_split(2):
                    loss, _ = step.loss_of(network, inputs[part], targets[part])
                    (loss * len(part) / len(batch)).backward()
                    with watch():
                        meter.part(len(part))
                with watch():
                    meter.update()
                optimizer.step()
        shares.append(watch.seconds / whole.seconds)
    return shares


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"cell": name, "share": share(name, Path(folder))} for name in names or NAMES]
    report.show("C²'s share of an update", rows)
    result = {"facts": report.facts("python -m benchmarks.cost"), "shares": rows}
    report.save(result, report.RESULTS / "cost.json")


if __name__ == "__main__":
    main(sys.argv[1:])
