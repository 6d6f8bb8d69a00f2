"""Sets η of each update in any torch.optim optimizer."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from igo.method.arguments import PlanError
from igo.method.counter import Counter, Update

# The hook of the newest Schedule of each optimizer, which ends that of an earlier one.
_watched: weakref.WeakKeyDictionary[Optimizer, RemovableHandle] = weakref.WeakKeyDictionary()


class Schedule:
    """Sets η of each update in optimizers, and counts the update in the sampler.

    η_m/η_1 multiplies the rate that each parameter group was made with, as PyTorch's LambdaLR does;
    the group keeps that rate as ``initial_lr`` in the optimizer's state. The schedule itself has no
    state: the sampler holds the count. So a checkpoint needs the sampler's and the optimizer's
    state, loaded in any order. A new Schedule of an optimizer replaces the old one.

    >>> plan = igo.plan("graduated", n=10, epochs=2, batch_size=4, p=1, split=1)
    >>> head, body = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> optimizer = torch.optim.AdamW(
    ...     [{"params": head.parameters()}, {"params": body.parameters(), "lr": 0.01}], lr=0.1
    ... )
    >>> schedule = igo.Schedule(optimizer, igo.Counter(plan))
    >>> for _ in range(4):
    ...     update = schedule.step()
    >>> [round(group["lr"], 6) for group in optimizer.param_groups]  # stage 2: η_2 = η_1/2
    [0.05, 0.005]

    Args:
        optimizers: of torch.optim, one or several: ``Schedule([muon, adamw], batches)``. Rates that
            are tensors change in place. A group that is added later has the rate of that moment.
        batches: the loader's sampler; for your own loader, an ``igo.Counter``.

    Raises:
        PlanError: a group has no learning rate.
        TypeError: an optimizer is none of torch.optim, or ``batches`` is no sampler or counter.
    """

    def __init__(self, optimizers: Optimizer | Sequence[Optimizer], batches: Counter) -> None:
        if not isinstance(batches, Counter):
            kind = type(batches).__name__
            raise TypeError(
                f"igo.Schedule(optimizer, batches): batches is a {kind}, and must be an"
                " igo.BatchSampler or igo.Counter"
            )
        given = optimizers if isinstance(optimizers, Sequence) else [optimizers]
        self.optimizers = [_bare(optimizer) for optimizer in given]
        for optimizer in self.optimizers:
            if not isinstance(optimizer, Optimizer):
                kind = type(optimizer).__name__
                raise TypeError(
                    f"igo.Schedule(optimizer, batches): optimizer is a {kind}, and must be of"
                    " torch.optim"
                )
        self.batches = batches
        self._factor = 1.0  # η/η_1 of the newest update
        self._update: Update | None = None
        self._stepped: set[int] = set()  # the optimizers that made the newest update
        for group in self._groups():
            _initial(group)
        batches.owner = weakref.ref(self)
        for optimizer in self.optimizers:
            if earlier := _watched.get(optimizer):
                earlier.remove()
            _watched[optimizer] = optimizer.register_step_pre_hook(_hook(weakref.ref(self)))

    @property
    def learning_rate(self) -> float:
        """η of the newest update in the first parameter group; on a GPU it waits for the device."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    def step(self) -> Update:
        """Count the update that is about to be made, and set its η. Call it before each update.

        If the sampler cuts batches into parts, call it before each part.

        Returns:
            The update: its number, epoch, stage and batch size.

        Raises:
            RuntimeError: all updates of the plan are made, or it was called twice for a batch.
        """
        if self.batches.owner is None or self.batches.owner() is not self:
            raise RuntimeError(
                "a newer Schedule counts the updates of this sampler; for several optimizers make"
                " one Schedule: Schedule([first, second], batches)"
            )
        update = self.batches.advance()
        first = self.batches.plan.learning_rate
        for group in self._groups():
            initial = _initial(group, self._factor)
            exact = initial == first  # then the rate has the very bits of the plan's η_m
            rate = update.learning_rate * (1.0 if exact else initial / first)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # in place: compiled steps read this tensor
            else:
                group["lr"] = rate
        self._factor = update.learning_rate / first
        self._update, self._stepped = update, set()
        return update

    def _about_to_step(self, optimizer: Optimizer) -> None:
        """Refuse ``optimizer.step()`` at the wrong time."""
        update = self._update
        if update is None or id(optimizer) in self._stepped:
            raise RuntimeError(
                "optimizer.step() without a schedule.step() before it: call schedule.step() before"
                " each update, not once an epoch, and not after the update"
            )
        if not update.ends:
            raise RuntimeError(
                f"optimizer.step() after part {update.part} of {update.parts}: it comes after the"
                " last part of an update, `if update.ends:`"
            )
        self._stepped.add(id(optimizer))

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]


def _initial(group: dict[str, Any], factor: float = 1.0) -> float:
    """The rate that a parameter group was made with, at η = ``factor`` η_1; the group keeps it."""
    value = group.get("initial_lr")
    if not isinstance(value, float):  # not set yet, or a tensor that a PyTorch scheduler has set
        if value is None and group["lr"] is None:
            allowed = "the optimizer chooses its rate by itself; make it with a number"
            raise PlanError("lr", None, allowed)
        value = float(group["lr"]) / factor if value is None else float(value)
        group["initial_lr"] = value
    return value


def _hook(schedule: weakref.ref[Schedule]) -> Callable[..., None]:
    """What an optimizer calls before its step; it does not keep the schedule alive."""

    def about_to_step(optimizer: Optimizer, *_: Any) -> None:
        alive = schedule()
        if alive is not None and not torch.compiler.is_compiling():
            alive._about_to_step(optimizer)

    return about_to_step


def _bare(optimizer: Any) -> Optimizer:
    """The optimizer inside a wrapper such as Accelerate's."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer
    bare: Optimizer = optimizer
    return bare
