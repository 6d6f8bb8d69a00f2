"""C² from gradients that are computed as in training: at its start, and before each epoch.

Before an epoch's first update all samples have been seen equally often. So disjoint pieces of its
first batches are exchangeable, and the ordinary estimator is unbiased for C² over all n samples.
Later in the epoch it would measure the samples to come. Their gradients are larger than those of
samples just trained on (docs/noise.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from igo.config.schema import Config, NoiseConfig, training_samples
from igo.ground.ranks import ALONE, Ranks
from igo.ground.seeds import derive_seed, generator
from igo.method import batches as equal
from igo.noise.measure import untouched
from igo.noise.noise import Noise
from igo.noise.spread import Spread
from igo.train.datasets import Data
from igo.train.engine import Engine
from igo.train.on_device import Batch

LEAST_PIECES = 8  # of an epoch, for an interval
LEAST_SIZE = 8  # samples of a piece: under BatchNorm, smaller pieces have a very different C²

Part = tuple[Tensor, Tensor, int]  # a rank's images and labels; samples of the part over all ranks


def size_at_start(config: Config) -> int:
    """b of the measurement at the start of training: that of the first stage, if K batches fit.

    Under BatchNorm C² depends on the batch size that it is measured with.
    """
    n, largest = training_samples(config), config.noise.batch_size
    b = n // equal.count(n, config.batch_size)
    return max(1, min(b, largest or b, n // config.noise.batches))


def mini_batch(
    engine: Engine,
    network: nn.Module,
    data: Data,
    *,
    batch_size: int,
    batches: int,
    seed: int,
) -> Noise:
    """C² from mini-batch gradients as in training, with augmentation and BatchNorm."""
    order, ranks = torch.randperm(data.n, generator=generator(seed, "pieces")), engine.ranks
    drawn = order[: batches * batch_size].split(batch_size)
    stream = data.train_batches(
        [index[ranks.rank :: ranks.size] for index in drawn],
        derive_seed(seed, "augmentation"),
        engine.micro_batch_size,
    )
    parts = ((*batch, batch_size) for batch in stream)
    dropout = derive_seed(seed, "dropout", *ranks.seed_suffix)
    return _spread_of(engine, network, parts, dropout).noise(
        batch_size=batch_size, n=data.n, sampling="disjoint"
    )


@dataclass(frozen=True)
class Online:
    """The measurement of an epoch: ``pieces`` of ``size`` samples of its first ``batches``."""

    size: int
    pieces: int
    batches: int

    @staticmethod
    def of_epoch(config: NoiseConfig, n: int, k: int, ranks: int = 1) -> Online:
        """Plan the pieces of an epoch of k equal batches of n samples.

        Each piece costs a forward and a backward pass. The budget is the share ``noise.online`` of
        the epoch's samples. It gives LEAST_PIECES of the largest size that fits, at most a batch;
        if they are whole batches, it may give more. A small data set exceeds the budget, as it has
        LEAST_PIECES of LEAST_SIZE too. Each rank has a sample of each piece.
        """
        b = n // k
        budget = config.online * n
        if budget == 0 or n < 2:
            return Online(1, 0, 0)
        size = min(b, config.batch_size or b, max(int(budget / LEAST_PIECES), LEAST_SIZE))
        if k * (b // size) < LEAST_PIECES:  # take smaller pieces, several of each batch
            size = min(size, b // equal.count(LEAST_PIECES, k))
        size = max(size, ranks)
        per_batch = b // size
        pieces = min(max(int(budget / size), LEAST_PIECES), k * per_batch)
        return Online(size, pieces, math.ceil(pieces / per_batch))

    def parts(self, batches: Sequence[Batch], ranks: Ranks = ALONE) -> Iterator[Part]:
        """Yield the pieces of the epoch's first batches, of which a rank has its shares."""
        per_batch = math.ceil(self.pieces / max(self.batches, 1))
        for piece in range(self.pieces):
            images, labels = batches[piece // per_batch]
            start = piece % per_batch * self.size
            own = slice(  # of this rank's samples r, r + R, … of the batch
                -(-(start - ranks.rank) // ranks.size),
                -(-(start + self.size - ranks.rank) // ranks.size),
            )
            yield images[own], labels[own], self.size


def online(
    engine: Engine, network: nn.Module, plan: Online, first: Sequence[Batch], n: int
) -> Noise | None:
    """C² and ‖∇f‖² at the present parameters; None if not planned. Training is unchanged."""
    if not plan.pieces:
        return None
    spread = _spread_of(engine, network, plan.parts(first, engine.ranks))
    return spread.noise(batch_size=plan.size, n=n)


def _spread_of(
    engine: Engine, network: nn.Module, parts: Iterable[Part], seed: int | None = None
) -> Spread:
    """The scatter of the parts' gradients; the training is unchanged."""
    with untouched(network, seed):
        spread = Spread(network.parameters())
        for part in parts:
            spread.add(training_gradient(engine, network, part))
    return spread


def training_gradient(
    engine: Engine, network: nn.Module, batch: Batch | Part
) -> list[Tensor | None]:
    """The gradient of a batch's mean loss as in training, by parameter.

    ``batch`` is the whole batch, or this rank's share and the size of the whole one. If training
    scales the loss (fp16), the gradient is in fp32, as a scaled gradient may overflow.
    """
    if engine.scaler.is_enabled():
        off = torch.amp.GradScaler(engine.device.type, enabled=False)
        engine = replace(engine, autocast=None, scaler=off)
    engine.backward(network, *batch)
    return [parameter.grad for parameter in network.parameters()]
