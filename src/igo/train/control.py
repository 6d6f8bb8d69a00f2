"""The planned noise level of a stage, and the noise level of a measurement."""

from __future__ import annotations

from igo.config.schema import Config
from igo.method.plan import Stage
from igo.noise import noise
from igo.noise.noise import Noise


def level(config: Config, eta: float, batch_size: float, momentum: float, measured: Noise) -> float:
    """δ of the configured optimizer, which has one, at a measured C² and ‖∇f‖."""
    return noise.noise_level(
        eta,
        batch_size,
        measured.variance,
        optimizer=config.optimizer.name,
        momentum=momentum,
        gradient_norm=measured.gradient_norm,
    )


def aim(config: Config, stage: Stage, reference: Noise) -> float | None:
    """δ_m of a stage with the C² and ‖∇f‖ of the start of training.

    None if no δ is known for the optimizer.
    """
    if stage.phi_m == 0:  # gradient descent on f itself
        return 0.0
    if not config.optimizer.formula:
        return None
    return level(config, stage.eta_m, stage.b_m, config.optimizer.momentum, reference)
