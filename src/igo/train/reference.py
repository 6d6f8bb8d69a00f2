"""Measures C² before training. The planned δ_m takes it as constant."""

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
    """b of the K batches that are measured before training: the first stage's, or smaller to fit.

    Under BatchNorm C² depends on the batch size that it is measured with. K disjoint batches have
    at most n samples in all.
    """
    n = training_samples(config)
    # An epoch of the first stage is n samples in equal batches.
    of_first_stage = n // batches.count(n, config.batch_size)
    most = n // config.noise.batches
    return max(1, min(of_first_stage, most))


def reference_noise(run: Training) -> Noise:
    """C² and ‖∇f‖ before training, from gradients as in training: augmented, with BatchNorm.

    A training in fp16, which scales the loss, is measured in fp32: a scaled gradient may overflow.

    Raises:
        UserError: a loss is not finite, or a parameter gets no gradient.
    """
    config, engine, ranks = run.config, run.engine, run.engine.ranks
    if engine.scaler.is_enabled():
        engine = replace(engine, autocast=None)
    size, seed = reference_size(config), derive_seed(config.seed, "noise", 1)
    # K disjoint batches of b samples. As in training each is shared among the ranks, and each share
    # cut into parts; one stream has the parts of all batches. The names of the seeds are kept, as
    # another name would change the numbers of old runs.
    order = torch.randperm(run.data.n, generator=generator(seed, "pieces"))
    index_batches = order[: config.noise.batches * size].split(size)
    count = run.batches.parts_of(size)
    own_parts: list[Tensor] = []
    for index in index_batches:
        own_parts += index[ranks.rank :: ranks.size].tensor_split(count)
    stream = run.data.train_batches(own_parts, derive_seed(seed, "augmentation"))

    def losses(network: nn.Module, parts: Iterator[Batch]) -> Iterator[Tensor]:
        """Yield what each part adds to the batch's mean loss.

        A part's loss is a sum. As in training its share is R/size, for R ranks: their gradients are
        averaged afterwards.
        """
        return (loss * (ranks.size / size) for loss, *_ in engine.losses(network, parts))

    try:
        return measure_noise(
            run.network,
            None,
            (islice(stream, count) for _ in index_batches),
            n=run.data.n,
            batches=len(index_batches),
            loss_of=losses,
            batch_size=size,
            seed=derive_seed(seed, "dropout", *ranks.seed_suffix),
        )
    except ValueError as error:
        raise UserError(f"C² before training: {error}") from None
