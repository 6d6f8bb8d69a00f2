"""(e) The bare limit: forward, backward and optimizer step on one tensor that never changes.

There is no data, no augmentation, no C² and no progress bar, only PyTorch's arithmetic: the model
and its gradient are this project's own, so that the limit cannot be beaten. It takes the fastest
form of these: this hardware's precision or fp32, channels_last or not. On a CPU freed memory stays
in the process, as in this project.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.worker import Turns, synchronise
from igo.config.load import make_plan
from igo.config.schema import Config
from igo.train import datasets, measure, optimizers
from igo.train.engine import Engine

TRIAL_SECONDS = 0.5
Batch = tuple[Tensor, Tensor]
Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Form:
    """A form of the arithmetic."""

    engine: Engine
    layout: torch.memory_format

    def network(self, config: Config) -> nn.Module:
        """The model in this form, in training mode."""
        model = self.engine.prepare(peers.network(config)).train()
        return model.to(memory_format=self.layout)  # type: ignore[call-overload, no-any-return]

    def step(self, network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> Step:
        """A function that makes an update on this batch at each call, and returns its loss."""
        images, labels = batch[0].contiguous(memory_format=self.layout), batch[1]
        parameters = [*network.parameters()]

        def update() -> Tensor:
            loss, *_ = self.engine.backward(network, [(images, labels)], len(labels), parameters)
            self.engine.update(optimizer)
            return loss / len(labels)

        return update


def train(config: Config, turns: Turns) -> nn.Module:
    engine, plan = peers.engine(config), make_plan(config)
    images = datasets.open_data(config, engine.device)
    first_indices = [
        torch.tensor(peers.epoch_batches(plan.n, plan.rows[0].batches, config.seed, 1)[0])
    ]
    form = fastest(config, engine, next(images.train_batches(first_indices, 0)))
    network = form.network(config)
    optimizer = optimizers.build(config.optimizer, network.parameters(), config.learning_rate)
    steps: dict[int, Step] = {}
    # The first turn is as long as that of this project, so that both processes are as warm.
    early_epochs = measure.EARLY if config.schedule.profile == "constant" else 0
    for epoch in range(1, plan.epochs + 1):
        stage = plan.rows_of_epoch(epoch)[0]
        for group in optimizer.param_groups:
            group["lr"] = stage.eta_m
        indices = peers.epoch_batches(plan.n, stage.batches, config.seed, epoch)
        order = [torch.tensor(index) for index in indices]
        sizes = [len(index) for index in order]
        # The last batch may be shorter; the first one is used for all others.
        batches = images.train_batches([order[-1], order[0]], 0)
        batch_of_size = {len(batch[1]): batch for batch in batches}
        if batch_of_size.keys() != steps.keys():
            steps = {b: form.step(network, optimizer, batch_of_size[b]) for b in batch_of_size}
        turns.begin()
        for size in sizes * (1 + early_epochs if epoch == 1 else 1):
            loss = steps[size]()
        turns.end(plan.n, float(loss))
    return network


def fastest(config: Config, engine: Engine, batch: Batch) -> Form:
    """The form that is fastest in a short trial; the first one is that of this project."""
    layouts = (torch.channels_last, torch.contiguous_format)
    kinds = dict.fromkeys((engine.autocast, None))
    if config.engine.precision != "auto":
        kinds = {engine.autocast: None}
    forms = [
        Form(replace(engine, autocast=autocast), layout)
        for autocast, layout in itertools.product(kinds, layouts)
    ]
    trials = [_trial(config, form, batch) for form in forms]
    best = [float("inf")] * len(forms)
    end = time.perf_counter() + TRIAL_SECONDS * len(forms)
    for repeat in itertools.count():  # By turns, so that a slow moment meets all forms.
        if repeat > 1 and time.perf_counter() > end:
            break
        best = [min(pair) for pair in zip(best, map(_seconds, trials), strict=True)]
    return forms[best.index(min(best))]


def _trial(config: Config, form: Form, batch: Batch) -> Step:
    network = form.network(config)
    optimizer = optimizers.build(config.optimizer, network.parameters(), 0.0)
    return form.step(network, optimizer, batch)


def _seconds(step: Step) -> float:
    synchronise()
    start = time.perf_counter()
    step()
    synchronise()
    return time.perf_counter() - start
