"""A network at several epochs of its training, and all its one-sample gradients."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from igo.config.plan import make_plan
from igo.config.schema import AugmentConfig, Config
from igo.ground.files import Record
from igo.noise.measure import per_sample_gradients
from igo.runs import assemble
from igo.runs.terminal import Terminal
from igo.train import datasets, loop
from igo.train.state import Progress, Training


def trained(config: Config, moments: list[int]) -> tuple[Training, dict[int, dict[str, Tensor]]]:
    """Train by igo's loop; return the model's state after each epoch in ``moments``.

    Epoch 0 is the initialisation. BatchNorm's running statistics are replaced by statistics of the
    training images at the same parameters, because an untrained model has none, and because running
    statistics depend on the last few batches.
    """
    plan = make_plan(config)
    training = assemble.prepare(config, plan)
    states: dict[int, dict[str, Tensor]] = {}
    progress = Progress()
    if 0 in moments:
        states[0] = _with_running_statistics(training)

    def epoch_done(record: Record) -> None:
        if record["epoch"] in moments:
            states[record["epoch"]] = _with_running_statistics(training)

    with Terminal().progress(plan, 0) as bar:
        loop.train(training, progress, bar, epoch_done, lambda: None)
    return training, states


def _with_running_statistics(training: Training) -> dict[str, Tensor]:
    """The model's state with BatchNorm's statistics averaged over the training images."""
    network = copy.deepcopy(training.network).train()
    order = torch.randperm(training.data.n, generator=torch.Generator().manual_seed(0))
    update_bn(training.data.train_batches(order[:4096].split(128), 0), network)
    return network.state_dict()


def unaugmented(config: Config, device: torch.device) -> datasets.Data:
    """The data set without augmentation: each sample has one gradient."""
    plain = replace(config, dataset=replace(config.dataset, augment=AugmentConfig()))
    return datasets.open_data(plain, device)


def sample_gradients(network: nn.Module, images: datasets.Data) -> Tensor:
    """The gradient of each training sample, (n, d) float32 on the CPU, BatchNorm in eval mode."""
    batches = images.train_batches(list(torch.arange(images.n).split(500)), 0)
    chunks = per_sample_gradients(
        network.eval(), nn.functional.cross_entropy, batches, memory=2**28
    )
    return torch.cat([rows.cpu() for rows in chunks])
