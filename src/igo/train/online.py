"""C² while training goes on: from pairs of parts of ordinary batches, before the update on them.

Both parts of a pair are unseen by the parameters that they are measured at: two pieces of the
present batch, or the present batch and the next. (A pair with the batch before, which the
parameters have just been updated on, is biased low, by 44 % on digits at b = 16.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from igo.config.schema import NoiseConfig
from igo.method import batches, noise
from igo.method.measure import untouched
from igo.method.noise import Noise
from igo.ranks import ALONE, Ranks
from igo.train import measure
from igo.train.datasets import Batch
from igo.train.engine import Engine

Part = tuple[Tensor, Tensor, range]  # what a rank has of it, and where it is in its batch
LEAST_PAIRS = 8  # of an epoch, for an interval
LEAST_SIZE = 8  # samples of a part: under BatchNorm, fewer have another C² altogether


@dataclass(frozen=True)
class Online:
    """The pairs of an epoch: ``at`` has the number of them before each update.

    A part is ``size`` samples; ``within`` says that a batch holds both parts of its pairs.
    """

    size: int
    at: Mapping[int, int]
    within: bool

    @staticmethod
    def of_epoch(config: NoiseConfig, n: int, k: int) -> Online:
        """Plan the pairs of an epoch of k equal batches of n samples.

        Measuring costs forward and backward of the parts on top of the steps. Within
        ``noise.online`` of the epoch's samples, there are LEAST_PAIRS pairs of the largest parts
        that fit, at most a batch, and more pairs once the parts are whole batches. A small data set
        costs more than that, as it has LEAST_PAIRS pairs of LEAST_SIZE too.
        """
        b = batches.sizes(n, k)[1]
        budget = config.online * n / 2  # samples in first parts
        if budget == 0 or n < 2:
            return Online(1, {}, True)
        size = min(b, config.batch_size or b, max(int(budget / LEAST_PAIRS), LEAST_SIZE))
        if _room(size, b, k) < LEAST_PAIRS:  # smaller ones, several pairs a batch
            size = min(size, max(b // (2 * batches.count(LEAST_PAIRS, k)), min(2, b // 2), 1))
        room = _room(size, b, k)
        pairs = min(max(int(budget / size), LEAST_PAIRS), room)
        each = max(b // (2 * size), 1)
        places = Counter((j * room // pairs) // each for j in range(pairs))
        return Online(size, dict(places), within=2 * size <= b)

    def parts(
        self, update: int, batch: Batch, after: Batch | None, ranks: Ranks = ALONE
    ) -> list[tuple[Part, Part]]:
        """The pairs before an update, each two parts of different samples.

        The batches, the present and the next one, are a rank's shares, and so are the parts.
        """
        count, s = self.at.get(update, 0), self.size
        if not self.within:
            if after is None:
                return []
            return [(_part(batch, range(s), ranks), _part(after, range(s), ranks))] * count
        starts = [range(i * s, (i + 1) * s) for i in range(2 * count)]
        found = [_part(batch, span, ranks) for span in starts]
        return list(zip(found[::2], found[1::2], strict=True))


def _room(size: int, b: int, k: int) -> int:
    """Pairs of parts of different samples that k batches of b have, within or between them."""
    return k * (b // (2 * size)) if 2 * size <= b else k - 1


def _part(batch: Batch, span: range, ranks: Ranks) -> Part:
    own = slice(ranks.count(span.start), ranks.count(span.stop))
    return batch[0][own], batch[1][own], span


def pair(engine: Engine, network: nn.Module, parts: tuple[Part, Part]) -> Tensor:
    """C² and ‖∇f‖², (2,) on the device, from two parts of ordinary training batches.

    The update that follows is made as if nothing had been measured.
    """
    with untouched(network), torch.random.fork_rng(devices=measure.gpus(engine)):
        first, second = (measure.training_gradient(engine, network, part) for part in parts)
    return noise.from_halves(first, second, 2 * len(parts[0][2]))


def gathered(rows: Sequence[Tensor], size: int, *, finite: bool) -> Noise | None:
    """The pairs of an epoch, off the device; ``finite`` leaves out those that are not."""
    found = torch.stack(list(rows)).cpu() if rows else torch.zeros(0, 2, dtype=torch.float64)
    if finite:
        found = found[found.isfinite().all(dim=1)]
    return noise.from_pairs(found[:, 0].tolist(), found[:, 1].tolist(), size)
