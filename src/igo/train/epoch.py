"""One pass over the training set in k equal batches; C² is measured before the first update."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain, islice

import torch

from igo.method.batches import epoch_batches
from igo.seeds import derive_seed
from igo.train import online, optim
from igo.train.control import Applied
from igo.train.datasets import Batch
from igo.train.finite import NotFinite, Tally
from igo.train.online import Online
from igo.train.state import Epoch, Training, Watcher


def train_epoch(
    run: Training, epoch: int, applied: Applied, bar: Watcher, check_stop: Callable[[], None]
) -> Epoch:
    """Make the epoch's updates.

    Raises:
        NotFinite: the loss or gradient of an update, unless such updates are skipped.
    """
    started = time.perf_counter()
    seed, ranks, engine = run.config.seed, run.engine.ranks, run.engine
    index_batches = epoch_batches(run.data.n, applied.batches, seed, epoch)
    stream = run.data.train_batches(ranks.share(index_batches), derive_seed(seed, "epoch", epoch))
    pieces = Online.of_epoch(run.config.noise, run.data.n, applied.batches)
    first = list(islice(stream, pieces.batches))
    noise = online.measured(engine, run.network, pieces, first, run.data.n)
    tally = Tally(len(index_batches), engine.device, engine.skip)
    shares: list[int] = []  # of each batch, as it reached the model
    batches = chain(_given_up(first), stream)
    for update, (index, batch) in enumerate(zip(index_batches, batches, strict=True)):
        check_stop()
        tally.add(update, engine.step(run.network, run.optimizer, batch, range(len(index))))
        shares.append(len(batch[1]))
        bar.advance(len(index))
    sizes = ranks.sum_(torch.tensor(shares))  # fails where a rank has left; a GPU would wait for it
    sums, made = tally.sums(ranks)
    samples = int(sizes[made].sum())
    if not samples:
        raise NotFinite(1)
    loss, correct = (total / samples for total in ranks.sum_(sums.double()).tolist())
    return Epoch(
        loss=loss,
        accuracy=correct,
        updates=int(made.sum()),
        skipped=int((~made).sum()),
        samples=samples,
        learning_rate=optim.learning_rate(run.optimizer),
        batch_size=int(sizes.sum()) / len(sizes),
        seconds=time.perf_counter() - started,
        noise=noise,
    )


def _given_up(batches: list[Batch]) -> Iterator[Batch]:
    """The batches in order, none of which is held any longer than it is used."""
    batches.reverse()
    while batches:
        yield batches.pop()
