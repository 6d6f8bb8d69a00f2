"""Adam's preconditioner, which scales the noise, and a β_2 that follows the batch size."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from igo.noise.spread import Spread


def is_known(optimizer: Optimizer) -> bool:
    """Whether it is torch.optim's Adam or AdamW; the state of others is not known here."""
    return type(optimizer) in (Adam, AdamW)


def preconditioner(state: Any, group: Any) -> Tensor | None:
    """P = 1/(√v̂ + ε) of a parameter, float64; None before its first update."""
    if not state or not float(state["step"]):
        return None
    v: Tensor = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"].double()
    unbiased = v / (1 - group["betas"][1] ** float(state["step"]))
    scaled: Tensor = 1 / (unbiased.sqrt() + group["eps"])
    return scaled


def preconditioned(
    optimizer: Optimizer | None, parameters: Sequence[Tensor], squares: Sequence[Tensor]
) -> Tensor:
    """The sum of P² · squares over parameters; NaN if a square that is not 0 has no P.

    After a parameter's first update √v̂ is |ḡ| of that batch alone, by which no noise can be scaled.
    """
    group_of = {
        p: group for group in getattr(optimizer, "param_groups", []) for p in group["params"]
    }
    total = torch.zeros((), dtype=torch.float64, device=squares[0].device)
    for parameter, square in zip(parameters, squares, strict=True):
        state = optimizer.state.get(parameter) if optimizer else None
        known = state and float(state["step"]) > 1
        p = preconditioner(state, group_of.get(parameter)) if known else None
        exact = square.double()
        scaled = torch.where(exact == 0, 0.0, math.nan) if p is None else exact * p**2
        total += scaled.sum().to(total.device)
    return total


def after_steps(optimizer: Optimizer, method: Callable[[], None]) -> None:
    """Call a bound method after each step; the optimizer does not keep its object alive."""
    reference = weakref.WeakMethod(method)

    def after_step(*_: Any) -> None:
        alive = reference()
        if alive is not None:
            alive()

    optimizer.register_step_post_hook(after_step)


class SpreadOfSteps(Spread):
    """The scatter of P·g over gradients g, with P as it is when this object is made.

    Adam's own P includes the gradient that it scales, so |P g| ≤ 1/√(1 - β_2). This P does not, and
    is huge for an entry that had hardly any gradient. So entries of P·g are cut to the bound.
    """

    def __init__(self, optimizer: Optimizer, network: nn.Module) -> None:
        super().__init__(network.parameters())
        group_of = {p: group for group in optimizer.param_groups for p in group["params"]}
        self._scales = [
            preconditioner(optimizer.state.get(p), group_of.get(p)) for p in self.parameters
        ]
        beta2 = [group_of[p]["betas"][1] if p in group_of else 0.0 for p in self.parameters]
        self._bounds = [1 / math.sqrt(1 - beta) for beta in beta2]

    @property
    def known(self) -> bool:
        """Whether any parameter has a P, as after the first update."""
        return any(scale is not None for scale in self._scales)

    def add(self, gradient: Sequence[Tensor | None]) -> None:
        """Add a gradient g, without the parameters that have no P: no gradient has reached them."""
        entries = zip(self._scales, gradient, self._bounds, strict=True)
        super().add([
            None if p is None or g is None else (p * g).clamp(-bound, bound)
            for p, g, bound in entries
        ])  # fmt: skip


def follow_batch(optimizer: Optimizer, growth: float) -> None:
    """Set β_2 to the first β_2 to the power of ``growth``, the batch size over the first one.

    So v keeps its half-life in samples. Adam divides v by 1 - β_2^t, as if β_2 had never changed.
    So v is scaled when β_2 changes, and v̂ stays as it was [derived].
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
    ratio = new / old.clamp_min(torch.finfo(torch.float64).tiny)  # 0 before the first step
    for name in ("exp_avg_sq", "max_exp_avg_sq"):
        if name in state:
            state[name].mul_(ratio.to(state[name].device))
