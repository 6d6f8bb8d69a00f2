"""Sets η of each update in any torch.optim optimizer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
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

    loader: Any = None  # A copy without attributes yet asks __getattr__, which reads ``loader``.
    # Why ``igo.measure_noise`` must not use the batches of a view.
    unmeasurable = "counts an update with each batch: measure with the one that it was made with"

    def __init__(self, schedule: Schedule, loader: Iterable[Any]) -> None:
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
        # A view counts each batch, so the sampler need not look for batches that were skipped after
        # a resume.
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
            except GeneratorExit:
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
        self.optimizers = [bare for optimizer in sequence for bare in _bare(optimizer)]
        are_optimizers = all(isinstance(optimizer, Optimizer) for optimizer in self.optimizers)
        if not (sequence and are_optimizers and isinstance(batches, Counter)):
            kinds = ", ".join(type(argument).__name__ for argument in (*self.optimizers, batches))
            takes = "one of torch.optim or several, and an igo.BatchSampler or igo.Counter"
            raise TypeError(f"igo.Schedule(optimizer, batches) takes {takes}, not {kinds}")
        self.batches = batches
        self._update: Update | None = None
        for group in self._groups:
            _made_with(group)
        self._witness = Witness(self.optimizers, batches)

    @property
    def _groups(self) -> list[dict[str, Any]]:
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
        size = getattr(loader, "batch_size", None) or 0  # of each rank; 0 of a loader without one
        sizes = self.batches.plan.batch_sizes
        # Batches of one size that share the samples of an epoch may differ by one.
        is_one_size = sizes[0] <= sizes[-1] + 1
        if isinstance(self.batches, BatchSampler):
            if sampler not in (None, self.batches):
                kind = f"{type(sampler).__module__}.{type(sampler).__name__}"
                raise TypeError(f"the loader has another sampler, {kind}: {GIVE}")
        elif size and not (is_one_size and size * self.batches.ranks == sizes[0]):
            advice = (
                f"the loader has it, and the plan has batches of {sizes[-1]} to {sizes[0]} samples;"
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
        updates_before, plan = self.batches.updates, self.batches.plan
        update = self.batches.advance()
        eta_1, eta = plan.learning_rate, update.learning_rate
        initials: list[float] = []
        rates: list[list[float]] = []
        for optimizer in self.optimizers:
            rates.append([])
            for group in optimizer.param_groups:
                initial = group.get("initial_lr")
                if type(initial) is not float:
                    # The group is new, and its rate is one of this moment in the plan. The moment's
                    # factor is taken out of that rate.
                    factor = plan.at(updates_before).learning_rate / eta_1 if updates_before else 1
                    initial = _made_with(group, optimizer.defaults.get("lr"), factor)
                # In this order a group that was made with η_1 has η to the bit.
                rate = eta * (initial / eta_1) * group.get("lr_scale", 1.0)
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)  # compiled steps read this very tensor
                else:
                    group["lr"] = rate
                initials.append(initial)
                rates[-1].append(rate)
        if self._update is None:
            # η_1 is 1 in a plan without a learning rate, which fits every optimizer.
            fits = eta_1 == 1 or any(math.isclose(eta_1, x, rel_tol=SAME) for x in initials)
            if not fits:
                advice = f"the optimizer was made with {initials[0]:g}; give one of them alone"
                raise PlanError("learning_rate", eta_1, advice)
        self._update = replace(update, learning_rate=rates[0][0])
        self._witness.expect(self._update, rates)
        return self._update

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state, and the rates that parameter groups were made with."""
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
        if [len(rates or ()) for rates in base_lrs] != numbers:  # A list in a state may be null.
            advice = f"the optimizers have {numbers} parameter groups; make them as they were"
            raise PlanError("base_lrs", base_lrs, advice)
        self.batches.load_state_dict(state)
        # The optimizer's own state may lack these rates, because torch.distributed.checkpoint loads
        # only what a fresh optimizer has.
        for optimizer, rates in zip(self.optimizers, base_lrs, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["initial_lr"] = rate
        self._update = None
        self._witness.begin(is_resumed=True)


def _made_with(group: dict[str, Any], default: float | None = None, factor: float = 1.0) -> float:
    """The rate that a group was made with; it is kept in the group as ``initial_lr``.

    A group that is added later has ``factor`` times the rate that it counts as made with. But a
    group that is given no rate has the optimizer's ``default``, and counts as made with that.
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
    return float(rate)


def _bare(optimizer: Any) -> list[Any]:
    """The optimizers inside a wrapper such as Accelerate's, or a container such as torchtitan's."""
    inner = getattr(optimizer, "optimizers", None) or [getattr(optimizer, "optimizer", None)]
    if isinstance(inner, Sequence) and all(isinstance(bare, Optimizer) for bare in inner):
        return [bare for nested in inner for bare in _bare(nested)]
    return [optimizer]
