"""`schedule.noise_exponent=measured`: a number before there is a plan, and a run like any other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from igo.config.plan import make_plan
from igo.config.schema import Config
from igo.errors import ConfigError
from igo.method.batches import PUBLISHED
from igo.ranks import Ranks
from igo.runs.terminal import Terminal

if TYPE_CHECKING:
    from igo.method.exponent import NoiseExponent

SETTING, MEASURED = "schedule.noise_exponent", "measured"
WIDEST = 0.5  # of an interval that says anything: from the published ½ to 1
LEAST_BATCHES = 8


def resolved(config: Config, terminal: Terminal) -> Config:
    """The configuration with ρ measured at the start of training, to two decimals.

    So the same command finds the same run, on another machine too.
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
        found = exponent.predict(
            training, learning_rate=config.learning_rate, momentum=config.optimizer.momentum,
            batch_size=max(size, 1), batches=batches,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(SETTING, MEASURED, str(error)) from None
    rho = usable(found)
    low, high = found.interval
    terminal.say(
        f"{SETTING}={rho:g}: predicted from curvature at the start, {found.value:.3f} ({low:.3f} to"
        f" {high:.3f}), largest ηλ {found.steps[0]:.3g}"
    )
    return replace(config, schedule=replace(config.schedule, noise_exponent=rho))


def usable(found: NoiseExponent) -> float:
    """ρ in (0, 1] to two decimals."""
    low, high = found.interval
    if not high - low <= WIDEST:
        allowed = (
            f"ρ from curvature is {found.value:.2f}, anywhere from {low:.2f} to {high:.2f}: wider"
            f" than {WIDEST:g}; take more batches (noise.batches), or give a number"
        )
        raise ConfigError(SETTING, MEASURED, allowed)
    rho = min(round(found.value, 2), 1.0)  # above 1 where curvature is negative: outside the law
    if rho <= 0:
        allowed = f"ρ from curvature is {found.value:.3f}, and must be in (0, 1]; give a number"
        raise ConfigError(SETTING, MEASURED, allowed)
    return rho
