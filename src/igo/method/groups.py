"""η and β of an optimizer's parameter groups: the present values, and the first ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from igo.method.arguments import PlanError


def check_rate(optimizers: Sequence[Optimizer], first: float) -> None:
    """Refuse optimizers that have no parameter group with the plan's η_1, ``first``."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    if any(group["lr"] is None for group in groups):
        allowed = "the optimizer was made with lr=None, so it chooses its rate; give it the plan's"
        raise PlanError("learning_rate", first, allowed)
    rates = [initial(group, "lr") for group in groups]
    if not any(
        math.isclose(rate, first, rel_tol=rounding(group["lr"]))
        for rate, group in zip(rates, groups, strict=True)
    ):
        different = ", ".join(dict.fromkeys(f"{rate:g}" for rate in rates))
        allowed = f"the optimizer was made with {different}; give both the same"
        raise PlanError("learning_rate", first, allowed)


def initial(group: dict[str, Any], name: str) -> float:
    """The value that a parameter group was made with. The group keeps it as ``initial_<name>``."""
    key = f"initial_{name}"
    value = group.get(key)
    if not isinstance(value, float):  # not set yet, or a tensor that a PyTorch scheduler has set
        value = group[key] = float(group.get(name, 0.0) if value is None else value)
    return value


def rounding(rate: Any) -> float:
    """The relative rounding error that a rate may have: a tensor holds few digits."""
    return max(1e-6, torch.finfo(rate.dtype).eps) if isinstance(rate, Tensor) else 1e-6


def number(rate: Any) -> float:
    """A rate as a number; inf for a rate on a GPU, as reading it would wait for the GPU."""
    return math.inf if isinstance(rate, Tensor) and rate.device.type != "cpu" else float(rate)


def write(group: dict[str, Any], rate: float, beta: float | None = None) -> None:
    """Set η of a parameter group, and β; in a normalised heavy ball β is the dampening too."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)  # in place: compiled steps read this tensor
    else:
        group["lr"] = rate
    if beta is not None:
        if initial(group, "dampening"):
            group["dampening"] = beta
        group["momentum"] = beta
