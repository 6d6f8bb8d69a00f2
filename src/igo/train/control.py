"""What a stage really trains with: the plan's numbers, or what the measured noise asks for.

Three ways to reach δ_m = δ_1 φ_m. Open loop (the published one): η_m and b_m of the plan, C² taken
constant. ``schedule.feedback=measured``: η_m and b_m from the C² at the start of the stage.
``optimizer.decay_momentum=true``: β_m at fixed η_1 and b_1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from igo.config.plan import batching as make_batching
from igo.config.schema import Config
from igo.errors import UserError
from igo.method import momentum, noise
from igo.method.noise import Noise
from igo.method.plan import Stage


@dataclass(frozen=True)
class Applied:
    """One stage as applied.

    ``batches`` is k_m, of an epoch, and ``batch_size`` b_m = n/k_m. ``delta`` is the δ_m aimed at;
    ``delta_start``, where the schedule follows C², the one that the C² at the stage's start makes
    of η, b and β. Both in units of the parameter norm.
    """

    learning_rate: float
    batches: int
    batch_size: float
    momentum: float
    delta: float
    delta_start: float | None = None


def follows_noise(config: Config) -> bool:
    """Whether C² is measured at the start of every stage, not of training alone."""
    return config.schedule.feedback == "measured"


def decide(
    config: Config, stage: Stage, reference: Noise, current: Noise, before: Applied | None
) -> Applied:
    """Choose η, b and β of a stage.

    Args:
        config: says which of the three ways.
        stage: the plan's row.
        reference: the measurement at the start of training.
        current: the newest one, at the start of this stage if the schedule follows it.
        before: the stage before as applied, None in the first.

    Raises:
        UserError: there is no noise to follow.
    """
    beta = config.optimizer.momentum
    if stage.phi_m == 0:  # gradient descent on f itself, with the last η
        eta = stage.eta_m if before is None else before.learning_rate
        beta = beta if before is None else before.momentum
        return Applied(eta, stage.batches, stage.b_m, beta, delta=0.0)
    follows = config.optimizer.decay_momentum or follows_noise(config)
    if follows and reference.variance <= 0:
        raise UserError("C² is 0 at the start of training: there is no noise to follow")
    if config.optimizer.decay_momentum:
        return _by_momentum(config, stage, reference, before)
    if follows_noise(config):
        return _by_feedback(config, stage, reference, current, before)
    planned = level(config, stage.eta_m, stage.b_m, beta, reference)
    return Applied(stage.eta_m, stage.batches, stage.b_m, beta, planned)


def level(config: Config, eta: float, batch_size: float, momentum: float, measured: Noise) -> float:
    """δ of the configured optimizer at a measured C² and ‖∇f‖."""
    return noise.noise_level(
        eta,
        batch_size,
        measured.variance,
        optimizer=config.optimizer.name,
        momentum=momentum,
        gradient_norm=measured.gradient_norm,
    )


def _by_momentum(config: Config, stage: Stage, reference: Noise, before: Applied | None) -> Applied:
    """β_m carries the decay, C² and ‖∇f‖ frozen at the reference; once β = 0, η takes the rest."""
    eta, b = config.learning_rate, stage.b_m
    first = momentum.Optimizer(config.optimizer.name, config.optimizer.momentum)
    target = level(config, eta, b, first.momentum, reference) * stage.phi_m
    largest = first.momentum if before is None else before.momentum
    eta, beta = momentum.decay(stage.phi_m, eta, b, first, largest, reference)
    return Applied(eta, stage.batches, b, beta, target)


def _by_feedback(
    config: Config, stage: Stage, reference: Noise, current: Noise, before: Applied | None
) -> Applied:
    """Follow δ_1 φ_m with the C² of now: η √(C²/b) = δ_1 φ_m.

    The needed change of η/√b against the first stage is ψ = φ_m √(C²_1/C²), shared by the split as
    the plan shares φ_m. From stage to stage, η/√b changes by no more than ``feedback_limit`` beyond
    the plan's γ, and b never shrinks. δ at the start of a stage never exceeds that of the stage
    before, unless C² rose by more than the limit can take back in one stage.
    """
    batching = make_batching(config)
    eta_1, k_1, n = config.learning_rate, batching.first, batching.n
    target = level(config, eta_1, n / k_1, 0.0, reference) * stage.phi_m
    one = level(config, eta_1, n / k_1, 0.0, current)  # δ of now for ψ = 1
    psi = stage.phi_m
    if before is not None and before.delta_start is not None:
        psi = min(target, before.delta_start) / one if one > 0 else math.inf
        last = before.learning_rate / eta_1 * math.sqrt(before.batches / k_1)
        planned = last * target / before.delta
        limit = config.schedule.feedback_limit
        psi = min(max(psi, planned / limit), planned * limit)
    k = batching.count(psi, before.batches if before else k_1)
    eta = batching.learning_rate(eta_1, psi, k)
    start = level(config, eta, n / k, 0.0, current)
    return Applied(eta, k, n / k, 0.0, target, delta_start=start)
