"""η_m of a plan, and β_m where momentum carries the decay, in any torch.optim optimizer."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from igo.method import momentum
from igo.method.arguments import PlanError
from igo.method.noise import Noise
from igo.method.sampler import BatchSampler, Update


class Schedule:
    """Sets η of each update in an optimizer, and counts the update in the sampler.

    It has no state of its own: the count is the sampler's, and each parameter group keeps the rate
    that it was made with as ``initial_lr``, as PyTorch's schedulers do, in the optimizer's state.
    So a checkpoint of the two is complete, and the order of loading does not matter.

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
        optimizer: any of torch.optim. A group's learning rate is its own η_1; at least one has the
            plan's. Each is multiplied by η_m/η_1, tensors in place. Betas of Adam stay.
        batches: the sampler of the loader; of a loader of one's own it is the counter alone.
        noise: C² and ‖∇f‖² at the start, for a plan with ``by_momentum``. Keep it in checkpoints.

    Attributes:
        learning_rate: η of the newest update, of groups made with the plan's; None before it.
        momentum: β of the newest update where the schedule changes it, otherwise None.

    Raises:
        PlanError: no group has the plan's η_1, or β of this optimizer cannot be scheduled.
    """

    def __init__(
        self, optimizer: Optimizer, batches: BatchSampler, *, noise: Noise | None = None
    ) -> None:
        self.optimizer, self.batches = optimizer, batches
        self.learning_rate: float | None = None
        self.momentum: float | None = None
        self._first = batches.plan.stages[0].eta_m
        check_rate(optimizer, self._first)
        self._by_momentum = momentum.rates(batches.plan, _kind(self, noise), noise)

    def step(self) -> Update:
        """Count the update that is about to be made, and set its η: call it before each update.

        Returns:
            The update: its number, epoch, stage and batch size.

        Raises:
            RuntimeError: the plan has no more updates.
        """
        update = self.batches.advance()
        self.learning_rate, self.momentum = update.stage.eta_m, None
        if self._by_momentum:
            self.learning_rate, self.momentum = self._by_momentum[update.stage.stage]
        factor = self.learning_rate / self._first
        for group in self.optimizer.param_groups:
            rate = _initial(group, "lr") * factor
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # in place: CUDA graphs and compiled steps read it there
            else:
                group["lr"] = rate
            if self.momentum is not None:
                if group["dampening"]:
                    group["dampening"] = self.momentum
                group["momentum"] = self.momentum
        return update


def check_rate(optimizer: Optimizer, first: float) -> None:
    """Refuse an optimizer without a parameter group whose own rate is the plan's η_1.

    Raises:
        PlanError: says which rates it has.
    """
    rates = [_initial(group, "lr") for group in optimizer.param_groups]
    if not any(math.isclose(rate, first, rel_tol=1e-6) for rate in rates):
        own = ", ".join(dict.fromkeys(f"{rate:g}" for rate in rates))
        allowed = f"the optimizer was made with {own}; give both the same"
        raise PlanError("learning_rate", first, allowed)


def _initial(group: dict[str, Any], name: str) -> float:
    """What a parameter group was made with, kept in it."""
    kept = f"initial_{name}"
    found = group.get(kept)
    if not isinstance(found, float):  # a new group, or a tensor of one of PyTorch's schedulers
        found = group[kept] = float(group[name] if found is None else found)
    return found


def _kind(schedule: Schedule, noise: Noise | None) -> momentum.Optimizer | None:
    """The optimizer whose β carries the decay; None where η and b carry it."""
    if not schedule.batches.plan.by_momentum:
        return None
    if noise is None:
        raise PlanError("noise", None, "by_momentum needs C² and ‖∇f‖², see igo.measure_noise")
    groups = schedule.optimizer.param_groups
    betas = {_initial(group, "momentum") if "momentum" in group else 0.0 for group in groups}
    dampings = {float(group.get("dampening", 0.0)) for group in groups}
    beta = max(betas)
    if len(betas) > 1 or len(dampings) > 1 or beta == 0:
        allowed = "it needs torch.optim.SGD with one momentum above 0 in all groups"
        raise PlanError("by_momentum", True, allowed)
    return momentum.Optimizer("nshb" if dampings.pop() else "shb", beta)
