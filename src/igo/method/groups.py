"""What a parameter group of an optimizer has: its η and β, and those that it was made with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from igo.method.arguments import PlanError


def check_rate(optimizers: Sequence[Optimizer], first: float) -> None:
    """Refuse optimizers without a parameter group whose own rate is the plan's η_1."""
    groups = [group for one in optimizers for group in one.param_groups]
    if any(group["lr"] is None for group in groups):
        allowed = "the optimizer was made with lr=None, so it chooses its rate; give it the plan's"
        raise PlanError("learning_rate", first, allowed)
    rates = [initial(group, "lr") for group in groups]
    if not any(
        math.isclose(rate, first, rel_tol=rounding(group["lr"]))
        for rate, group in zip(rates, groups, strict=True)
    ):
        own = ", ".join(dict.fromkeys(f"{rate:g}" for rate in rates))
        allowed = f"the optimizer was made with {own}; give both the same"
        raise PlanError("learning_rate", first, allowed)


def initial(group: dict[str, Any], name: str) -> float:
    """What a parameter group was made with, kept in it."""
    kept = f"initial_{name}"
    found = group.get(kept)
    if not isinstance(found, float):  # a new group, or a tensor of one of PyTorch's schedulers
        found = group[kept] = float(group.get(name, 0.0) if found is None else found)
    return found


def rounding(rate: Any) -> float:
    """How far a rate may be from the number that it was made of: a tensor's is rounded."""
    return max(1e-6, torch.finfo(rate.dtype).eps) if isinstance(rate, Tensor) else 1e-6


def number(rate: Any) -> float:
    """A rate to compare with; one on a GPU is not read, which would wait for the GPU."""
    return math.inf if isinstance(rate, Tensor) and rate.device.type != "cpu" else float(rate)


def write(group: dict[str, Any], rate: float, beta: float | None = None) -> None:
    """Set η of a parameter group, and β with the dampening of a normalised heavy ball."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)  # in place: CUDA graphs and compiled steps read it there
    else:
        group["lr"] = rate
    if beta is not None:
        if initial(group, "dampening"):
            group["dampening"] = beta
        group["momentum"] = beta
