"""β_m where the momentum carries the decay, at fixed η and b; what is left, η takes."""

from __future__ import annotations

from functools import partial
from typing import Any

from igo.method.arguments import PlanError
from igo.method.noise import Noise, momentum_for, noise_level
from igo.method.plan import Plan


def rates(
    plan: Plan, optimizer: str, momentum: float, noise: Noise
) -> dict[int, tuple[float, float]]:
    """η and β of each stage by its number, so that δ_m = δ_1 φ_m.

    C² and ‖∇f‖ are frozen at ``noise``. β never rises; once it is 0, η takes the rest.

    Args:
        plan: one with ``by_momentum``.
        optimizer: ``shb`` or ``nshb``, see ``noise.noise_level``.
        momentum: β of the first stage.
        noise: at the start.

    Raises:
        PlanError: there is no noise to follow.
    """
    if noise.variance <= 0:
        raise PlanError("noise", noise.variance, "C² is 0: there is no noise to follow")
    of: dict[str, Any] = {"optimizer": optimizer, "gradient_norm": noise.gradient_norm}
    found: dict[int, tuple[float, float]] = {}
    eta, beta = plan.stages[0].eta_m, momentum
    for stage in plan.stages:
        if stage.phi_m > 0:  # at δ = 0, full batches, η and β stay as they were
            eta = stage.eta_m
            level = partial(noise_level, eta, stage.b_m, noise.variance, **of)
            target = level(momentum=momentum) * stage.phi_m
            beta = momentum_for(target, eta, stage.b_m, noise.variance, largest=beta, **of)
            if beta == 0:
                eta *= min(1.0, target / level(momentum=0.0))
        found[stage.stage] = eta, beta
    return found
