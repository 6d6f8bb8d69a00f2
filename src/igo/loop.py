"""The training loop: walk the plan stage by stage, one record for each finished epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from igo import optim
from igo.config import Config
from igo.data import Data, epoch_batches
from igo.engine import Engine
from igo.errors import UserError
from igo.noise import Noise, measure, noise_level
from igo.record import Record
from igo.schedule import Plan, Stage
from igo.seeds import derive_seed
from igo.terminal import ProgressBar


@dataclass
class Progress:
    """Where a run stands: all that changes besides parameters and optimizer state."""

    epoch: int = 0
    updates: int = 0
    samples: int = 0
    reference: Noise | None = None  # C² and K at the start of training: the planned δ_m uses them
    current: Noise | None = None  # at the start of the present stage: the measured δ_m uses them
    records: list[Record] = field(default_factory=list)


@dataclass(frozen=True)
class Training:
    """What the loop works with."""

    config: Config
    plan: Plan
    data: Data
    network: nn.Module
    optimizer: torch.optim.SGD
    engine: Engine


@dataclass(frozen=True)
class Epoch:
    """What one epoch did (sums over samples divided by samples), and with what."""

    loss: float
    accuracy: float
    updates: int
    samples: int
    learning_rate: float  # of the optimizer at its last step
    batch_size: int  # the largest batch that reached the model
    seconds: float


def train(
    run: Training,
    progress: Progress,
    bar: ProgressBar,
    epoch_done: Callable[[Record], None],
    check_stop: Callable[[], None],
) -> None:
    """Train from where ``progress`` stands to the end of the plan.

    Args:
        run: plan, data, model, optimizer, engine.
        progress: is brought forward epoch by epoch.
        bar: told of each update.
        epoch_done: called with the record of each finished epoch.
        check_stop: called before each update; may raise to end the run.

    Raises:
        UserError: the loss is no longer finite.
    """
    run.network.train()
    for epoch, stage in run.plan.epochs_of_stages(progress.epoch):
        started = time.perf_counter()
        reference, current = _noise(run, stage, epoch, progress)
        optim.set_learning_rate(run.optimizer, stage.eta_m)
        torch.manual_seed(derive_seed(run.config.seed, "dropout", epoch))
        bar.begin_epoch(epoch, stage, _delta(run, stage, reference))
        trained = _train_epoch(run, epoch, stage, progress, bar, check_stop)
        test_loss, test_accuracy = run.engine.evaluate(run.network, run.data.test_batches())
        progress.epoch, progress.updates = epoch, progress.updates + trained.updates
        progress.samples += trained.samples
        record: Record = {
            "epoch": epoch,
            "stage": stage.stage,
            "updates": progress.updates,
            "samples": progress.samples,
            "eta_m": trained.learning_rate,
            "b_m": trained.batch_size,
            "gamma_m": stage.gamma_m,
            "delta_m": _delta(run, stage, reference),
            "delta_measured": _delta(run, stage, current),
            "gradient_variance": current.variance,
            "train/loss": trained.loss,
            "train/accuracy": trained.accuracy,
            "test/loss": test_loss,
            "test/accuracy": test_accuracy,
            "images_per_second": trained.samples / trained.seconds,
        }
        record["seconds"] = time.perf_counter() - started
        progress.records.append(record)
        epoch_done(record)
        bar.end_epoch(record)


def _train_epoch(
    run: Training,
    epoch: int,
    stage: Stage,
    progress: Progress,
    bar: ProgressBar,
    check_stop: Callable[[], None],
) -> Epoch:
    started = time.perf_counter()
    index_batches = epoch_batches(run.data.n, stage.b_m, run.config.seed, epoch)
    batches = run.data.train_batches(index_batches, derive_seed(run.config.seed, "epoch", epoch))
    totals = torch.zeros(2, device=run.engine.device)
    largest = samples = 0
    for batch in batches:
        check_stop()
        totals += run.engine.step(run.network, run.optimizer, batch)
        size = len(batch[1])
        largest, samples = max(largest, size), samples + size
        bar.advance(size)
    loss, correct = (total / samples for total in totals.tolist())  # waits for the device
    seconds = time.perf_counter() - started
    eta = optim.learning_rate(run.optimizer)
    if not math.isfinite(loss):
        raise UserError(
            f"the training loss is {loss} in epoch {epoch} (stage {stage.stage}, η {eta:.4g},"
            f" b {stage.b_m}); a smaller learning_rate may help. The last good checkpoint is of"
            f" epoch {progress.epoch}"
        )
    return Epoch(
        loss=loss,
        accuracy=correct,
        updates=len(index_batches),
        samples=samples,
        learning_rate=eta,
        batch_size=largest,
        seconds=seconds,
    )


def _noise(run: Training, stage: Stage, epoch: int, progress: Progress) -> tuple[Noise, Noise]:
    """C² at the start of training and at the start of this stage, measured when they begin."""
    if epoch == stage.first_epoch or progress.current is None:
        progress.current = measure(
            run.engine,
            run.network,
            run.data,
            batches=run.config.noise.batches,
            batch_size=min(run.config.noise.batch_size, stage.b_m),
            seed=derive_seed(run.config.seed, "noise", stage.stage),
        )
    progress.reference = progress.reference or progress.current
    return progress.reference, progress.current


def _delta(run: Training, stage: Stage, noise: Noise) -> float:
    """δ_m of a stage with a measured C²; 0 in the full-batch final stage, whose noise is none."""
    if stage.phi_m == 0:
        return 0.0
    return noise_level(
        stage.eta_m,
        stage.b_m,
        noise.variance,
        optimizer=run.config.optimizer.name,
        momentum=run.config.optimizer.momentum,
        gradient_norm=noise.gradient_norm,
    )
