"""β_m where the momentum carries the decay, at fixed η and b; what is left, η takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from igo.method.arguments import PlanError
from igo.method.noise import Noise, momentum_for, noise_level
from igo.method.plan import Plan


@dataclass(frozen=True)
class Optimizer:
    """``shb`` or ``nshb``, see ``noise.noise_level``, and β of the first stage."""

    name: str
    momentum: float


def rates(
    plan: Plan, optimizer: Optimizer | None, noise: Noise | None
) -> dict[int, tuple[float, float]]:
    """η and β of each stage by its number; empty where the plan leaves β alone.

    C² and ‖∇f‖ are frozen at ``noise``. β never rises; once it is 0, η takes the rest.

    Raises:
        PlanError: there is no noise to follow.
    """
    if optimizer is None or noise is None:
        return {}
    if noise.variance <= 0:
        raise PlanError("noise", noise.variance, "C² is 0: there is no noise to follow")
    found: dict[int, tuple[float, float]] = {}
    eta, beta = plan.stages[0].eta_m, optimizer.momentum
    for stage in plan.stages:
        if stage.phi_m > 0:  # at δ = 0, full batches, η and β stay as they were
            eta, beta = decay(stage.phi_m, stage.eta_m, stage.b_m, optimizer, beta, noise)
        found[stage.stage] = eta, beta
    return found


def decay(
    phi: float, eta: float, batch_size: float, optimizer: Optimizer, before: float, noise: Noise
) -> tuple[float, float]:
    """η and β of a stage with δ_m = δ_1 φ_m, β at most that of the stage before."""
    of: dict[str, Any] = {"optimizer": optimizer.name, "gradient_norm": noise.gradient_norm}
    level = partial(noise_level, eta, batch_size, noise.variance, **of)
    target = level(momentum=optimizer.momentum) * phi
    beta = momentum_for(target, eta, batch_size, noise.variance, largest=before, **of)
    if beta == 0:
        eta *= min(1.0, target / level(momentum=0.0))
    return eta, beta
