"""A training, its progress, and the record of an epoch.

The planned δ has the C² before training in it, and the measured δ that of its epoch.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
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
from igo.train.engine import Engine
from igo.train.on_device import Data


class Watcher(Protocol):
    """Watches the updates, like a progress bar; it reads nothing from the device."""

    def begin_epoch(self, epoch: int, delta: float | None) -> None:
        """Called when an epoch begins, with its planned δ_m."""

    def advance(self, images: int) -> None:
        """Called after each update, with the number of its images."""

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
    identity: Identity  # It says which data these are.

    @property
    def plan(self) -> Plan:
        """The plan that ``batches`` follows."""
        return self.batches.plan


@dataclass
class Progress:
    """The progress of a run: what changes besides its model, optimizer and schedule."""

    epoch: int = 0  # the last that is finished
    samples: int = 0
    reference: Noise | None = None  # C² and ‖∇f‖ before training, for the planned δ_m
    threads: int | None = None  # of the CPU: rounding depends on their number
    records: list[Record] = field(default_factory=list)  # one for each finished epoch
    twins: Sequence[Twin] = ()  # the newest of the run, see Pairs

    @staticmethod
    def of_state(state: Record) -> Progress:
        """The progress in a checkpoint, as ``dataclasses.asdict`` has put it there.

        ``asdict`` makes a dict of the reference, a dataclass, and leaves other values as they are.
        """
        reference = state["reference"] and Noise(**state["reference"])
        return Progress(**{**state, "reference": reference})


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch (means over samples), and what was applied."""

    loss: float
    accuracy: float
    skipped: int  # updates that fp16's loss scaler left out, as a gradient overflowed
    rates: list[float]  # η of each update, as the optimizer had it
    sizes: list[int]  # of each batch that reached the model, over all ranks
    seconds: float
    noise: Noise | None  # C² and ‖∇f‖ of the gradients that trained it
    twins: Sequence[Twin]  # the newest, also of earlier epochs


def record_of(
    run: Training, stage: Row, results: Epoch, evaluation: Record, progress: Progress
) -> Record:
    """The record of a finished epoch, without its seconds; docs/record.md explains each name.

    Args:
        run: the training, after the epoch.
        stage: that of the epoch's last update.
        results: of the epoch.
        evaluation: the entries for loss and accuracy on test and validation images.
        progress: with this epoch, but without its record.
    """
    reference, measurement = progress.reference, _resolved(results.noise, run.data.n)
    rates, sizes, samples = results.rates, results.sizes, sum(results.sizes)
    # The mean of equal rates would be rounded.
    eta = rates[0] if len({*rates}) == 1 else math.fsum(rates) / len(rates)
    b = samples / len(sizes)
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
        # The mean of η/√b over images: a batch has b of them, so it adds b · η/√b = η√b.
        "eta_over_sqrt_b": sum(map(operator.mul, rates, map(math.sqrt, sizes))) / samples,
        "beta_m": run.optimizer.param_groups[0].get("momentum"),
        "gamma_m": stage.gamma_m,
        "kappa_m": stage.kappa_m,
        "lambda_m": stage.lambda_m,
        # Where φ is 0, the stage is gradient descent on f itself, and its planned δ is 0.
        "delta_m": delta_of(run.config, eta, b, reference) if stage.phi_m else 0.0,
        **_measured(run.config, eta, b, measurement),
        "variance_pairs": measurement.batches if measurement else 0,  # Pairs count as batches.
        "reference_variance": reference and reference.variance,
        "reference_gradient_norm": reference and reference.gradient_norm,
        "train/loss": results.loss,
        "train/accuracy": results.accuracy,
        **evaluation,
        "images_per_second": samples / results.seconds,
    }


def _measured(config: Config, eta: float, b: float, measurement: Noise | None) -> Record:
    """The entries of a record for what an epoch measured, with the ends of their intervals.

    Values that are not known or infinite are None. δ grows with C². So the interval of δ goes from
    the δ of the lower end of C² to the δ of the upper end.
    """
    if measurement is None:
        names = "delta_measured", "gradient_variance", "gradient_norm", "noise_scale"
        return {name + end: None for name in names for end in ("", "_low", "_high")}
    delta, *delta_ends = (
        delta_of(config, eta, b, replace(measurement, variance=variance))
        for variance in (measurement.variance, *(measurement.variance_interval or ()))
    )
    # 0 stands for a norm that is not known, see _resolved.
    norm = measurement.gradient_norm or None
    return {
        **_with_ends("delta_measured", delta, delta_ends),
        **_with_ends("gradient_variance", measurement.variance, measurement.variance_interval),
        **_with_ends("gradient_norm", norm, measurement.norm_interval),
        **_with_ends("noise_scale", measurement.noise_scale, measurement.scale_interval),
    }


def _with_ends(name: str, value: float | None, ends: Sequence[float | None] | None) -> Record:
    """Three entries of a record: a value, and the ends of its interval, None without one."""
    low, high = ends or (None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": None if high == math.inf else high}


def _resolved(measurement: Noise | None, n: int) -> Noise | None:
    """The measurement, in which a ‖∇f‖² below C²/n is 0, with an upper bound.

    n samples cannot tell such a ‖∇f‖² from 0. As an epoch draws each sample once, the estimate may
    be too small by C²/n, so C²/n is added to the upper end of its interval.
    """
    if measurement is None or measurement.gradient_square >= measurement.variance / n:
        return measurement
    ends = measurement.square_interval
    if ends:
        ends = 0.0, max(ends[1], 0.0) + measurement.variance / n
    return replace(measurement, gradient_square=0.0, square_interval=ends)


def planned_delta(config: Config, stage: Row, reference: Noise | None) -> float | None:
    """δ_m of a stage with the C² and ‖∇f‖ before training; None if no δ is known."""
    if stage.phi_m == 0:  # This is gradient descent on f itself.
        return 0.0
    return delta_of(config, stage.eta_m, stage.b_m, reference)


def delta_of(config: Config, eta: float, b: float, measurement: Noise | None) -> float | None:
    """δ of η and b by the optimizer's formula; None where δ is not known or infinite.

    It is not known without a measurement of C² and ‖∇f‖, or if the optimizer has no formula.
    """
    if measurement is None or measurement.variance == math.inf or not config.optimizer.formula:
        return None
    return noise.noise_level(
        eta,
        b,
        measurement.variance,
        optimizer=config.optimizer.name,
        momentum=config.optimizer.momentum,
        gradient_norm=measurement.gradient_norm,
    )
