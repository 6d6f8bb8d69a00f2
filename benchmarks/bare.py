"""(e) The bare limit: forward, backward and optimizer step on one tensor that never changes.

No data, no augmentation, no sums, no progress: nothing but PyTorch's arithmetic, in the faster of
this hardware's precision and fp32, channels_last or not.
"""

from __future__ import annotations

import itertools
import time
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.worker import Turns, synchronise
from igo import data
from igo.config import Config
from igo.schedule import make_plan

TRIAL_SECONDS = 0.5


@dataclass(frozen=True)
class Form:
    """How the arithmetic is done."""

    device: torch.device
    autocast: torch.dtype | None
    layout: torch.memory_format


def train(config: Config, turns: Turns) -> nn.Module:
    device, autocast = peers.device_and_precision(config)
    plan = make_plan(config)
    images = data.open_data(config, device)
    first = data.epoch_batches(plan.n, plan.stages[0].b_m, config.seed, 1)[:1]
    form = fastest(config, device, autocast, next(images.train_batches(first, 0)))
    network: nn.Module = peers.network(config).to(device).to(memory_format=form.layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=config.learning_rate, fused=True)
    network.train()
    for epoch, stage in plan.epochs_of_stages(0):
        for group in optimizer.param_groups:
            group["lr"] = stage.eta_m
        order = data.epoch_batches(plan.n, stage.b_m, config.seed, epoch)
        sizes = [len(index) for index in order]
        # The last batch, which may be shorter, and the first, which stands for all the others.
        kept = images.train_batches([order[-1], order[0]], 0)
        fixed = {len(batch[1]): batch for batch in kept}
        turns.begin()
        for size in sizes:
            loss = update(form, network, optimizer, *fixed[size])
        turns.end(plan.n, float(loss))
    return network


def update(
    form: Form, network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> Tensor:
    optimizer.zero_grad()
    with torch.autocast(form.device.type, form.autocast) if form.autocast else nullcontext():
        logits = network(images)
    loss = F.cross_entropy(logits.float(), labels)
    loss.backward()
    optimizer.step()
    return loss.detach()


def fastest(
    config: Config, device: torch.device, autocast: torch.dtype | None, batch: tuple[Tensor, Tensor]
) -> Form:
    """Try each form for a moment; the form of this project is the first."""
    layouts = (torch.channels_last, torch.contiguous_format)
    forms = [
        Form(device, *one) for one in itertools.product(dict.fromkeys((autocast, None)), layouts)
    ]
    if config.engine.precision != "auto":
        forms = [form for form in forms if form.autocast is autocast]
    return min(forms, key=lambda form: _trial(config, form, batch))


def _trial(config: Config, form: Form, batch: tuple[Tensor, Tensor]) -> float:
    """Seconds of the fastest of some updates."""
    network = peers.network(config).to(form.device).to(memory_format=form.layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0, fused=True)
    images = batch[0].contiguous(memory_format=form.layout)
    best, until = float("inf"), time.perf_counter() + TRIAL_SECONDS
    for repeat in itertools.count():
        synchronise()
        started = time.perf_counter()
        update(form, network, optimizer, images, batch[1])
        synchronise()
        best = min(best, time.perf_counter() - started)
        if repeat > 1 and time.perf_counter() > until:
            return best
    return best
