"""Warns or raises where the steps of an optimizer are not the updates that a schedule counts."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakMethod

from torch import Tensor
from torch.autograd.graph import register_multi_grad_hook
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from igo.loop.counter import Counter
from igo.plans.arguments import PlanWarning
from igo.plans.rows import Update

WINDOW = 32  # updates, of which three quarters have a step; overflows of fp16 leave out a few


class Witness:
    """Sees each ``optimizer.step()``, and gradients until the first step, by hooks of PyTorch's.

    ``pass_end`` is the number of updates at the end of the newest pass over ``schedule(loader)``;
    -1 before a pass ends, and after a step that came too late for the pass.
    """

    pass_end = -1

    def __init__(self, optimizers: Sequence[Optimizer], batches: Counter) -> None:
        self._optimizers, self._batches = optimizers, batches
        # The warning that something else sets the learning rates comes once.
        self._may_warn_of_rates = True
        self._gradient_hook: RemovableHandle | None = None  # None where gradients are not noted
        self.begin(is_resumed=False)
        self._watch_steps()

    def begin(self, *, is_resumed: bool) -> None:
        """Forget what was seen: a loop begins, at the plan's start or where a loaded state is."""
        self._is_resumed = is_resumed
        self._update: Update | None = None  # the newest update, or part of one, that was counted
        self.pass_end = -1
        # For each optimizer, the rates that the schedule set in its groups. A step empties the
        # optimizer's list.
        self._rates: list[list[float]] = []
        # For each update of the newest window: whether the update had a step.
        self._steps: list[bool] = []
        self._has_seen_step = False
        # The numbers of the updates that had a gradient, up to the first step.
        self._gradients: list[int] = []
        self._watch_gradients()

    def _watch_steps(self) -> None:
        """Have ``see_step`` called before each step of an optimizer."""
        # The hooks are weak, because a schedule that nobody uses any more, such as one of a
        # notebook's cell that ran again, must not warn or raise.
        for optimizer in self._optimizers:
            optimizer.register_step_pre_hook(_weak(self.see_step))

    def _watch_gradients(self) -> None:
        """Have ``see_gradient`` called at each gradient, up to the first step.

        An update that has no gradient when the next one is counted has lost its batch. An update
        without a step need not have lost its batch: after an overflow fp16 leaves out
        ``optimizer.step()``.
        """
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        parameters = [p for group in groups for p in group["params"] if p.requires_grad]
        if parameters and not self._has_seen_step and self._gradient_hook is None:
            see = _weak(self.see_gradient)
            self._gradient_hook = register_multi_grad_hook(parameters, see, mode="any")

    def __getstate__(self) -> dict[str, Any]:
        """The attributes for a copy, without the hook, which PyTorch can neither copy nor save."""
        return {**vars(self), "_gradient_hook": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set a copy's attributes, and watch the copy's own optimizers, which have no hooks."""
        vars(self).update(state)
        self._watch_steps()
        self._watch_gradients()

    def expect(self, update: Update, rates: list[list[float]]) -> None:
        """Note a counted update, or part of one, and the rates set in each optimizer's groups."""
        if self._update is None:
            # How many of the plan's updates came before the loop's first one.
            self._updates_before = update.number - 1
        if update.part == 1:
            if len(self._steps) == WINDOW:
                self._check_steps()
            self._steps.append(False)  # ``see_step`` makes it True.
        self._update, self._rates = update, rates

    def _check_steps(self) -> None:
        """At the end of a window warn if too many updates had no ``optimizer.step()``; begin anew.

        A window without any step does not warn, because steps in a CUDA graph cannot be seen.
        """
        if 0 < sum(self._steps) < 3 / 4 * WINDOW:
            _warn(
                f"of {WINDOW} updates {sum(self._steps)} had an optimizer.step(): to accumulate"
                " gradients give the sampler micro_batch_size=, and leave out what skips"
                " batches; a GradScaler that begins too high skips steps, too",
                5,
            )
        self._steps.clear()

    def check_left(self) -> None:
        """Warn if a loop was left before the ``optimizer.step()`` of its newest update.

        Nothing is said before the first step, because steps may be invisible, nor after a part that
        is not the last: such a part has no step, and the next loop goes on after it.
        """
        update = self._update
        if sys.is_finalizing():  # Python closes the loops that are open when the program ends.
            return
        if update and update.is_last_part and self._has_seen_step and not self._steps[-1]:
            _warn(
                f"the loop was left before the optimizer.step() of update {update.number:,},"
                " whose batch counts as trained: leave at the end of the body, look at"
                " next(iter(loader.loader)), and give schedule(loader) to zip as the last",
                4,
            )

    def __del__(self) -> None:
        """Warn if the loop was a single pass, and the plan has more epochs.

        That no second pass follows is known only when the schedule itself goes.
        """
        if self.pass_end < 0 or not self._has_seen_step:
            return
        plan, updates = self._batches.plan, self._batches.updates
        # The newest update was the last one of a pass, and the plan is not done.
        if self.pass_end == updates < plan.updates:
            first, last = plan.at(self._updates_before + 1), plan.at(updates)
            if first.epoch == last.epoch:  # The loop had one pass, as each pass is of one epoch.
                _warn(
                    f"the loop over schedule(loader) ended after {updates:,} of"
                    f" {plan.updates:,} updates: a pass is an epoch, so write for epoch in"
                    " batches.epochs() around it; a saved state goes on from here",
                    3,
                )

    def see_gradient(self, *_: Any) -> None:
        """Note that the newest update has a gradient."""
        if self._update is not None:
            self._gradients.append(self._update.number)

    def see_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Before each step: refuse one that is not the newest update's, or note that step."""
        update = self._update
        if update is None:
            # Programs that make an optimizer's state before they load it step with a rate of 0.
            if any(group["lr"] for group in optimizer.param_groups):
                raise RuntimeError(
                    "optimizer.step() came before the schedule's first update: loop over"
                    " schedule(loader), or call schedule.step() before each update; a scheduler of"
                    " PyTorch's steps after it"
                )
            return
        if not update.is_last_part:
            raise RuntimeError(
                f"optimizer.step() came after part {update.part} of {update.parts} of update"
                f" {update.number:,}: step if schedule.update.is_last_part, before the next batch"
            )
        if not self._has_seen_step:
            self._check_beginning(update.number)
        # No update was counted since the newest pass ended, and the plan is not done.
        if self.pass_end == update.number < self._batches.plan.updates:
            self.pass_end = -1
            _warn(
                "optimizer.step() came after a pass over schedule(loader), for a batch that was not"
                " counted then: in place of itertools.cycle write"
                " (batch for _ in batches.epochs() for batch in loader)",
                5,
            )
        # A group that was added after the schedule set the rates has none among them, and comes
        # last. Before this optimizer's next step another schedule may set rates, so these rates are
        # compared with one step alone.
        rates = self._rates[self._optimizers.index(optimizer)]
        for group, rate in zip(optimizer.param_groups, rates, strict=False):
            # The schedule put this very object there. If it still is there, no value is compared.
            if group["lr"] is not rate:
                self._check_rate(update, group["lr"], rate)
        rates.clear()
        self._steps[-1] = True

    def _check_beginning(self, number: int) -> None:
        """At the first step, that of update ``number``, warn if the loop lost batches before.

        After a resume, two lost batches or more are refused. A batch is lost if its update had no
        gradient: the updates before the first gradient, and those after the newest gradient.
        """
        # Where no gradient was seen, the update of the step counts as the only one with a gradient.
        gradients = self._gradients or [number]
        lost_before = gradients[0] - 1 - self._updates_before
        lost_after = number - gradients[-1]
        lost = max(lost_before, lost_after)
        words = (
            f"{lost} of the first updates had no gradient before the next batch was counted: put"
            " what fetches ahead inside, schedule(prefetcher), look at next(iter(loader.loader)),"
            " and leave out what skips batches in the loop, as the sampler goes on with the batch"
            " after those that were trained on"
        )
        if self._is_resumed and lost > 1:  # A loop may leave out a batch of infinite loss.
            raise RuntimeError(words)
        if lost:
            _warn(words, 6)
        # Gradients are not looked at after the first step.
        self._has_seen_step = True
        if self._gradient_hook:
            self._gradient_hook.remove()
            self._gradient_hook = None

    def _check_rate(self, update: Update, rate: Any, planned: float) -> None:
        """Warn, once, if something else than the schedule has set a rate.

        A rate that is a tensor is not read, because on a GPU reading waits for the device.
        """
        if self._may_warn_of_rates and not isinstance(rate, Tensor) and rate != planned:
            self._may_warn_of_rates = False
            _warn(
                f"optimizer.step() of update {update.number:,} has the learning rate {rate:g}, and"
                f" the schedule set {planned:g}: leave out what sets it after the schedule; a"
                " warm-up is warmup_samples=",
                6,
            )


def _warn(words: str, stacklevel: int) -> None:
    """Warn; ``stacklevel`` counts the calls from here up to the user's line, which is shown."""
    warnings.warn(words, PlanWarning, stacklevel)


def _weak(method: Callable[..., None]) -> Callable[..., None]:
    """A hook that calls a method while its object lives, and does not keep the object alive."""
    reference = WeakMethod(method)

    def hook(*arguments: Any) -> None:
        if living := reference():
            living(*arguments)

    return hook
