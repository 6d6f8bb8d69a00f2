"""η and β of an optimizer, set as igo.Schedule sets them."""

from __future__ import annotations

from torch.optim import Optimizer

from igo.method import groups


def put(optimizer: Optimizer, rate: float, beta: float | None = None) -> None:
    """Set them in all parameter groups."""
    for group in optimizer.param_groups:
        groups.write(group, rate, beta)
