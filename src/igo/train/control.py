"""The planned noise level of a stage, and the noise level of a measurement."""

from __future__ import annotations

from igo.config import optimizer_rules
from igo.config.schema import Config
from igo.method.plan import Plan, Stage
from igo.noise import noise
from igo.noise.noise import Noise


def level(config: Config, eta: float, batch_size: float, momentum: float, measured: Noise) -> float:
    """δ of the configured optimizer at a measured C² and ‖∇f‖; at C_P² if the optimizer has a P."""
    law = optimizer_rules.law(config.optimizer)
    return noise.noise_level(
        eta,
        batch_size,
        measured.variance,
        optimizer=law if law in optimizer_rules.OF_SGD else "sgd",
        momentum=momentum,
        gradient_norm=measured.gradient_norm,
    )


def aim(config: Config, plan: Plan, stage: Stage, reference: Noise) -> float | None:
    """δ_m with the C² and ‖∇f‖ of the start of training.

    It is δ_1 φ_m if β carries the decay; otherwise it follows from η_m and
    b_m. None if the optimizer's δ is not known before training.
    """
    if stage.phi_m == 0:  # gradient descent on f itself
        return 0.0
    if optimizer_rules.law(config.optimizer) not in optimizer_rules.OF_SGD:
        return None
    beta = config.optimizer.momentum
    if plan.by_momentum:
        first = plan.stages[0]
        return level(config, first.eta_m, first.b_m, beta, reference) * stage.phi_m
    return level(config, stage.eta_m, stage.b_m, beta, reference)
