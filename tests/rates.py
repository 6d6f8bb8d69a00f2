"""η of an optimizer, set as igo.Schedule sets it."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer


def put(optimizer: Optimizer, rate: float) -> None:
    """Set it in all parameter groups."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
