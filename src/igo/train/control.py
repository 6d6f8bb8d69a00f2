"""What a stage really trains with: the plan's numbers, or what the measured noise asks for.

Three ways to reach δ_m = δ_1 φ_m. Open loop (the published one): η_m and b_m of the plan, C² taken
constant. ``schedule.feedback=measured``: η_m and b_m from the C² at the start of the stage.
``optimizer.decay_momentum=true``: β_m at fixed η_1 and b_1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from igo.config.schema import Config
from igo.errors import UserError
from igo.method import noise, schedule
from igo.method.noise import Moments, Noise
from igo.method.schedule import Stage


@dataclass(frozen=True)
class Applied:
    """One stage as applied.

    ``delta`` is the δ_m aimed at; ``delta_start`` the one that the C² at the stage's start makes of
    η, b and β. Both in units of the parameter norm.
    """

    learning_rate: float
    batch_size: int
    momentum: float
    delta: float
    delta_start: float


def decide(
    config: Config, stage: Stage, reference: Noise, current: Noise, before: Applied | None
) -> Applied:
    """Choose η, b and β of a stage.

    Args:
        config: says which of the three ways.
        stage: the plan's row.
        reference: the measurement at the start of training.
        current: the one at the start of this stage.
        before: the stage before as applied, None in the first.

    Raises:
        UserError: there is no noise to follow.
    """
    if stage.phi_m == 0:  # gradient descent on f itself, with the last η
        eta = stage.eta_m if before is None else before.learning_rate
        beta = config.optimizer.momentum if before is None else before.momentum
        return Applied(eta, stage.b_m, beta, 0.0, 0.0)
    follows = config.optimizer.decay_momentum or config.schedule.feedback == "measured"
    if follows and reference.variance <= 0:
        raise UserError("C² is 0 at the start of training: there is no noise to follow")
    if config.optimizer.decay_momentum:
        return _by_momentum(config, stage, reference, before)
    if config.schedule.feedback == "measured":
        return _by_feedback(config, stage, reference, current, before)
    eta, b, beta = stage.eta_m, stage.b_m, config.optimizer.momentum
    planned = level(config, eta, b, beta, reference)
    return Applied(eta, b, beta, planned, level(config, eta, b, beta, current))


def level(config: Config, eta: float, batch_size: int, momentum: float, measured: Moments) -> float:
    """δ of the configured optimizer at a measured C² and ‖∇f‖."""
    return noise.noise_level(
        eta,
        batch_size,
        measured.variance,
        optimizer=config.optimizer.name,
        momentum=momentum,
        gradient_norm=measured.gradient_norm,
    )


def measured_level(config: Config, applied: Applied, measured: Moments) -> float:
    """δ as it is in a stage; 0 in gradient descent on f itself, whose batches are all samples."""
    if applied.delta == 0:
        return 0.0
    return level(config, applied.learning_rate, applied.batch_size, applied.momentum, measured)


def _by_momentum(config: Config, stage: Stage, reference: Noise, before: Applied | None) -> Applied:
    """β_m carries the decay, C² and ‖∇f‖ frozen at the reference; once β = 0, η takes the rest."""
    eta, b = config.learning_rate, config.batch_size
    target = level(config, eta, b, config.optimizer.momentum, reference) * stage.phi_m
    beta = noise.momentum_for(
        target,
        eta,
        b,
        reference.variance,
        optimizer=config.optimizer.name,
        gradient_norm=reference.gradient_norm,
        largest=config.optimizer.momentum if before is None else before.momentum,
    )
    if beta == 0:
        eta *= min(1.0, target / level(config, eta, b, 0.0, reference))
    return Applied(eta, b, beta, target, level(config, eta, b, beta, reference))


def _by_feedback(
    config: Config, stage: Stage, reference: Noise, current: Noise, before: Applied | None
) -> Applied:
    """Follow δ_1 φ_m with the C² of now: η √(C²/b) = δ_1 φ_m.

    The needed change of η/√b against the first stage is ψ = φ_m √(C²_1/C²), shared by the split as
    the plan shares φ_m. From stage to stage, η/√b changes by no more than ``feedback_limit`` beyond
    the plan's γ, and b never shrinks. δ at the start of a stage never exceeds that of the stage
    before, unless C² rose by more than the limit can take back in one stage.
    """
    eta_1, b_1 = config.learning_rate, config.batch_size
    target = level(config, eta_1, b_1, 0.0, reference) * stage.phi_m
    one = level(config, eta_1, b_1, 0.0, current)  # δ of now for ψ = 1
    psi = stage.phi_m
    if before is not None:
        psi = min(target, before.delta_start) / one if one > 0 else math.inf
        last = before.learning_rate / eta_1 * math.sqrt(b_1 / before.batch_size)
        planned = last * target / before.delta
        limit = config.schedule.feedback_limit
        psi = min(max(psi, planned / limit), planned * limit)
    b = schedule.whole_batch_size(config, psi, least=before.batch_size if before else b_1)
    eta = eta_1 * psi * math.sqrt(b / b_1)
    return Applied(eta, b, 0.0, target, level(config, eta, b, 0.0, current))
