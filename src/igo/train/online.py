"""C² while training goes on: from pieces of an epoch's first batches, before its first update.

At that point all samples have been seen equally often, so disjoint pieces of a new permutation are
exchangeable, and the ordinary estimator is unbiased for C² over all n samples. Later in an epoch it
would be that of the samples to come, whose gradients are larger than those of the samples that were
just trained on (docs/noise.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from igo.config.schema import NoiseConfig
from igo.method import batches as equal
from igo.method.noise import Noise
from igo.method.spread import Spread
from igo.ranks import ALONE, Ranks
from igo.train import measure
from igo.train.engine import Engine
from igo.train.measure import Part
from igo.train.on_device import Batch

LEAST_PIECES = 8  # of an epoch, for an interval
LEAST_SIZE = 8  # samples of a piece: under BatchNorm, fewer have another C² altogether


@dataclass(frozen=True)
class Online:
    """What is measured of an epoch: ``pieces`` of ``size`` samples of its first ``batches``."""

    size: int
    pieces: int
    batches: int

    @staticmethod
    def of_epoch(config: NoiseConfig, n: int, k: int) -> Online:
        """Plan the pieces of an epoch of k equal batches of n samples.

        Measuring costs forward and backward of the pieces on top of the steps. Within
        ``noise.online`` of the epoch's samples, there are LEAST_PIECES of the largest size that
        fits, at most a batch, and more once the pieces are whole batches. A small data set costs
        more than that, as it has LEAST_PIECES of LEAST_SIZE too.
        """
        b = equal.sizes(n, k)[1]
        budget = config.online * n
        if budget == 0 or n < 2:
            return Online(1, 0, 0)
        size = min(b, config.batch_size or b, max(int(budget / LEAST_PIECES), LEAST_SIZE))
        if k * (b // size) < LEAST_PIECES:  # smaller ones, several of a batch
            size = min(size, max(b // equal.count(LEAST_PIECES, k), 1))
        each = b // size
        pieces = min(max(int(budget / size), LEAST_PIECES), k * each)
        return Online(size, pieces, math.ceil(pieces / each))

    def parts(self, batches: Sequence[Batch], ranks: Ranks = ALONE) -> Iterator[Part]:
        """The pieces, each of different samples, of the epoch's first batches (a rank's shares)."""
        each = math.ceil(self.pieces / max(self.batches, 1))
        for piece in range(self.pieces):
            at, start = piece // each, piece % each * self.size
            span = range(start, start + self.size)
            own = slice(ranks.count(span.start), ranks.count(span.stop))
            yield batches[at][0][own], batches[at][1][own], span


def measured(
    engine: Engine,
    network: nn.Module,
    plan: Online,
    first: Sequence[Batch],
    n: int,
    steps: Spread | None = None,
) -> tuple[Noise | None, Noise | None]:
    """C² and ‖∇f‖² of the parameters as they are, and the same of ``steps``; None where unplanned.

    The training that follows is as if nothing had been measured. Where updates that are not finite
    are skipped, so is a measurement.
    """
    if not plan.pieces:
        return None, None
    parts = plan.parts(first, engine.ranks)
    spread = measure.spread_of(engine, network, parts, also=steps)

    def noise(of: Spread | None) -> Noise | None:
        found = of.noise(batch_size=plan.size, n=n) if of else None
        return None if found and engine.skip and not math.isfinite(found.variance) else found

    return noise(spread), noise(steps)
