"""A training, its progress, and the record of an epoch.

δ is planned with C² before training, and measured with the epoch's.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import nn

from igo.config.schema import Config
from igo.data.identity import Identity
from igo.ground.files import Record
from igo.loop.sampler import BatchSampler
from igo.loop.schedule import Schedule
from igo.noise import noise
from igo.noise.noise import Noise
from igo.noise.pairs import Twin
from igo.plans.plan import Plan
from igo.plans.rows import Row
from igo.train.datasets import Data
from igo.train.engine import Engine


class Watcher(Protocol):
    """Watches the updates, like a progress bar; it reads nothing from the device."""

    def begin_epoch(self, epoch: int, delta: float | None) -> None:
        """Called when an epoch begins, with its δ_m."""

    def advance(self, images: int) -> None:
        """Called for each update, with its images."""

    def end_epoch(self, record: Record) -> None:
        """Called after an epoch is recorded."""


@dataclass(frozen=True)
class Training:
    """The parts of a training."""

    config: Config
    batches: BatchSampler
    data: Data
    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    engine: Engine
    identity: Identity  # the data's

    @property
    def plan(self) -> Plan:
        """The plan that the batches are of."""
        return self.batches.plan


@dataclass
class Progress:
    """The progress of a run: what changes besides its model, optimizer and schedule."""

    epoch: int = 0
    samples: int = 0
    reference: Noise | None = None  # C² and ‖∇f‖ at the start, for the planned δ_m
    threads: int | None = None  # Rounding depends on the CPU's.
    records: list[Record] = field(default_factory=list)
    # The newest twins correct C². They are plain numbers, since checkpoints hold no classes.
    twins: list[tuple[float, ...]] = field(default_factory=list)

    @staticmethod
    def of_state(state: Record) -> Progress:
        """Make it from a checkpoint's plain data, as ``dataclasses.asdict`` made them."""
        state = {**state}
        if state["reference"]:
            state["reference"] = Noise(**state["reference"])
        return Progress(**state)


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch (means over samples), and what was applied."""

    loss: float
    accuracy: float
    skipped: int  # Updates that fp16's loss scaler left out, as a gradient overflowed
    rates: list[float]  # η of each update, as the optimizer had it
    sizes: list[int]  # Of each batch that reached the model, over all ranks
    seconds: float
    noise: Noise | None  # C² and ‖∇f‖ of the gradients that trained it
    twins: list[Twin]  # The newest, also of earlier epochs


def record_of(
    run: Training, stage: Row, results: Epoch, evaluation: Record, progress: Progress
) -> Record:
    """The record of a finished epoch, without its seconds."""
    measurement, reference = _resolved(results.noise, run.data.n), progress.reference
    rates, sizes, samples = results.rates, results.sizes, sum(results.sizes)
    # The mean of equal rates would be rounded.
    eta = rates[0] if len({*rates}) == 1 else math.fsum(rates) / len(rates)
    config, b = run.config, samples / len(sizes)
    delta = delta_of(config, eta, b, reference) if stage.phi_m else 0.0

    def delta_at(variance: float | None) -> float | None:
        if measurement is None or variance is None or math.isinf(variance):
            return None
        delta_of_end = delta_of(config, eta, b, replace(measurement, variance=variance))
        # With δ_m = 0 a batch is all samples, which is gradient descent on f itself.
        return 0.0 if delta == 0 and delta_of_end is not None else delta_of_end

    no_ends = None, None
    low, high = (measurement and measurement.variance_interval) or no_ends
    norm_low, norm_high = (measurement and measurement.norm_interval) or no_ends
    scale_low, scale_high = (measurement and measurement.scale_interval) or no_ends
    return {
        "epoch": progress.epoch,
        "stage": stage.stage,
        "updates": run.batches.updates,
        **({"skipped": results.skipped} if run.engine.scaler.is_enabled() else {}),
        "samples": progress.samples,
        "eta_m": eta,
        "b_m": b,
        "eta_largest": max(rates),
        "b_largest": max(sizes),
        "eta_over_sqrt_b": sum(map(operator.mul, rates, map(math.sqrt, sizes))) / samples,
        "beta_m": run.optimizer.param_groups[0].get("momentum"),
        "gamma_m": stage.gamma_m,
        "kappa_m": stage.kappa_m,
        "lambda_m": stage.lambda_m,
        "delta_m": delta,
        "delta_measured": delta_at(measurement.variance if measurement else None),
        "delta_measured_low": delta_at(low),
        "delta_measured_high": delta_at(high),
        "gradient_variance": measurement and measurement.variance,
        "gradient_variance_low": low,
        "gradient_variance_high": high,
        "gradient_norm": measurement and (measurement.gradient_norm or None),
        "gradient_norm_low": norm_low,
        "gradient_norm_high": norm_high,
        "noise_scale": measurement and measurement.noise_scale,
        "noise_scale_low": scale_low,
        "noise_scale_high": None if scale_high == math.inf else scale_high,
        "variance_pairs": measurement.batches if measurement else 0,
        "reference_variance": reference and reference.variance,
        "reference_gradient_norm": reference and reference.gradient_norm,
        "train/loss": results.loss,
        "train/accuracy": results.accuracy,
        **evaluation,
        "images_per_second": samples / results.seconds,
    }


def _resolved(measurement: Noise | None, n: int) -> Noise | None:
    """The measurement, with an upper bound alone of a ‖∇f‖² below C²/n.

    n samples cannot tell such a ‖∇f‖² from 0. As an epoch draws each sample once, the estimate may
    be too small by C²/n, which the bound has in addition.
    """
    if measurement is None or measurement.gradient_square >= measurement.variance / n:
        return measurement
    ends = measurement.square_interval
    if ends:
        ends = 0.0, max(ends[1], 0.0) + measurement.variance / n
    return replace(measurement, gradient_square=0.0, square_interval=ends)


def planned_delta(config: Config, stage: Row, reference: Noise | None) -> float | None:
    """δ_m of a stage with the C² and ‖∇f‖ of the start of training; None if no δ is known."""
    if stage.phi_m == 0:  # This is gradient descent on f itself.
        return 0.0
    return delta_of(config, stage.eta_m, stage.b_m, reference)


def delta_of(config: Config, eta: float, b: float, measurement: Noise | None) -> float | None:
    """δ of η and b; None if it is not known."""
    if measurement is None or not config.optimizer.formula:
        return None
    return noise.noise_level(
        eta,
        b,
        measurement.variance,
        optimizer=config.optimizer.name,
        momentum=config.optimizer.momentum,
        gradient_norm=measurement.gradient_norm,
    )
