"""One pass over the training set in k equal batches, some of whose gradients are measured first."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain, pairwise

import torch
from torch import Tensor

from igo.method.batches import epoch_batches
from igo.seeds import derive_seed
from igo.train import online, optim
from igo.train.control import Applied
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
    measured = Online.of_epoch(run.config.noise, run.data.n, applied.batches)
    batches = run.data.train_batches(ranks.share(index_batches), derive_seed(seed, "epoch", epoch))
    tally = Tally(len(index_batches), engine.device, engine.skip)
    pairs: list[Tensor] = []  # (2,) each, C² and ‖∇f‖²
    shares: list[int] = []  # of each batch, as it reached the model
    with_next = pairwise(chain(batches, (None,)))  # a pair may need the next batch, unseen yet
    for update, (index, (batch, after)) in enumerate(zip(index_batches, with_next, strict=True)):
        check_stop()
        if batch is None:
            raise RuntimeError("fewer batches than the plan has")
        for parts in measured.parts(update, batch, after, ranks):
            pairs.append(online.pair(engine, run.network, parts))
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
        noise=online.gathered(pairs, measured.size, finite=engine.skip),
    )
