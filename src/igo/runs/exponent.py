"""`schedule.noise_exponent=measured`: ρ is measured before the plan is made."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from igo.config.plan import make_plan
from igo.config.schema import Config
from igo.ground.errors import ConfigError
from igo.ground.ranks import Ranks
from igo.method.batches import PUBLISHED
from igo.runs.terminal import Terminal

if TYPE_CHECKING:
    from igo.noise.exponent import NoiseExponent

SETTING, MEASURED = "schedule.noise_exponent", "measured"
WIDEST = 0.5  # of a usable interval: the distance between the published exponents, ½ and 1
LEAST_BATCHES = 8


def resolved(config: Config, terminal: Terminal) -> Config:
    """The configuration with ρ measured at the start of training.

    ρ is rounded to two decimals, so that the same command is the same run on another machine.
    """
    if config.schedule.noise_exponent != MEASURED:
        return config
    if Ranks.of_environment().size > 1:
        raise ConfigError(SETTING, MEASURED, "measure it with one process, and give the number")
    from igo.runs import assemble
    from igo.train import exponent

    plain = replace(config, schedule=replace(config.schedule, noise_exponent=PUBLISHED))
    training = assemble.prepare(plain, make_plan(plain))
    batches = max(config.noise.batches, LEAST_BATCHES)
    size = min(config.batch_size, training.data.n // batches)
    try:
        estimate = exponent.predict(
            training, learning_rate=config.learning_rate, momentum=config.optimizer.momentum,
            batch_size=max(size, 1), batches=batches,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(SETTING, MEASURED, str(error)) from None
    rho = usable(estimate)
    low, high = estimate.interval
    terminal.say(
        f"{SETTING}={rho:g}: predicted from curvature at the start, {estimate.value:.3f} ({low:.3f}"
        f" to {high:.3f}), largest ηλ {estimate.steps[0]:.3g}"
    )
    return replace(config, schedule=replace(config.schedule, noise_exponent=rho))


def usable(estimate: NoiseExponent) -> float:
    """ρ in (0, 1] to two decimals."""
    low, high = estimate.interval
    if not high - low <= WIDEST:
        allowed = (
            f"ρ from curvature is {estimate.value:.2f}, anywhere from {low:.2f} to {high:.2f}:"
            f" wider than {WIDEST:g}; take more batches (noise.batches), or give a number"
        )
        raise ConfigError(SETTING, MEASURED, allowed)
    rho = min(round(estimate.value, 2), 1.0)  # above 1 where curvature is negative
    if rho <= 0:
        allowed = f"ρ from curvature is {estimate.value:.3f}, and must be in (0, 1]; give a number"
        raise ConfigError(SETTING, MEASURED, allowed)
    return rho
