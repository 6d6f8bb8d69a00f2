"""β_m for a plan whose decay β carries, at fixed η and b; once β is 0, η carries the rest."""

from __future__ import annotations

from functools import partial
from typing import Any

from igo.method.arguments import PlanError
from igo.method.plan import Plan
from igo.noise.noise import Noise, momentum_for, noise_level


def rates(
    plan: Plan, optimizer: str, momentum: float, noise: Noise
) -> dict[int, tuple[float, float]]:
    """η and β of each stage, by its number, so that δ_m = δ_1 φ_m.

    C² and ‖∇f‖ stay as in ``noise``. β never rises; once it is 0, η falls instead.

    Args:
        plan: with ``by_momentum``.
        optimizer: ``shb`` or ``nshb``, see ``noise.noise_level``.
        momentum: β of the first stage.
        noise: C² and ‖∇f‖ at the start.

    Raises:
        PlanError: C² is 0.
    """
    if noise.variance <= 0:
        raise PlanError("noise", noise.variance, "C² is 0: there is no noise to follow")
    fixed: dict[str, Any] = {"optimizer": optimizer, "gradient_norm": noise.gradient_norm}
    by_stage: dict[int, tuple[float, float]] = {}
    eta, beta = plan.stages[0].eta_m, momentum
    for stage in plan.stages:
        if stage.phi_m > 0:  # at δ = 0, in full batches, η and β stay as before
            eta = stage.eta_m
            level = partial(noise_level, eta, stage.b_m, noise.variance, **fixed)
            target = level(momentum=momentum) * stage.phi_m
            beta = momentum_for(target, eta, stage.b_m, noise.variance, largest=beta, **fixed)
            if beta == 0:
                eta *= min(1.0, target / level(momentum=0.0))
        by_stage[stage.stage] = eta, beta
    return by_stage
