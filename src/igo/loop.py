"""The training loop: walk the plan stage by stage, one record for each finished epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from igo import batchnorm, control, measure, online, optim
from igo.config import Config
from igo.control import Applied
from igo.data import Batch, Data, epoch_batches
from igo.engine import Engine
from igo.errors import UserError
from igo.noise import Noise
from igo.online import Average, Online
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
    reference: Noise | None = (
        None  # C² and ‖∇f‖ at the start of training: the planned δ_m uses them
    )
    applied: Applied | None = None  # what the present stage trains with
    average: Average | None = None  # C² and ‖∇f‖ as they are: the measured δ_m uses them
    records: list[Record] = field(default_factory=list)

    @staticmethod
    def of_state(state: dict[str, Any]) -> Progress:
        """What ``dataclasses.asdict`` made plain, from a checkpoint."""
        parts = {"reference": Noise, "applied": Applied, "average": Average}
        built = {name: part(**state[name]) for name, part in parts.items() if state[name]}
        return Progress(**{**state, **built})


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
    variances: float  # Σ C² over the measured pairs
    gradient_squares: float  # Σ ‖∇f‖² over them
    pairs: int


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
        UserError: the loss or C² is no longer finite.
    """
    run.network.train()
    ranks = run.engine.ranks
    for epoch, stage in run.plan.epochs_of_stages(progress.epoch):
        started = time.perf_counter()
        applied, average = _begin(run, stage, epoch, progress)
        optim.apply(run.optimizer, applied.learning_rate, applied.momentum, run.config.optimizer)
        torch.manual_seed(derive_seed(run.config.seed, "dropout", epoch, *run.engine.ranks.own))
        run.engine.begin_epoch(applied.batch_size, run.optimizer)
        bar.begin_epoch(epoch, applied)
        trained = _train_epoch(run, epoch, applied, bar, check_stop)
        average.add(trained.variances, trained.gradient_squares, trained.pairs)
        for name, value in (("training loss", trained.loss), ("C²", average.variance)):
            if not math.isfinite(value):
                raise UserError(_not_finite(name, value, trained, epoch, stage, progress))
        batchnorm.average(run.network, ranks)
        tests = run.data.test_batches(ranks)
        test_loss, test_accuracy = run.engine.evaluate(run.network, tests)
        progress.epoch, progress.updates = epoch, progress.updates + trained.updates
        progress.samples += trained.samples
        record: Record = {
            "epoch": epoch,
            "stage": stage.stage,
            "updates": progress.updates,
            "samples": progress.samples,
            "eta_m": trained.learning_rate,
            "b_m": trained.batch_size,
            "beta_m": optim.momentum(run.optimizer),
            "gamma_m": stage.gamma_m,
            "delta_m": applied.delta,
            "delta_start": applied.delta_start,
            "delta_measured": control.measured_level(run.config, applied, average),
            "gradient_variance": average.variance,
            "noise_scale": average.noise_scale,
            "train/loss": trained.loss,
            "train/accuracy": trained.accuracy,
            "test/loss": test_loss,
            "test/accuracy": test_accuracy,
            "images_per_second": trained.samples / trained.seconds,
            "seconds": time.perf_counter() - started,
        }
        progress.records.append(record)
        epoch_done(record)
        bar.end_epoch(record)


def _begin(run: Training, stage: Stage, epoch: int, progress: Progress) -> tuple[Applied, Average]:
    """At the start of a stage, measure C² and decide what the stage trains with."""
    if epoch == stage.first_epoch or progress.applied is None or progress.average is None:
        current = measure.mini_batch(
            run.engine,
            run.network,
            run.data,
            batches=run.config.noise.batches,
            batch_size=online.measured_size(run.config),
            seed=derive_seed(run.config.seed, "noise", stage.stage),
        )
        current = run.engine.ranks.broadcast(current)  # ranks that round apart would part for good
        if not math.isfinite(current.variance):
            raise UserError(
                f"C² is {current.variance} at the start of stage {stage.stage}; a smaller"
                " learning_rate, or engine.precision=fp32, may help. The last good checkpoint is of"
                f" epoch {progress.epoch}"
            )
        progress.reference = progress.reference or current
        progress.average = Average.starting(current)
        progress.applied = control.decide(
            run.config, stage, progress.reference, current, progress.applied
        )
    return progress.applied, progress.average


def _train_epoch(
    run: Training,
    epoch: int,
    applied: Applied,
    bar: ProgressBar,
    check_stop: Callable[[], None],
) -> Epoch:
    started = time.perf_counter()
    index_batches = epoch_batches(run.data.n, applied.batch_size, run.config.seed, epoch)
    plan = Online.of_epoch(run.config, applied.batch_size)
    ranks, seed = run.engine.ranks, derive_seed(run.config.seed, "epoch", epoch)
    batches = run.data.train_batches(ranks.share(index_batches), seed)
    totals = torch.zeros(2, device=run.engine.device)
    noise: Tensor = torch.zeros(2, dtype=torch.float64, device=run.engine.device)
    shares: list[int] = []  # of each batch, as it reached the model
    before: Batch | None = None
    for update, (index, batch) in enumerate(zip(index_batches, batches, strict=True)):
        check_stop()
        if update in plan.positions:
            noise += online.pair(run.engine, run.network, plan.parts(batch, before, ranks))
        totals += run.engine.step(run.network, run.optimizer, batch, range(len(index)))
        before = batch
        shares.append(len(batch[1]))
        bar.advance(len(index))
    sizes = ranks.sum_(torch.tensor(shares))  # fails where a rank has left; a GPU would wait for it
    samples = int(sizes.sum())
    loss, correct = (total / samples for total in ranks.sum_(totals.double()).tolist())
    variances, gradient_squares = noise.tolist()
    return Epoch(
        loss=loss,
        accuracy=correct,
        updates=len(index_batches),
        samples=samples,
        learning_rate=optim.learning_rate(run.optimizer),
        batch_size=int(sizes.max()),
        seconds=time.perf_counter() - started,
        variances=variances,
        gradient_squares=gradient_squares,
        pairs=len(plan.positions),
    )


def _not_finite(
    name: str, value: float, trained: Epoch, epoch: int, stage: Stage, progress: Progress
) -> str:
    return (
        f"the {name} is {value} in epoch {epoch} (stage {stage.stage},"
        f" η {trained.learning_rate:.4g}, b {trained.batch_size}); a smaller learning_rate may"
        f" help. The last good checkpoint is of epoch {progress.epoch}"
    )
