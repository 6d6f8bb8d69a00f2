"""The gradients of mini-batches as training makes them, and the C² that they have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from igo.config.schema import Config, training_samples
from igo.method import batches as equal
from igo.method.measure import draw, untouched
from igo.method.noise import Noise
from igo.method.spread import Spread
from igo.seeds import derive_seed
from igo.train.datasets import Data
from igo.train.engine import Engine
from igo.train.on_device import Batch

Part = tuple[Tensor, Tensor, range]  # what a rank has of it, and where it is in its batch


def size_at_start(config: Config, before: int | None) -> int:
    """b of the measurement at the start of a stage: the batch as it is, if K of them fit in n.

    ``before`` are the batches of an epoch of the stage before; None at the start of training.

    Under BatchNorm C² depends on the size of the batch that it is measured with.
    """
    n, cap = training_samples(config), config.noise.batch_size
    k = before or equal.count(n, config.batch_size)
    b = equal.sizes(n, k)[1]
    return max(1, min(b, cap or b, n // config.noise.batches))


def mini_batch(
    engine: Engine,
    network: nn.Module,
    data: Data,
    *,
    batch_size: int,
    batches: int,
    seed: int,
    sampling: str = "disjoint",
) -> Noise:
    """C² from mini-batch gradients as training makes them, augmentation and BatchNorm included."""
    drawn = draw(sampling, n=data.n, batch_size=batch_size, batches=batches, seed=seed)
    stream = data.train_batches(
        engine.ranks.share(drawn), derive_seed(seed, "augmentation"), engine.micro_batch_size
    )
    parts = ((*batch, range(batch_size)) for batch in stream)
    dropout = derive_seed(seed, "dropout", *engine.ranks.own)
    return spread_of(engine, network, parts, dropout).noise(
        batch_size=batch_size, n=data.n, sampling=sampling
    )


def spread_of(
    engine: Engine,
    network: nn.Module,
    parts: Iterable[Part],
    seed: int | None = None,
    also: Spread | None = None,
) -> Spread:
    """How the gradients of parts scatter; the training that follows is as if there were none.

    ``also`` takes the same gradients in.
    """
    with untouched(network, seed):
        spread = Spread(network.parameters())
        for part in parts:
            gradient = training_gradient(engine, network, part)
            spread.add(gradient)
            if also is not None:
                also.add(gradient)
    return spread


def training_gradient(
    engine: Engine, network: nn.Module, batch: Batch | tuple[Tensor, Tensor, range]
) -> list[Tensor | None]:
    """The gradient of a batch's mean loss as training computes it, by parameter.

    The batch, or this rank's share and the span of the whole one. Where training needs loss scaling
    (fp16), in fp32: a scaled gradient may overflow.
    """
    if engine.scaler.is_enabled():
        off = torch.amp.GradScaler(engine.device.type, enabled=False)
        engine = replace(engine, autocast=None, scaler=off)
    engine.backward(network, *batch)
    return [parameter.grad for parameter in network.parameters()]
