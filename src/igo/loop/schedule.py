"""Sets η of each update in any torch.optim optimizer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from igo.ground.seeds import derive_seed
from igo.loop.counter import GIVE, Counter
from igo.loop.sampler import BatchSampler, check_length
from igo.loop.state import check_plan
from igo.loop.witness import Witness
from igo.plans.arguments import PlanError, PlanWarning
from igo.plans.rows import Update

Loader = TypeVar("Loader", bound=Iterable[Any])
SAME = 1e-6  # Rounding to float32 may change a learning rate by less, relative to the rate.


class Batches:
    """What ``schedule(loader)`` returns: a view of it that counts an update before each batch.

    A pass over the view is an epoch, or the rest of one. The view's length and other attributes are
    the loader's, and what is set on the view is set on the loader. ``loader`` is the loader itself,
    which counts nothing.
    """

    # A copy that has no attributes yet is asked for some. ``__getattr__`` then reads ``loader``,
    # and without this line would call itself for ever.
    loader: Any = None
    # Why ``igo.measure_noise`` must not use the batches of a view: the text after "loader".
    unmeasurable = "counts an update with each batch: measure with the one that it was made with"

    def __init__(self, schedule: Schedule, loader: Iterable[Any]) -> None:
        # A plain assignment would set the attribute on the loader, see ``__setattr__``.
        vars(self).update(schedule=schedule, loader=loader)

    def __iter__(self) -> Iterator[Any]:
        if not torch.is_grad_enabled():
            raise RuntimeError(
                "each batch of schedule(loader) is an update, and gradients are off: to evaluate,"
                " loop over the loader that it was made with"
            )
        counter = self.schedule.batches
        # A trainer that takes all epochs to be as long as the first may ask for too many.
        if counter.done:
            warnings.warn(
                f"all {counter.plan.updates:,} updates of the plan are done, so this loop has no"
                " batches",
                PlanWarning,
                stacklevel=2,
            )
            return
        # A view counts each batch. So the sampler need not look for batches that were skipped after
        # a resume, which it does while this is an epoch's number.
        counter._resumed_epoch = 0
        # A DataLoader draws its workers' seed from PyTorch's generator at the start of each pass. A
        # resume in mid-epoch makes a pass more, which must not move the loop's own random numbers.
        # So the generator has a seed of its own for the draw, and its old state afterwards.
        with torch.random.fork_rng(devices=[]):
            seed = derive_seed(torch.initial_seed(), "workers", counter.updates, counter.rank)
            torch.default_generator.manual_seed(seed)
            batches = iter(self.loader)
        for batch in batches:
            self.schedule.step()
            try:
                yield batch
            except GeneratorExit:  # The loop was left, by ``break`` for example.
                self.schedule._witness.check_left()
                raise
            if counter.done and not counter._delivers:
                break  # A loader of your own may have more batches than the plan.
        self.schedule._witness.pass_end = counter.updates

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.loader, name, value)


class Schedule:
    """Sets η of each update in optimizers, and counts the update in the sampler.

    A loop over ``schedule(loader)`` does both before each batch. The factor η_m/η_1 of stage m
    multiplies the rate that each parameter group was made with, as PyTorch's LambdaLR does; the
    group keeps that rate as ``initial_lr`` in the optimizer's state. timm's ``lr_scale`` of a group
    multiplies the group's rate, too.

    >>> plan = igo.plan("graduated", n=10, epochs=2, batch_size=5, p=1, split=1)
    >>> batches = igo.BatchSampler(plan, range(10))
    >>> loader = torch.utils.data.DataLoader(range(10), batch_sampler=batches)
    >>> head, body = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> optimizer = torch.optim.AdamW(
    ...     [{"params": head.parameters()}, {"params": body.parameters(), "lr": 0.01}], lr=0.1
    ... )
    >>> schedule = igo.Schedule(optimizer, batches)
    >>> loader = schedule(loader)
    >>> for epoch in batches.epochs():
    ...     for batch in loader:
    ...         print(schedule.update.number, schedule.update.stage, schedule.get_last_lr())
    1 1 [0.1, 0.01]
    2 1 [0.1, 0.01]
    3 2 [0.05, 0.005]
    4 2 [0.05, 0.005]

    Args:
        optimizers: of torch.optim, one or several: ``Schedule([muon, adamw], batches)``. Rates that
            are tensors change in place. A group that is added in mid-plan has a rate of that
            moment, η_m/η_1 included. If it has the optimizer's own rate, as a group that is given
            none, the group counts as made with that rate.
        batches: the loader's sampler; for your own loader, an ``igo.Counter``.

    Raises:
        PlanError: a group has no learning rate.
        TypeError: there is no optimizer of torch.optim, or ``batches`` is no sampler or counter.
        RuntimeError: in ``optimizer.step()``, if the schedule has counted no update before, the
            update has parts left, or the loop skipped batches after ``load_state_dict``.
    """

    def __init__(self, optimizers: Optimizer | Sequence[Optimizer], batches: Counter) -> None:
        sequence = optimizers if isinstance(optimizers, Sequence) else [optimizers]
        self.optimizers = [inner for outer in sequence for inner in _inside(outer)]
        are_optimizers = all(isinstance(optimizer, Optimizer) for optimizer in self.optimizers)
        if not (self.optimizers and are_optimizers and isinstance(batches, Counter)):
            kinds = ", ".join(type(argument).__name__ for argument in (*self.optimizers, batches))
            takes = "one of torch.optim or several, and an igo.BatchSampler or igo.Counter"
            raise TypeError(f"igo.Schedule(optimizer, batches) takes {takes}, not {kinds}")
        self.batches = batches
        self._update: Update | None = None  # the newest update; None before the first one
        for group in self._groups:
            _keep_initial_rate(group)
        self._witness = Witness(self.optimizers, batches)

    @property
    def _groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all optimizers, in their order."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @property
    def update(self) -> Update:
        """The update that is being made, with η of the first group.

        Raises:
            RuntimeError: before the first update.
        """
        if self._update is None:
            raise RuntimeError("no update has begun: loop over schedule(loader)")
        return self._update

    @property
    def learning_rate(self) -> float:
        """η of the newest update in the first parameter group.

        If the rate is a tensor on a GPU, reading it waits for the device.
        """
        return self.get_last_lr()[0]

    def get_last_lr(self) -> list[float]:
        """η of the newest update in each parameter group, as from a scheduler of PyTorch's."""
        return [float(group["lr"]) for group in self._groups]

    def __call__(self, loader: Any) -> Any:
        """A view of the loader, which calls ``step()`` before it gives a batch.

        The view is used as the loader was, in each epoch again, and to type checkers it is the
        same. The view's ``loader`` counts nothing. If you leave a loop over the view early, by
        ``break`` at the end of the body, the next loop over the view finishes the epoch.

        After a pass over the view a step for a batch that was not counted warns (``PlanWarning``).

        Raises:
            TypeError: the loader has another batch sampler, or is a view already.
            PlanError: the loader's data set has another length than the plan's; or, beside a
                ``Counter``, the loader has a batch size of its own, and the plan's differ.
            RuntimeError: in a loop over the view, as ``step``; or gradients are off.
        """
        if isinstance(loader, Batches):
            raise TypeError("the loader counts updates already: give schedule() the one inside")
        sampler = getattr(loader, "batch_sampler", None)
        size = getattr(loader, "batch_size", None)  # on each rank; None of a loader without one
        sizes = self.batches.plan.batch_sizes
        largest, smallest = sizes[0], sizes[-1]
        if isinstance(self.batches, BatchSampler):
            if sampler not in (None, self.batches):
                kind = f"{type(sampler).__module__}.{type(sampler).__name__}"
                raise TypeError(f"the loader has another sampler, {kind}: {GIVE}")
        # A loader of one size fits a plan of one size. Batches of a plan that are called equal may
        # differ by one sample, as the last one of such a loader may be smaller.
        elif size and not size * self.batches.ranks == largest <= smallest + 1:
            advice = (
                f"the loader has it, and the plan has batches of {smallest} to {largest} samples;"
                " for a data set take igo.BatchSampler, for a stream batch_size=None and"
                " schedule(counter.batches(loader)), or schedule(counter.parts(loader))"
            )
            raise PlanError("batch_size", size, advice)
        data = getattr(loader, "dataset", None)
        if sampler is not None and isinstance(data, Sized):
            check_length(self.batches.plan, data)
        return Batches(self, loader)

    def step(self) -> Update:
        """Count the update that is about to be made, and set its η.

        A trainer with callbacks calls this before each update, or before each part of one. If of 32
        updates fewer than 24 had an ``optimizer.step()``, this warns (``PlanWarning``).

        Returns:
            The update: its number, epoch, stage, batch size, and η of the first group.

        Raises:
            PlanError: at the first update, if the plan has a learning rate that no group has.
            RuntimeError: all updates of the plan are made, or the sampler gave no batch for the
                next one.
        """
        update = self.batches.advance()
        rates = [self._set_rates(optimizer, update) for optimizer in self.optimizers]
        eta_1 = self.batches.plan.learning_rate
        # η_1 is 1 in a plan without a learning rate, which fits every optimizer.
        if self._update is None and eta_1 != 1:
            initial_rates = [group["initial_lr"] for group in self._groups]
            if not any(math.isclose(eta_1, rate, rel_tol=SAME) for rate in initial_rates):
                advice = f"the optimizer was made with {initial_rates[0]:g}; give one of them alone"
                raise PlanError("learning_rate", eta_1, advice)
        # The η that is told is the one that the first group of all has.
        self._update = replace(update, learning_rate=rates[0][0])
        self._witness.expect(self._update, rates)
        return self._update

    def _set_rates(self, optimizer: Optimizer, update: Update) -> list[float]:
        """Set an update's η in the groups of an optimizer; return the η of each group."""
        plan = self.batches.plan
        eta_1 = plan.learning_rate
        rates = []
        for group in optimizer.param_groups:
            # The group was added since the last update, or a scheduler of PyTorch's left a tensor.
            if type(group.get("initial_lr")) is not float:
                # The rate that a new group has is one of this moment, the update before this one.
                newest_update = update.number - 1
                factor = plan.at(newest_update).learning_rate / eta_1 if newest_update else 1
                _keep_initial_rate(group, optimizer.defaults.get("lr"), factor)
            # In this order a group that was made with η_1 has η to the bit.
            rate = update.learning_rate * (group["initial_lr"] / eta_1)
            rate *= group.get("lr_scale", 1.0)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # compiled steps read this very tensor
            else:
                group["lr"] = rate
            rates.append(rate)
        return rates

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state, and the rates that parameter groups were made with.

        A group that was added since the newest update has None there.
        """
        base_lrs = [[group.get("initial_lr") for group in o.param_groups] for o in self.optimizers]
        return {**self.batches.state_dict(), "base_lrs": base_lrs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was called; load the optimizer's state before or after.

        Raises:
            PlanError: the state is of another plan, of no schedule, or of other parameter groups.
        """
        check_plan(state, self.batches.plan)
        if "base_lrs" not in state:
            raise PlanError("plan", "…", "the state is a sampler's; give schedule.state_dict()")
        base_lrs = state["base_lrs"]
        numbers = [len(optimizer.param_groups) for optimizer in self.optimizers]
        if [len(rates) for rates in base_lrs] != numbers:
            advice = f"the optimizers have {numbers} parameter groups; make them as they were"
            raise PlanError("base_lrs", base_lrs, advice)
        self.batches.load_state_dict(state)
        # The optimizer's own state may lack these rates, because torch.distributed.checkpoint loads
        # only what a fresh optimizer has.
        for group, rate in zip(self._groups, chain(*base_lrs), strict=True):
            group["initial_lr"] = rate
        self._update = None
        self._witness.begin(is_resumed=True)


def _keep_initial_rate(
    group: dict[str, Any], default: float | None = None, factor: float = 1.0
) -> None:
    """Write the rate that a group counts as made with into the group, as ``initial_lr``.

    In mid-plan a new group has a rate of that moment, and η/η_1 of that moment is ``factor``. So
    the group counts as made with its rate over ``factor``. But PyTorch gives the optimizer's own
    rate, ``default``, to a group without one, which then counts as made with ``default``.

    Raises:
        PlanError: the group has no rate.
    """
    rate = group.get("initial_lr")  # A scheduler of PyTorch's leaves a tensor if the rate is one.
    if rate is None:
        rate = group.get("lr")
        if rate is None:
            advice = "the optimizer chooses its rate by itself; make it with a number"
            raise PlanError("lr", None, advice)
        # A default that is a tensor was set in place, so it is a rate of this moment, too.
        if isinstance(rate, Tensor) or rate != default:
            rate = rate / factor
    group["initial_lr"] = float(rate)


def _inside(optimizer: Any) -> list[Any]:
    """The optimizers inside a wrapper or container; the optimizer itself if it is neither.

    A container, such as torchtitan's, has ``optimizers``; a wrapper, such as Accelerate's, has one
    ``optimizer``. What is inside may be a wrapper or container again.
    """
    parts = getattr(optimizer, "optimizers", None) or [getattr(optimizer, "optimizer", None)]
    if isinstance(parts, Sequence) and all(isinstance(part, Optimizer) for part in parts):
        return [inner for part in parts for inner in _inside(part)]
    return [optimizer]
