"""Trains one epoch in k equal batches; C² is measured before the first update."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice

import numpy as np
import torch

from igo.ground.seeds import derive_seed
from igo.method.sampler import BatchSampler
from igo.method.schedule import Schedule
from igo.train import online, optim
from igo.train.on_device import Batch
from igo.train.online import Online
from igo.train.state import Epoch, Training, Watcher


class NotFinite(ArithmeticError):
    """A number of the training is not finite; the message says which."""


def train_epoch(
    run: Training,
    sampler: BatchSampler,
    schedule: Schedule,
    bar: Watcher,
    check_stop: Callable[[], None],
) -> Epoch:
    """Make the updates of the sampler's next epoch.

    Raises:
        NotFinite: a loss is not finite. A CPU notices at once; a GPU, for which the host would
            wait, and several processes notice at the end of the epoch.
    """
    started = time.perf_counter()
    seed, ranks, engine = run.config.seed, run.engine.ranks, run.engine
    drawn = [torch.tensor(indices, dtype=torch.int64) for indices in sampler]
    epoch, k = sampler.plan.at(sampler.updates + 1).epoch, len(drawn)
    stream = run.data.train_batches(
        drawn, derive_seed(seed, "epoch", epoch), engine.micro_batch_size
    )
    pieces = Online.of_epoch(run.config.noise, run.data.n, k)
    first = list(islice(stream, pieces.batches))
    noise = online.measured(engine, run.network, pieces, first, run.data.n)
    totals = torch.zeros(k, 2, device=engine.device)  # losses and correct answers
    at_once = engine.device.type == "cpu" and ranks.size == 1
    shares: list[int] = []  # this rank's samples of each batch that reached the model
    for _, batch in zip(drawn, chain(_emptied(first), stream), strict=True):
        check_stop()
        update = schedule.step()
        span = range(update.batch_size)
        made = totals[update.batch - 1] = engine.step(run.network, run.optimizer, batch, span)
        if at_once and not math.isfinite(made[0].item()):
            raise NotFinite(f"the loss is not finite at update {update.batch}")
        shares.append(len(batch[1]))
        bar.advance(update.batch_size)
    sizes = ranks.sum_(torch.tensor(shares))  # fails if a rank has left; reading a GPU would wait
    rows, samples = totals.cpu(), int(sizes.sum())
    wrong = ranks.sum_((~rows[:, 0].isfinite()).double()).nonzero()
    if len(wrong):
        raise NotFinite(f"the loss is not finite at update {int(wrong[0]) + 1}")
    sums = torch.from_numpy(np.add.accumulate(rows.numpy(), axis=0)[-1])  # one after the other
    loss, correct = (total / samples for total in ranks.sum_(sums.double()).tolist())
    return Epoch(
        loss=loss,
        accuracy=correct,
        updates=k,
        samples=samples,
        learning_rate=optim.learning_rate(run.optimizer),
        batch_size=samples / k,
        seconds=time.perf_counter() - started,
        noise=noise,
    )


def _emptied(batches: list[Batch]) -> Iterator[Batch]:
    """Yield the batches in order, and remove each from the list, so that its memory is freed."""
    batches.reverse()
    while batches:
        yield batches.pop()
