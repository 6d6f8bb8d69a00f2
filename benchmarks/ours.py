"""This project: igo.train.assembly and igo.train.loop as in a run, with the progress bar.

The seconds are those of the epoch's updates in its record: from the permutation until the last
result is read from the device. Evaluation and the record are not in them. Text is trained in a loop
of one's own, with igo's sampler and schedule.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

import igo
from benchmarks import step
from benchmarks.cells import configure
from benchmarks.task import Task, Turns
from igo.config.load import make_plan
from igo.ground.files import Record
from igo.runs.terminal import Terminal
from igo.train import loop, measure
from igo.train.assembly import assembled
from igo.train.training import Progress, Training


def train(task: Task, turns: Turns) -> nn.Module:
    return in_own_loop(task, turns) if task.is_text else in_program(task, turns)


def in_program(task: Task, turns: Turns) -> nn.Module:
    """As ``igo train`` does."""
    plan, training, progress = prepared(task)

    def epoch_done(record: Record) -> None:
        updates, seconds = (
            plan.batches_of_epoch(record["epoch"]),
            plan.n / record["images_per_second"],
        )
        turns.end(plan.n, updates, record["train/loss"], seconds)
        if record["epoch"] < plan.epochs:
            turns.begin()

    with Terminal().progress(plan, progress.epoch) as bar:
        turns.begin()
        loop.train(training, progress, bar, epoch_done, lambda: None)
    return training.network


def prepared(task: Task) -> tuple[igo.Plan, Training, Progress]:
    """A run and its progress; a constant plan goes on after ten epochs, with untrained weights.

    In the first ten C² has more twins than in all later ones.
    """
    config, count = configure(*task.settings), len(task.epochs)
    early = measure.EARLY if config.schedule.profile == "constant" else 0
    config = replace(config, epochs=early + count)
    plan, progress = make_plan(config), Progress()
    training = assembled(config, plan)
    if early:
        training.batches.updates = early * task.epochs[0][0]
        progress = Progress(early, early * plan.n, twins=[(0.0, 0.0, 0.0)] * measure.ENOUGH)
    return plan, training, progress


def in_own_loop(task: Task, turns: Turns) -> nn.Module:
    """As docs/own-loop.md has it; each epoch is a turn."""
    (network, optimizer), (inputs, targets) = step.trained(task), task.tensors()
    update = step.update_of(network, optimizer)
    k, epochs, n = task.epochs[0][0], len(task.epochs), len(targets)
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
        turns.end(n, k, loss)
    return network
