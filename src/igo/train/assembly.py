"""A training, put together from its configuration and its plan."""

import torch

from igo.config.schema import Config, place_of
from igo.data.identity import identify
from igo.ground import seeds
from igo.ground.errors import UserError, counted, require
from igo.ground.ranks import ALONE, Ranks
from igo.loop.sampler import BatchSampler
from igo.loop.schedule import Schedule
from igo.plans.plan import Plan
from igo.train import datasets, engine, machine, models, optimizers
from igo.train.reference import reference_size
from igo.train.training import Training


def assembled(config: Config, plan: Plan, ranks: Ranks = ALONE) -> Training:
    """Read the data, build model and optimizer, and check that they fit."""
    sizes = [*plan.batch_sizes, reference_size(config)]
    require(
        min(sizes) >= ranks.size,
        "batch_size",
        config.batch_size,
        f"the smallest batch, or batch to measure C², has {counted(min(sizes), 'sample')},"
        f" fewer than the {ranks.size} processes; take larger batches or fewer processes",
    )
    built = machine.choose(config.engine, config.dataset.image_size, ranks)
    images = datasets.open_data(config, built.device)
    torch.manual_seed(seeds.derive_seed(config.seed, "initialisation"))
    network = models.build(config.model, config.dataset)
    # BatchNorm fails if a part has a single value a channel. It shall fail now, not in the stage
    # whose batch is cut so.
    smallest = built.smallest_part(sizes)
    if models.check_model(network, config.model, config.dataset, smallest):
        built = machine.without_bf16(built)
    network = built.prepare(network)
    built, network = engine.distributed(built, network)
    optimizer = optimizers.build(config.optimizer, network.parameters(), config.learning_rate)
    data = identify(config.dataset.name, place_of(config))
    digits: str = ranks.broadcast(data.fingerprint)
    if data.fingerprint != digits:
        raise UserError(f"process {ranks.rank} has other data than the first: {data}, not {digits}")
    batches = BatchSampler(
        plan,
        range(images.n),
        seed=config.seed,
        rank=ranks.rank,
        ranks=ranks.size,
        micro_batch_size=built.micro_batch_size,
    )
    schedule = Schedule(optimizer, batches)
    return Training(config, batches, images, network, optimizer, schedule, built, data)
