"""C² during training: from pieces of an epoch's first batches, before its first update.

At that moment all samples have been seen equally often, so disjoint pieces of a new permutation are
exchangeable, and the ordinary estimator is unbiased for C² over all n samples. Later in an epoch it
would measure the samples to come. Their gradients are larger than those of samples just trained on
(docs/noise.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from igo.config.schema import NoiseConfig
from igo.ground.ranks import ALONE, Ranks
from igo.method import batches as equal
from igo.noise.noise import Noise
from igo.train import measure
from igo.train.engine import Engine
from igo.train.measure import Part
from igo.train.on_device import Batch

LEAST_PIECES = 8  # of an epoch, for an interval
LEAST_SIZE = 8  # samples of a piece: under BatchNorm, smaller pieces have a very different C²


@dataclass(frozen=True)
class Online:
    """The measurement of an epoch: ``pieces`` of ``size`` samples of its first ``batches``."""

    size: int
    pieces: int
    batches: int

    @staticmethod
    def of_epoch(config: NoiseConfig, n: int, k: int) -> Online:
        """Plan the pieces of an epoch of k equal batches of n samples.

        Each piece costs a forward and a backward pass. The budget is the share ``noise.online`` of
        the epoch's samples. It gives LEAST_PIECES of the largest size that fits, at most a batch;
        if they are whole batches, it may give more. A small data set exceeds the budget, as it has
        LEAST_PIECES of LEAST_SIZE too.
        """
        b = equal.sizes(n, k)[1]
        budget = config.online * n
        if budget == 0 or n < 2:
            return Online(1, 0, 0)
        size = min(b, config.batch_size or b, max(int(budget / LEAST_PIECES), LEAST_SIZE))
        if k * (b // size) < LEAST_PIECES:  # take smaller pieces, several of each batch
            size = min(size, max(b // equal.count(LEAST_PIECES, k), 1))
        per_batch = b // size
        pieces = min(max(int(budget / size), LEAST_PIECES), k * per_batch)
        return Online(size, pieces, math.ceil(pieces / per_batch))

    def parts(self, batches: Sequence[Batch], ranks: Ranks = ALONE) -> Iterator[Part]:
        """Yield the pieces of the epoch's first batches, of which a rank has its shares."""
        per_batch = math.ceil(self.pieces / max(self.batches, 1))
        for piece in range(self.pieces):
            images, labels = batches[piece // per_batch]
            start = piece % per_batch * self.size
            span = range(start, start + self.size)
            share = slice(ranks.count(span.start), ranks.count(span.stop))
            yield images[share], labels[share], span


def measured(
    engine: Engine, network: nn.Module, plan: Online, first: Sequence[Batch], n: int
) -> Noise | None:
    """C² and ‖∇f‖² at the present parameters; None if not planned.

    It does not change the training.
    """
    if not plan.pieces:
        return None
    spread = measure.spread_of(engine, network, plan.parts(first, engine.ranks))
    return spread.noise(batch_size=plan.size, n=n)
