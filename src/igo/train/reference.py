"""C² before training, which the planned δ_m takes as constant: the reference of a run."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn

from igo.config.schema import Config, training_samples
from igo.ground.errors import UserError
from igo.ground.seeds import derive_seed, generator
from igo.noise.measure import measure_noise
from igo.noise.noise import Noise
from igo.plans import batches
from igo.train.on_device import Batch
from igo.train.training import Training


def reference_size(config: Config) -> int:
    """b of the measurement before training: that of the first stage, if K batches fit.

    Under BatchNorm C² depends on the batch size that it is measured with.
    """
    n = training_samples(config)
    return max(1, min(n // batches.count(n, config.batch_size), n // config.noise.batches))


def reference_noise(run: Training) -> Noise:
    """C² before training, from gradients as in training, with augmentation and BatchNorm.

    If training scales the loss (fp16), it is in fp32, as a scaled gradient may overflow.
    """
    config, engine, ranks = run.config, run.engine, run.engine.ranks
    if engine.scaler.is_enabled():
        engine = replace(engine, autocast=None)
    size, seed = reference_size(config), derive_seed(config.seed, "noise", 1)
    order = torch.randperm(run.data.n, generator=generator(seed, "pieces"))
    pieces = order[: config.noise.batches * size].split(size)
    count = run.batches.parts_of(size)
    shares = [p for piece in pieces for p in piece[ranks.rank :: ranks.size].tensor_split(count)]
    stream = run.data.train_batches(shares, derive_seed(seed, "augmentation"))

    def losses(network: nn.Module, parts: Iterator[Batch]) -> Iterator[Tensor]:
        return (loss * (ranks.size / size) for loss, *_ in engine.losses(network, parts))

    try:
        return measure_noise(
            run.network,
            None,
            (islice(stream, count) for _ in pieces),
            n=run.data.n,
            batches=len(pieces),
            loss_of=losses,
            batch_size=size,
            seed=derive_seed(seed, "dropout", *ranks.seed_suffix),
        )
    except ValueError as error:
        raise UserError(f"C² before training: {error}") from None
