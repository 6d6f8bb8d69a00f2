"""The whole schedule as plain data, computed before the first step: a noise profile times a split.

A stage m has the noise level δ_m = δ_1 φ_m. The profile gives φ_m; the split s shares the
decay between learning rate and batch size (slides, Algorithm 3; the split is derived from it):
η_m = η_1 φ_m^s, b_m = b_1 φ_m^(-2(1-s)).
Adding a profile takes one function here and one file in conf/schedule/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TypeVar

from igo.config.schema import Config, ScheduleConfig
from igo.errors import ConfigError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Stage:
    """One stage of the plan; the column names are those of ``plan.csv`` and of the paper.

    ``first_epoch`` counts from 1. ``gamma_m``, ``kappa_m`` and ``lambda_m`` lead from this stage
    to the next (γ_m = δ_{m+1}/δ_m, κ_m = η_{m+1}/η_m, λ_m = b_{m+1}/b_m) and are None in the last.
    """

    stage: int
    first_epoch: int
    epochs: int
    updates: int
    phi_m: float
    gamma_m: float | None
    kappa_m: float | None
    lambda_m: float | None
    eta_m: float
    b_m: int

    @property
    def epoch_range(self) -> range:
        """The stage's epochs, counted from 1."""
        return range(self.first_epoch, self.first_epoch + self.epochs)


STAGE_COLUMNS = tuple(field.name for field in fields(Stage))


@dataclass(frozen=True)
class Plan:
    """All stages of a run, in order; n is the number of training samples."""

    stages: tuple[Stage, ...]
    n: int

    @property
    def epochs(self) -> int:
        """Epochs in all, those of a full-batch final stage included."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def updates(self) -> int:
        """Parameter updates in all."""
        return sum(stage.updates for stage in self.stages)

    def epochs_of_stages(self, start: int) -> Iterator[tuple[int, Stage]]:
        """Yield (epoch, its stage) for every epoch after the first ``start`` ones."""
        for stage in self.stages:
            yield from ((epoch, stage) for epoch in stage.epoch_range if epoch > start)


@dataclass(frozen=True)
class Position:
    """Where a stage begins: m of M stages, and the epochs that went before."""

    m: int
    M: int
    epochs_before: int

    @property
    def t(self) -> float:
        """Share of the schedule behind this stage, (m - 1)/M in [0, 1)."""
        return (self.m - 1) / self.M


def polynomial(at: Position, schedule: ScheduleConfig) -> float:
    """φ_m = ((M - m + 1)/M)^p; for p in (0, 1] the optimal decay (slides, Algorithm 3)."""
    return math.pow((at.M - at.m + 1) / at.M, _set(schedule.p))


def step(at: Position, schedule: ScheduleConfig) -> float:
    """φ_m = γ^(m-1), a constant decay rate (Methods 2 to 4 of the slides)."""
    return math.pow(_set(schedule.gamma), at.m - 1)


def exponential(at: Position, schedule: ScheduleConfig) -> float:
    """φ = g^e after e epochs, like PyTorch's ExponentialLR stepped once an epoch."""
    return math.pow(_set(schedule.decay), at.epochs_before)


def cosine(at: Position, _: ScheduleConfig) -> float:
    """φ_m = (1 + cos πt)/2, cosine annealing to zero (Loshchilov and Hutter 2017)."""
    return (1 + math.cos(math.pi * at.t)) / 2


def cosine_power(at: Position, schedule: ScheduleConfig) -> float:
    """φ_m = (q^((1 + cos πt)/2 + 1) - q)/(q² - q), cosine power annealing (Hundt et al. 2019).

    It is (q^c - 1)/(q - 1), which neither overflows for large q nor cancels for q near 1.
    """
    log_q = math.log(_set(schedule.power))
    return math.expm1(cosine(at, schedule) * log_q) / math.expm1(log_q)


def diminishing(at: Position, schedule: ScheduleConfig) -> float:
    """φ_m = 1/√m (form inverse_sqrt) or 1/(1 + a t) (form inverse_time)."""
    if schedule.form == "inverse_sqrt":
        return 1 / math.sqrt(at.m)
    return 1 / (1 + _set(schedule.a) * at.t)


PROFILES: dict[str, Callable[[Position, ScheduleConfig], float]] = {
    "constant": lambda _at, _schedule: 1.0,
    "graduated": polynomial,
    "polynomial": polynomial,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "cosine_power": cosine_power,
    "diminishing": diminishing,
}


def make_plan(config: Config) -> Plan:
    """Compute every stage of a run from its checked configuration.

    δ_m/δ_1 = φ_m holds to float precision whatever rounding, ``schedule.batch_multiple`` or a cap
    do to b_m: b_m is made whole first, then η_m = η_1 φ_m √(b_m/b_1) takes what is left.

    Raises:
        ConfigError: the noise level or the learning rate underflows to zero before the last stage.
    """
    n = config.dataset.samples
    count = _set(config.schedule.stages)
    starts = [m * config.epochs // count for m in range(count)] + [config.epochs]
    phis: list[float] = []
    etas: list[float] = []
    batches: list[int] = []
    for m in range(1, count + 1):
        phi = PROFILES[config.schedule.profile](Position(m, count, starts[m - 1]), config.schedule)
        if not 0 < phi <= 1:
            raise ConfigError(
                "schedule",
                config.schedule.profile,
                f"its noise level is δ_{m} = {phi:g} δ_1 in stage {m} of {count}, which must be in"
                " (0, 1]; use fewer stages or a slower decay",
            )
        eta, b = config.learning_rate, config.batch_size
        if not config.optimizer.decay_momentum:  # which leaves both as they are
            b = whole_batch_size(config, phi, least=batches[-1] if batches else b)
            eta *= phi * math.sqrt(b / config.batch_size)
        if eta == 0:
            allowed = f"it underflows to η_{m} = 0 in stage {m} of {count}; use a larger one"
            raise ConfigError("learning_rate", config.learning_rate, allowed)
        phis.append(phi)
        batches.append(b)
        etas.append(eta)
    epochs = [starts[m + 1] - starts[m] for m in range(count)]
    if config.schedule.final_updates:  # stage M+1: δ = 0, gradient descent on f itself
        phis.append(0.0)
        batches.append(n)
        etas.append(etas[-1])
        epochs.append(config.schedule.final_updates)  # one full batch is one epoch
    return Plan(tuple(_stages(phis, etas, batches, epochs, n)), n)


def whole_batch_size(config: Config, phi: float, least: int) -> int:
    """b_1 φ^(-2(1-s)) as a whole number on the grid, not above the cap, never below ``least``."""
    multiple = config.schedule.batch_multiple
    cap = min(config.max_batch_size or config.dataset.samples, config.dataset.samples)
    cap = max(cap // multiple * multiple, least)
    growth = max(0.0, -2 * (1 - config.split) * math.log(phi))
    if growth >= math.log(cap / config.batch_size):  # also where φ^(-2(1-s)) would overflow
        return cap
    b = round(config.batch_size * math.exp(growth) / multiple) * multiple
    return min(max(b, least), cap)


def _stages(
    phis: list[float], etas: list[float], batches: list[int], epochs: list[int], n: int
) -> Iterator[Stage]:
    first_epoch = 1
    for m, (phi, eta, b, length) in enumerate(zip(phis, etas, batches, epochs, strict=True)):
        last = m + 1 == len(phis)
        yield Stage(
            stage=m + 1,
            first_epoch=first_epoch,
            epochs=length,
            updates=length * math.ceil(n / b),
            phi_m=phi,
            gamma_m=None if last else phis[m + 1] / phi,
            kappa_m=None if last else etas[m + 1] / eta,
            lambda_m=None if last else batches[m + 1] / b,
            eta_m=eta,
            b_m=b,
        )
        first_epoch += length


def _set(value: _T | None) -> _T:
    """A value that igo.config.rules has already found to be set."""
    if value is None:
        raise ValueError("an unchecked configuration: pass it through igo.config.load first")
    return value
