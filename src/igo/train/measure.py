"""C² from the gradients of mini-batches, computed as in training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from igo.config.schema import Config, training_samples
from igo.ground.seeds import derive_seed
from igo.method import batches as equal
from igo.noise.measure import draw, untouched
from igo.noise.noise import Noise
from igo.noise.spread import Spread
from igo.train.datasets import Data
from igo.train.engine import Engine
from igo.train.on_device import Batch

Part = tuple[Tensor, Tensor, range]  # a rank's images and labels; the part's range in the batch


def size_at_start(config: Config) -> int:
    """b of the measurement at the start of training: that of the first stage, if K batches fit.

    Under BatchNorm C² depends on the batch size that it is measured with.
    """
    n, largest = training_samples(config), config.noise.batch_size
    b = equal.sizes(n, equal.count(n, config.batch_size))[1]
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
    drawn = draw("disjoint", n=data.n, batch_size=batch_size, batches=batches, seed=seed)
    stream = data.train_batches(
        engine.ranks.share(drawn), derive_seed(seed, "augmentation"), engine.micro_batch_size
    )
    parts = ((*batch, range(batch_size)) for batch in stream)
    dropout = derive_seed(seed, "dropout", *engine.ranks.seed_suffix)
    return spread_of(engine, network, parts, dropout).noise(
        batch_size=batch_size, n=data.n, sampling="disjoint"
    )


def spread_of(
    engine: Engine,
    network: nn.Module,
    parts: Iterable[Part],
    seed: int | None = None,
) -> Spread:
    """The scatter of the parts' gradients; the training is unchanged."""
    with untouched(network, seed):
        spread = Spread(network.parameters())
        for part in parts:
            spread.add(training_gradient(engine, network, part))
    return spread


def training_gradient(
    engine: Engine, network: nn.Module, batch: Batch | tuple[Tensor, Tensor, range]
) -> list[Tensor | None]:
    """The gradient of a batch's mean loss as in training, by parameter.

    ``batch`` is the whole batch, or this rank's share and the span of the whole one. If training
    scales the loss (fp16), the gradient is in fp32, as a scaled gradient may overflow.
    """
    if engine.scaler.is_enabled():
        off = torch.amp.GradScaler(engine.device.type, enabled=False)
        engine = replace(engine, autocast=None, scaler=off)
    engine.backward(network, *batch)
    return [parameter.grad for parameter in network.parameters()]
