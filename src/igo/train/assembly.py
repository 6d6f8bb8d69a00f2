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
from igo.train import datasets, machine, models, optimizers
from igo.train.engine import distributed
from igo.train.reference import reference_size
from igo.train.training import Training


def assembled(config: Config, plan: Plan, ranks: Ranks = ALONE) -> Training:
    """The training of a configuration, with data, model and optimizer that fit each other."""
    sizes = [*plan.batch_sizes, reference_size(config)]
    require(
        min(sizes) >= ranks.size,
        "batch_size",
        config.batch_size,
        f"the smallest batch, or batch to measure C², has {counted(min(sizes), 'sample')},"
        f" fewer than the {ranks.size} processes; take larger batches or fewer processes",
    )
    engine = machine.choose(config.engine, config.dataset.image_size, ranks)
    data = datasets.open_data(config, engine.device)
    torch.manual_seed(seeds.derive_seed(config.seed, "initialisation"))
    network = models.build(config.model, config.dataset)
    # A model that cannot take the smallest part of a batch shall fail now, and not in the stage of
    # this batch: BatchNorm needs more than one value a channel.
    smallest = engine.smallest_part(sizes)
    # ``check_model`` says whether bf16 gradients would be wrong on a CPU.
    if models.check_model(network, config.model, config.dataset, smallest):
        engine = machine.without_bf16(engine)
    engine, network = distributed(engine, engine.prepare(network))
    optimizer = optimizers.build(config.optimizer, network.parameters(), config.learning_rate)
    identity = identify(config.dataset.name, place_of(config))
    # Each process reads its own files, maybe on another machine than the first.
    first_fingerprint: str = ranks.broadcast(identity.fingerprint)
    if identity.fingerprint != first_fingerprint:
        raise UserError(
            f"process {ranks.rank} has other data than the first: {identity}, not"
            f" {first_fingerprint}"
        )
    batches = BatchSampler(
        plan,
        range(data.n),
        seed=config.seed,
        rank=ranks.rank,
        ranks=ranks.size,
        micro_batch_size=engine.micro_batch_size,
    )
    schedule = Schedule(optimizer, batches)
    return Training(config, batches, data, network, optimizer, schedule, engine, identity)
