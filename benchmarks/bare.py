"""(e) The bare limit: forward, backward and optimizer step on one tensor that never changes.

There is no data, no augmentation, no sum and no progress bar: only PyTorch's arithmetic. It takes
the fastest form of these: this hardware's precision or fp32, channels_last or not. On a CPU freed
memory stays in the process, as in this project.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.worker import Turns, synchronise
from igo.config.load import make_plan
from igo.config.schema import Config
from igo.train import datasets
from igo.train.machine import keep_freed_memory

TRIAL_SECONDS = 0.5
Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Form:
    """A form of the arithmetic."""

    device: torch.device
    autocast: torch.dtype | None
    layout: torch.memory_format


def train(config: Config, turns: Turns) -> nn.Module:
    device, autocast = peers.device_and_precision(config)
    if device.type == "cpu":
        keep_freed_memory()
    plan = make_plan(config)
    images = datasets.open_data(config, device)
    first = [torch.tensor(peers.epoch_batches(plan.n, plan.rows[0].batches, config.seed, 1)[0])]
    form = fastest(config, device, autocast, next(images.train_batches(first, 0)))
    network: nn.Module = peers.network(config).to(device).to(memory_format=form.layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=config.learning_rate, fused=True)
    network.train()
    steps: dict[int, Step] = {}
    for epoch in range(1, plan.epochs + 1):
        stage = plan.rows_of_epoch(epoch)[0]
        for group in optimizer.param_groups:
            group["lr"] = stage.eta_m
        drawn = peers.epoch_batches(plan.n, stage.batches, config.seed, epoch)
        order = [torch.tensor(index) for index in drawn]
        sizes = [len(index) for index in order]
        # the last batch may be shorter; the first one is used for all others
        kept = images.train_batches([order[-1], order[0]], 0)
        fixed = {len(batch[1]): batch for batch in kept}
        if fixed.keys() != steps.keys():
            steps = {b: step(form, network, optimizer, fixed[b]) for b in fixed}
        turns.begin()
        for size in sizes:
            loss = steps[size]()
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


def step(
    form: Form, network: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]
) -> Step:
    """A function that makes an update on this batch at each call."""
    images = batch[0].contiguous(memory_format=form.layout)
    return partial(update, form, network, optimizer, images, batch[1])


def fastest(
    config: Config, device: torch.device, autocast: torch.dtype | None, batch: tuple[Tensor, Tensor]
) -> Form:
    """The form that is fastest in a short trial; the first one is that of this project."""
    layouts = (torch.channels_last, torch.contiguous_format)
    kinds = itertools.product(dict.fromkeys((autocast, None)), layouts)
    forms = [Form(device, *kind) for kind in kinds]
    if config.engine.precision != "auto":
        forms = [form for form in forms if form.autocast is autocast]
    trials = [_trial(config, form, batch) for form in forms]
    best = [float("inf")] * len(forms)
    until = time.perf_counter() + TRIAL_SECONDS * len(forms)
    for repeat in itertools.count():  # by turns: a slow moment of the machine meets all forms
        if repeat > 1 and time.perf_counter() > until:
            break
        best = [min(pair) for pair in zip(best, map(_seconds, trials), strict=True)]
    return forms[best.index(min(best))]


def _trial(config: Config, form: Form, batch: tuple[Tensor, Tensor]) -> Step:
    network = peers.network(config).to(form.device).to(memory_format=form.layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0, fused=True)
    return step(form, network, optimizer, batch)


def _seconds(once: Step) -> float:
    synchronise()
    started = time.perf_counter()
    once()
    synchronise()
    return time.perf_counter() - started
