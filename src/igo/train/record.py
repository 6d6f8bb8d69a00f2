"""The record of an epoch: what was applied, the measured noise, and the results."""

from __future__ import annotations

import math
from dataclasses import replace

from igo.ground.files import Record
from igo.method.plan import Stage
from igo.train import control, optim
from igo.train.state import Epoch, Progress, Training


def record_of(
    run: Training,
    stage: Stage,
    delta: float | None,
    trained: Epoch,
    evaluated: Record,
    progress: Progress,
) -> Record:
    """The record of a finished epoch, as docs/training.md lists it, without its seconds.

    ``delta`` is δ_m, None if it is not known.
    """
    return {
        "epoch": progress.epoch,
        "stage": stage.stage,
        "updates": progress.updates,
        "samples": progress.samples,
        "eta_m": trained.learning_rate,
        "b_m": trained.batch_size,
        "beta_m": optim.momentum(run.optimizer),
        "gamma_m": stage.gamma_m,
        "delta_m": delta,
        **_noise(run, delta, trained, progress),
        "train/loss": trained.loss,
        "train/accuracy": trained.accuracy,
        **evaluated,
        "images_per_second": trained.samples / trained.seconds,
    }


def _noise(run: Training, delta: float | None, trained: Epoch, progress: Progress) -> Record:
    """δ and C² at the start of this epoch, and C² at the start of training, for δ_m."""
    noise, reference = trained.noise, progress.reference
    known = run.config.optimizer.formula

    def level(variance: float | None) -> float | None:
        if not known or noise is None or variance is None or math.isinf(variance):
            return None
        if delta == 0:  # gradient descent on f itself: a batch is all samples
            return 0.0
        eta, b, beta = trained.learning_rate, trained.batch_size, optim.momentum(run.optimizer)
        measured = replace(noise, variance=variance)
        return control.level(run.config, eta, b, beta or 0.0, measured)

    low, high = noise.interval if noise and noise.interval else (None, None)
    return {
        "delta_measured": level(noise.variance if noise else None),
        "delta_measured_low": level(low),
        "delta_measured_high": level(high),
        "gradient_variance": noise.variance if noise else None,
        "gradient_norm": noise.gradient_norm if noise else None,
        "noise_scale": noise.noise_scale if noise else None,
        "variance_pieces": noise.batches if noise else 0,
        "variance_batch_size": noise.batch_size if noise else None,
        "reference_variance": reference.variance if reference else None,
        "reference_gradient_norm": reference.gradient_norm if reference else None,
    }
