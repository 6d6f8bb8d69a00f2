"""Sets η of each update in any torch.optim optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from torch import Tensor
from torch.optim import Optimizer

from igo.method.arguments import PlanError
from igo.method.sampler import Counter
from igo.method.stages import Update

Batch = TypeVar("Batch")


class Schedule:
    """Sets η of each update in optimizers, and counts the update in the sampler.

    ``for batch in schedule(loader):`` does both before each batch. η_m/η_1 multiplies the rate that
    each parameter group was made with, as PyTorch's LambdaLR does; the group keeps that rate as
    ``initial_lr`` in the optimizer's state. The schedule has no state to save: the sampler holds
    the count. So a checkpoint needs the sampler's and the optimizer's state, loaded in any order.

    >>> plan = igo.plan("graduated", n=10, epochs=2, batch_size=5, p=1, split=1)
    >>> batches = igo.BatchSampler(plan, range(10))
    >>> loader = torch.utils.data.DataLoader(range(10), batch_sampler=batches)
    >>> head, body = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> optimizer = torch.optim.AdamW(
    ...     [{"params": head.parameters()}, {"params": body.parameters(), "lr": 0.01}], lr=0.1
    ... )
    >>> schedule = igo.Schedule(optimizer, batches)
    >>> for epoch in batches.epochs():
    ...     for batch in schedule(loader):
    ...         rates = [group["lr"] for group in optimizer.param_groups]
    ...         print(schedule.update.number, schedule.update.stage, rates)
    1 1 [0.1, 0.01]
    2 1 [0.1, 0.01]
    3 2 [0.05, 0.005]
    4 2 [0.05, 0.005]

    Args:
        optimizers: of torch.optim, one or several: ``Schedule([muon, adamw], batches)``. Rates that
            are tensors change in place. A group that is added later has the rate of that moment;
            with the optimizer's own rate, it counts as made with it.
        batches: the loader's sampler; for your own loader, an ``igo.Counter``.

    Attributes:
        update: the ``Update`` that is being made, None before the first.

    Raises:
        PlanError: a group has no learning rate.
        TypeError: an optimizer is none of torch.optim, or ``batches`` is no sampler or counter.
    """

    def __init__(self, optimizers: Optimizer | Sequence[Optimizer], batches: Counter) -> None:
        given = optimizers if isinstance(optimizers, Sequence) else [optimizers]
        self.optimizers = [_bare(optimizer) for optimizer in given]
        _check("batches", batches, Counter, "an igo.BatchSampler or igo.Counter")
        for optimizer in self.optimizers:
            _check("optimizer", optimizer, Optimizer, "of torch.optim")
            for group in optimizer.param_groups:
                _made_with(group)
        self.batches = batches
        self.update: Update | None = None

    @property
    def learning_rate(self) -> float:
        """η of the newest update in the first parameter group; on a GPU it waits for the device."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    def __call__(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """Yield what ``loader`` gives, each after ``step()``.

        Let it be the outermost: ``schedule(tqdm(loader))``. What you leave early, by ``break`` at
        the end of the body, the next loop over the loader finishes.

        Raises:
            RuntimeError: as ``step``.
        """
        for batch in loader:
            self.step()
            yield batch

    def step(self) -> Update:
        """Count the update that is about to be made, and set its η.

        A trainer that calls back does this before each update, or before each part of one.

        Returns:
            The update: its number, epoch, stage and batch size.

        Raises:
            RuntimeError: all updates of the plan are made, or the sampler gave no batch for it.
        """
        made, plan = self.batches.updates, self.batches.plan
        self.update = update = self.batches.advance()
        first, eta = plan.learning_rate, update.learning_rate
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                initial = group.get("initial_lr")
                if type(initial) is not float:  # of a new group
                    factor = plan.at(made).learning_rate / first if made else 1.0
                    initial = _made_with(group, optimizer.defaults.get("lr"), factor)
                # if it is η_1, the rate has the very bits of the plan's η_m
                rate = eta if initial == first else eta * (initial / first)
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)  # in place: compiled steps read this tensor
                else:
                    group["lr"] = rate
        return update


def _made_with(group: dict[str, Any], default: float | None = None, factor: float = 1.0) -> float:
    """The rate that a group was made with, which it keeps. A new one's is now ``factor`` of it."""
    rate = group.get("initial_lr")  # a PyTorch scheduler's may be a tensor
    if rate is None:
        rate = group["lr"]
        if rate is None:
            allowed = "the optimizer chooses its rate by itself; make it with a number"
            raise PlanError("lr", None, allowed)
        if isinstance(rate, Tensor) or rate != default:  # else it was added without one
            rate = rate / factor
    group["initial_lr"] = float(rate)
    return float(rate)


def _check(name: str, value: object, kind: type, wanted: str) -> None:
    if not isinstance(value, kind):
        found = f"{name} is a {type(value).__name__}, and must be {wanted}"
        raise TypeError(f"igo.Schedule(optimizer, batches): {found}")


def _bare(optimizer: Any) -> Optimizer:
    """The optimizer inside a wrapper such as Accelerate's."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer
    bare: Optimizer = optimizer
    return bare
