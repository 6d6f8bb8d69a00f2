"""Sets η of each update, and β if momentum carries the decay, in any torch.optim optimizer."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.optim import Optimizer

from igo.method import groups, momentum
from igo.method.arguments import PlanError, PlanWarning
from igo.method.counter import Counter
from igo.method.update import Update
from igo.noise import adam
from igo.noise.noise import Noise

# One of several optimizers that misses so many steps in a row is an error; a GradScaler skips some.
MISSED = 16
CHECK_AFTER = 32  # updates; if no two in a row were made by then, the user is warned
FOREIGN = (
    "something else writes it: leave other schedulers out (a warm-up is igo.plan's warmup=), and"
    " make the optimizer with the rate that you want"
)


class Schedule:
    """Sets η of each update in optimizers, and counts the update in the sampler.

    It has no state: the sampler holds the count, and each parameter group keeps the rate that it
    was made with as ``initial_lr`` in the optimizer's state, as with PyTorch's schedulers. So a
    checkpoint needs the sampler's and the optimizer's state, loaded in any order.

    >>> plan = igo.plan("graduated", n=10, epochs=2, learning_rate=0.1, batch_size=4, p=1, split=1)
    >>> head, body = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> optimizer = torch.optim.AdamW(
    ...     [{"params": head.parameters()}, {"params": body.parameters(), "lr": 0.01}], lr=0.1
    ... )
    >>> schedule = igo.Schedule(optimizer, igo.BatchSampler(plan))
    >>> for _ in range(4):
    ...     update = schedule.step()
    >>> [round(group["lr"], 6) for group in optimizer.param_groups]  # stage 2: η_2 = η_1/2
    [0.05, 0.005]

    Args:
        optimizers: of torch.optim, one or several: ``Schedule([muon, adamw], batches)``. The rate
            that a parameter group was made with is its η_1; one group at least has the plan's. Each
            rate is multiplied by η/η_1, tensors in place. Adam's betas do not change, except with
            ``constant_half_life``.
        batches: the loader's sampler; for your own loader, an ``igo.Counter``.
        noise: C² and ‖∇f‖² at the start, for a plan with ``by_momentum``. Keep it in checkpoints.
        constant_half_life: set β_2 of Adam and AdamW to β_2^(b_m/b_1), so that the average of
            squared gradients has the same half-life in samples for every b.

    Attributes:
        learning_rate: η of the newest update, for groups with the plan's η_1; None before the
            first.
        momentum: β of the newest update if the schedule changes β, otherwise None.

    Raises:
        PlanError: no group has the plan's η_1, or β or β_2 of this optimizer cannot be scheduled.
    """

    def __init__(
        self,
        optimizers: Optimizer | Sequence[Optimizer],
        batches: Counter,
        *,
        noise: Noise | None = None,
        constant_half_life: bool = False,
    ) -> None:
        if not isinstance(batches, Counter):
            kind = type(batches).__name__
            raise TypeError(
                f"igo.Schedule(optimizer, batches): batches is a {kind}, and must be an"
                " igo.BatchSampler or igo.Counter"
            )
        given = optimizers if isinstance(optimizers, Sequence) else [optimizers]
        self.optimizers = [_bare(optimizer) for optimizer in given]
        self.batches = batches
        self.learning_rate: float | None = None
        self.momentum: float | None = None
        self._first = batches.plan.stages[0].eta_m
        groups.check_rate(self.optimizers, self._first)
        if noise is not None and not batches.plan.by_momentum:
            raise PlanError("noise", "…", "only a plan with by_momentum=True takes it")
        self._constant_half_life = constant_half_life
        if constant_half_life and not any(map(adam.is_known, self.optimizers)):
            allowed = "it needs torch.optim.Adam or AdamW, whose β_2 it changes"
            raise PlanError("constant_half_life", True, allowed)
        self._by_momentum = self._rates_of_stages(noise)
        self._update: Update | None = None
        # Whether each optimizer has made a step since the newest update, and how many it missed.
        self._stepped = dict.fromkeys(map(id, self.optimizers), False)
        self._missed = dict.fromkeys(map(id, self.optimizers), 0)
        self._counted = 0  # updates counted here
        self._with_step: list[int] = []  # the numbers of those that an optimizer made
        self._written = self._rates()
        batches.owner = weakref.ref(self)
        for optimizer in self.optimizers:
            optimizer.register_step_pre_hook(_Watch(self))

    def step(self) -> Update:
        """Count the update that is about to be made, and set its η. Call it before each update.

        If the sampler cuts batches into parts, call it before each part.

        Returns:
            The update: its number, epoch, stage and batch size.

        Raises:
            RuntimeError: all updates of the plan are made, it was called twice for a batch, one of
                several optimizers makes no steps, or something else has changed a learning rate.
        """
        if self.batches.owner is None or self.batches.owner() is not self:
            raise RuntimeError(
                "a newer Schedule counts the updates of this sampler; for several optimizers make"
                " one Schedule: Schedule([first, second], batches)"
            )
        self._check_written()
        self._check_all_stepped()
        self._check_accumulation()
        groups.check_rate(self.optimizers, self._first)
        if self._update is None and not self.batches.updates:
            self._check_begun()
        update = self.batches.advance()
        self._update, self._stepped = update, dict.fromkeys(self._stepped, False)
        self.learning_rate, self.momentum = update.learning_rate, None
        if self._by_momentum:
            rate, self.momentum = self._by_momentum[update.stage.stage]
            self.learning_rate = rate * (update.learning_rate / update.stage.eta_m)
        factor = self.learning_rate / self._first
        for group in self._groups():
            initial = groups.initial(group, "lr")
            rate = self.learning_rate if initial == self._first else initial * factor
            groups.write(group, rate, self.momentum)
        if self._constant_half_life:
            growth = update.stage.b_m / self.batches.plan.stages[0].b_m
            for optimizer in self.optimizers:
                adam.follow_batch(optimizer, growth)
        self._written = self._rates()
        return update

    def about_to_step(self, optimizer: Optimizer) -> None:
        """Refuse ``optimizer.step()`` at the wrong time.

        Raises:
            RuntimeError: another call must come first.
        """
        if self.batches.owner is None or self.batches.owner() is not self:
            return
        update = self._update
        if update is None or self._stepped.get(id(optimizer), False):
            raise RuntimeError(
                "optimizer.step() without a schedule.step() before it: call schedule.step() before"
                " each update, not once an epoch, and not after the update"
            )
        if not update.ends:
            raise RuntimeError(
                f"optimizer.step() after part {update.part} of {update.parts}: it comes after the"
                " last part of an update, `if update.ends:`"
            )
        self._check_written()
        self._stepped[id(optimizer)] = True

    def _check_written(self) -> None:
        """Check that the groups have their rates; those of a loaded state are new, not checked."""
        for (group, rate), (now, rate_now) in zip(self._written, self._rates(), strict=False):
            if group is now and rate != rate_now:
                raise RuntimeError(
                    f"a learning rate is {rate_now:g} and the schedule set {rate:g}: {FOREIGN}"
                )

    def _check_all_stepped(self) -> None:
        if self._update is None or not self._update.ends or not any(self._stepped.values()):
            return
        for number, (key, stepped) in enumerate(self._stepped.items(), 1):
            self._missed[key] = 0 if stepped else self._missed[key] + 1
            if self._missed[key] >= MISSED:
                raise RuntimeError(
                    f"optimizer {number} of {len(self._stepped)} made no step in {MISSED} updates:"
                    " call step() of each, or leave it out of the Schedule"
                )

    def _check_accumulation(self) -> None:
        """Warn if no two consecutive updates were made, as when gradients are accumulated."""
        if self._update is None or not self._update.ends:
            return
        self._counted += 1
        if any(self._stepped.values()):
            self._with_step.append(self._counted)
        if self._counted != CHECK_AFTER or len(self._with_step) == 1:
            return
        gaps = [after - before for before, after in pairwise(self._with_step)]
        if not gaps or min(gaps) > 1:
            why = (
                "to accumulate gradients, give the sampler parts=, which cuts the plan's batches"
                if gaps
                else "call it for each; ignore this if a graph or torch.compile makes the steps"
            )
            warnings.warn(
                f"of {self._counted} updates that schedule.step() counted, optimizer.step() made"
                f" {len(self._with_step)}: {why}",
                PlanWarning,
                stacklevel=3,
            )

    def _check_begun(self) -> None:
        """Warn if training begins with the optimizer's state of a later update."""
        for group, rate in self._rates():
            if not math.isfinite(rate):  # it is on a GPU, and was not read
                continue
            tolerance = groups.rounding(group["lr"])
            if not math.isclose(rate, groups.initial(group, "lr"), rel_tol=tolerance):
                warnings.warn(
                    f"the plan begins at its first update, and the optimizer's learning rate is"
                    f" {rate:g}, of a later update: on a resume, load the sampler's state too",
                    PlanWarning,
                    stacklevel=3,
                )
                return

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _rates(self) -> list[tuple[dict[str, Any], float]]:
        return [(group, groups.number(group["lr"])) for group in self._groups()]

    def _rates_of_stages(self, noise: Noise | None) -> dict[int, tuple[float, float]]:
        """η and β by stage if β carries the decay; empty if η and b carry it."""
        if not self.batches.plan.by_momentum:
            return {}
        if noise is None:
            raise PlanError("noise", None, "by_momentum needs C² and ‖∇f‖², see igo.measure_noise")
        betas = {groups.initial(group, "momentum") for group in self._groups()}
        dampenings = {groups.initial(group, "dampening") for group in self._groups()}
        beta = max(betas)
        if len(betas) > 1 or len(dampenings) > 1 or beta == 0:
            allowed = "it needs torch.optim.SGD with the same momentum above 0 in all groups"
            raise PlanError("by_momentum", True, allowed)
        name = "nshb" if dampenings.pop() else "shb"
        return momentum.rates(self.batches.plan, name, beta, noise)


class _Watch:
    """The hook that an optimizer calls before its step; it does not keep the schedule alive."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = weakref.ref(schedule)

    def __call__(self, optimizer: Optimizer, *_: Any) -> None:
        if torch.compiler.is_compiling():
            return
        schedule = self._schedule()
        if schedule is not None:
            schedule.about_to_step(optimizer)


def _bare(optimizer: Any) -> Optimizer:
    """The optimizer inside a wrapper such as Accelerate's."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer
    bare: Optimizer = optimizer
    return bare
