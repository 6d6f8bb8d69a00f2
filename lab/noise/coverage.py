"""`python -m lab.noise.coverage [SETTING=VALUE …]`: C² of an epoch held against brute force.

A run stops after EPOCHS epochs. Then the next epoch is trained REPEATS times from there, each with
other batches and augmentation, and each pair of updates has a twin. The mean of C² in all twins is
the truth. It is compared with C² of the pairs alone, and with what the run would have recorded.
"""

from __future__ import annotations

import copy
import os
import sys
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from igo.config.load import load, make_plan
from igo.ground.files import CONF, Record
from igo.loop.sampler import BatchSampler
from igo.loop.schedule import Schedule
from igo.noise.noise import Noise
from igo.runs.assemble import prepare
from igo.runs.terminal import Terminal
from igo.train import loop, measure
from igo.train.record import Progress, Training, Twin

EPOCHS, REPEATS = 2, 12
SETTINGS = ("schedule=constant", "epochs=3", "tracking=none")


class Found(NamedTuple):
    """C² and ‖∇f‖² of all twins, C² of the pairs alone, the record, and its own twins."""

    variance: float
    square: float
    alone: float
    recorded: Noise
    twins: int


class Checked(measure.Pairs):
    """Gives each pair a twin, and keeps what all of them say beside what the run would record."""

    def __init__(self, found: list[Found], *given: Any) -> None:
        super().__init__(*given)
        self._found, self._due = found, sorted(self._twinned)
        self._twinned = {*range(len(self._firsts))}

    def noise(self) -> tuple[Noise | None, list[Twin]]:
        """What the run would record."""
        norms = torch.stack([*self._pairs, *self._twins.values()]).numpy().astype(float)
        squares = np.square(norms).reshape(2, len(self._pairs), 3, -1).sum(axis=3)
        sizes = 1 / np.array(self._sizes, dtype=float).reshape(-1, 2)
        alone, truth = (squares[..., 2] / sizes.sum(axis=1)).mean(axis=1)
        square = (squares[1] @ [0.5, 0.5, -0.5]).mean()
        self._twins = {pair: self._twins[pair] for pair in self._due}
        recorded, newest = super().noise()
        if recorded:
            self._found.append(Found(truth, square, alone, recorded, len(self._due)))
        return recorded, newest


def epoch(run: Training, progress: Progress, seed: int) -> None:
    """Train the next epoch on copies, with batches and augmentation of another seed."""
    network, optimizer = copy.deepcopy((run.network, run.optimizer))
    config = replace(run.config, seed=seed)
    other = replace(run, network=network, optimizer=optimizer, config=config)
    sampler = BatchSampler(run.plan, range(run.data.n), seed=seed, rank=0, ranks=1)
    sampler.updates = progress.updates
    schedule = Schedule(optimizer, sampler)
    with Terminal(quiet=True).progress(run.plan) as bar:
        loop.train_epoch(other, sampler, schedule, bar, lambda: None, progress.twins)


def measured(words: list[str]) -> list[Found]:
    """What each repetition found."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = load(compose("config", [*SETTINGS, *words]))
    run, progress = prepare(config, make_plan(config)), Progress()
    kept: list[tuple[Training, Progress]] = []

    def done(record: Record) -> None:
        if record["epoch"] == EPOCHS:
            kept.append(copy.deepcopy((run, progress)))

    with Terminal(quiet=True).progress(run.plan) as bar:
        loop.train(run, progress, bar, done, lambda: None)
    found: list[Found] = []
    with mock.patch.object(measure, "Pairs", partial(Checked, found)):
        for seed in range(1, 1 + REPEATS):
            epoch(*kept[0], seed)
    return found


def row(found: list[Found]) -> list[str]:
    """The cells of a table."""
    truth, square, alone = np.array([each[:3] for each in found]).mean(axis=0)
    records = [each.recorded for each in found]
    c2, norm = np.mean([(each.variance, each.gradient_square) for each in records], axis=0)
    logs = np.log([each.variance / truth for each in records])
    error = np.sqrt(np.square(logs).mean())
    return [
        f"{2 * records[0].batches}", f"{found[0].twins}", f"{truth:.3g}", f"{alone / truth:.2f}",
        f"{c2 / truth:.2f}", f"{error:.3f}",
        covered(truth, [noise.variance_interval for noise in records]),
        f"{square:.3g}", f"{norm / square:.2f}",
        covered(square, [noise.square_interval for noise in records]),
    ]  # fmt: skip


def covered(truth: float, intervals: list[tuple[float, float] | None]) -> str:
    """How many intervals have the truth."""
    known = [ends for ends in intervals if ends]
    inside = sum(low <= truth <= high for low, high in known)
    return f"{inside} of {len(known)}"


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    head = ("updates", "twins", "C²", "pairs alone", "recorded", "error of log C²", "covered",
            "‖∇f‖²", "recorded", "covered")  # fmt: skip
    for line in (head, ["---"] * len(head), row(measured(sys.argv[1:]))):
        print(f"| {' | '.join(line)} |")
