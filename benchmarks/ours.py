"""This project: igo.train.assembly and igo.train.loop as in a run, with the progress bar.

The seconds of an epoch are those of its record: from the permutation until the last result is read
from the device. Evaluation and the record are not in them. Where a turn is a part of an epoch, they
are those from update to update. Text is trained in a loop of one's own, with igo's sampler and
schedule.
"""

import math
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate

import torch
from torch import nn

import igo
from benchmarks import step
from benchmarks.task import Task, Turns
from igo.config.load import make_plan
from igo.config.schema import training_samples
from igo.ground.files import Record
from igo.noise.pairs import EARLY, ENOUGH
from igo.runs.terminal import ProgressBar, Terminal
from igo.train import loop
from igo.train.assembly import assembled
from igo.train.training import Progress, Training
from lab.configuration import composed


def train(task: Task, turns: Turns) -> nn.Module:
    """Train in the turns of a task; return the network."""
    return in_own_loop(task, turns) if task.is_text else in_program(task, turns)


class Finished(Exception):
    """The last turn is over, in the midst of an epoch."""


class Watcher:
    """The progress bar of a run, which ends a turn after the last of its updates."""

    def __init__(self, bar: ProgressBar, task: Task, turns: Turns) -> None:
        self._bar, self._task, self._turns = bar, task, turns
        self._last_updates = [*accumulate(k for k, _ in task.turns)]
        self._updates = 0
        self.begin_epoch, self.end_epoch = bar.begin_epoch, bar.end_epoch

    def advance(self, images: int) -> None:
        self._bar.advance(images)
        self._updates += 1
        if self._updates in self._last_updates:
            turn = self._last_updates.index(self._updates)
            self._turns.end(self._task.samples, self._task.turns[turn][0])
            if self._updates == self._last_updates[-1]:
                raise Finished
            self._turns.begin()


def in_program(task: Task, turns: Turns) -> nn.Module:
    """As ``igo train`` does."""
    training, progress = prepared(task)
    plan = training.plan

    def epoch_done(record: Record) -> None:
        updates = plan.batches_of_epoch(record["epoch"])
        turns.end(plan.n, updates, plan.n / record["images_per_second"])
        if record["epoch"] < plan.epochs:
            turns.begin()

    with Terminal().progress(plan) as bar, suppress(Finished):
        watcher = bar if plan.n == task.samples else Watcher(bar, task, turns)
        turns.begin()
        loop.train(training, progress, watcher, epoch_done, lambda: None)
    return training.network


def prepared(task: Task) -> tuple[Training, Progress]:
    """A run and its progress; a constant plan goes on after EARLY epochs, with untrained weights.

    In those C² has more twins than in all later ones, which the benchmark is to time. Twins of
    earlier epochs are made up: as many as a correction needs, with any numbers.
    """
    config = composed(*task.settings)
    early = EARLY if config.schedule.profile == "constant" else 0
    epochs = math.ceil(len(task.turns) * task.samples / training_samples(config))
    config = replace(config, epochs=early + epochs)
    plan = make_plan(config)
    training = assembled(config, plan)
    if not early:
        return training, Progress()
    training.batches.updates = early * plan.batches_of_epoch(1)
    return training, Progress(early, early * plan.n, twins=[(0.0, 0.0, 0.0)] * ENOUGH)


def in_own_loop(task: Task, turns: Turns) -> nn.Module:
    """As docs/own-loop.md has it; each epoch is a turn."""
    (network, optimizer), (inputs, targets) = step.trained(task), task.tensors()
    update = step.update_of(network, optimizer)
    k, epochs, n = task.turns[0][0], len(task.turns), len(targets)
    plan = igo.plan("cosine", split=1, n=n, epochs=epochs, batch_size=n // k, stages=epochs * k)
    batches = igo.BatchSampler(plan, range(n))
    schedule = igo.Schedule(optimizer, batches)
    for _ in range(epochs):
        turns.begin()
        sums = torch.zeros(2, device=inputs.device)
        for index in schedule(batches):
            sums += update(inputs[index], targets[index])
        loss, accuracy = (sums / n).tolist()
        print(f"loss {loss:.4f}, accuracy {accuracy:.2%}")
        turns.end(n, k)
    return network
