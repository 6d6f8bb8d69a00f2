"""A start of a training program with igo's lines, and the plan that it trains."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

import igo

N, EPOCHS, RATE = 96, 4, 0.1
DATA: Any = torch.arange(float(N)).unsqueeze(1)  # sample i is the number i


def plan(profile: Any = "linear", **arguments: Any) -> Any:
    return igo.plan(profile, **{"n": N, "epochs": EPOCHS, "batch_size": 8, **arguments})


def sgd(rate: Any = RATE) -> torch.optim.Optimizer:
    """An optimizer of one parameter."""
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], rate)


PLAN = plan("step", stages=2, gamma=0.5)  # two epochs of 12 batches, then two of 6


class Loop:
    """What a program makes before its loop; ``saved`` is the state of an earlier one's schedule."""

    def __init__(
        self,
        workers: int = 0,
        saved: Any = None,
        model: Any = None,
        data: Any = DATA,
        **sampler: Any,
    ) -> None:
        self.model = model or nn.BatchNorm1d(1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        self.batches = igo.BatchSampler(PLAN, DATA, **sampler)
        self.loader: Any = DataLoader(
            data,
            batch_sampler=self.batches,
            num_workers=workers,
            persistent_workers=bool(workers and saved),
        )
        self.schedule = igo.Schedule(self.optimizer, self.batches)
        if saved:
            self.schedule.load_state_dict(saved)


def measured(loop: Loop, loader: Any) -> igo.Noise:
    """The noise of the loop's model on a loader."""
    sizes: Any = {"n": N, "batches": 2, "batch_size": 8}
    return igo.measure_noise(
        loop.model, None, loader, **sizes, loss_of=lambda model, batch: model(batch).square().mean()
    )
