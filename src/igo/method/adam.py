"""Adam and the noise: the preconditioner that scales it, and β_2 that follows the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from igo.method.arguments import PlanError
from igo.method.spread import Spread


def is_known(optimizer: Optimizer) -> bool:
    """Whether it is torch.optim's Adam or AdamW, whose state is read here."""
    return type(optimizer) in (Adam, AdamW)


def preconditioner(state: Any, group: Any) -> Tensor | None:
    """P = 1/(√v̂ + ε) of a parameter in float64, None before its first update."""
    if not state or not float(state["step"]):
        return None
    v: Tensor = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"].double()
    unbiased = v / (1 - group["betas"][1] ** float(state["step"]))
    scaled: Tensor = 1 / (unbiased.sqrt() + group["eps"])
    return scaled


class SpreadOfSteps(Spread):
    """How the P g of gradients g scatter, with P as it is when this is made."""

    def __init__(self, optimizer: Optimizer, network: nn.Module) -> None:
        super().__init__(network.parameters())
        group_of = {p: group for group in optimizer.param_groups for p in group["params"]}
        self._scales = [
            preconditioner(optimizer.state.get(p), group_of.get(p)) for p in self.parameters
        ]

    @property
    def known(self) -> bool:
        """Whether there is a P: after the first update."""
        return any(scale is not None for scale in self._scales)

    def add(self, gradient: Sequence[Tensor | None]) -> None:
        """Take in one more g; of a parameter without P, which no gradient has reached, nothing."""
        pairs = zip(self._scales, gradient, strict=True)
        super().add([None if p is None or g is None else p * g for p, g in pairs])


def check_half_life(optimizers: list[Optimizer]) -> None:
    """See that β_2 is there to be scheduled."""
    if not any(is_known(one) for one in optimizers):
        allowed = "it needs torch.optim.Adam or AdamW, whose β_2 it changes"
        raise PlanError("constant_half_life", True, allowed)


def follow_batch(optimizer: Optimizer, growth: float) -> None:
    """Set β_2 to β_2^growth, where the batch is ``growth`` times the first one.

    v forgets by half in the same number of samples then. Adam divides v by 1 - β_2^t, as if β_2 had
    been the same all along: v is scaled where β_2 changes, so that v̂ is as it was [derived].
    """
    if not is_known(optimizer):
        return
    for group in optimizer.param_groups:
        beta1, before = group["betas"]
        now = group.setdefault("initial_beta2", before) ** growth
        if now == before:
            continue
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state:
                _rescale(state, before, now)
        group["betas"] = (beta1, now)


@torch.no_grad()
def _rescale(state: dict[str, Any], before: float, now: float) -> None:
    steps = state["step"].double()
    old, new = 1 - before**steps, 1 - now**steps
    ratio = new / old.clamp_min(torch.finfo(torch.float64).tiny)  # 0 where no step was made
    for name in ("exp_avg_sq", "max_exp_avg_sq"):
        if name in state:
            state[name].mul_(ratio.to(state[name].device))
