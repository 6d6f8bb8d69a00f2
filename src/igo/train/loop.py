"""The training loop: walk the plan stage by stage, one record for each finished epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from igo.data.datasets import Batch, epoch_batches
from igo.errors import UserError
from igo.files import Record
from igo.method.schedule import Stage
from igo.seeds import derive_seed
from igo.train import batchnorm, control, measure, online, optim, recovery
from igo.train.control import Applied
from igo.train.finite import NotFinite, Tally
from igo.train.online import Average, Online
from igo.train.state import Epoch, Progress, Training, Watcher

LEAST_SCALE = 2.0**-20  # of an fp16 loss; 2^16 to begin with, halved at each overflow


def train(
    run: Training,
    progress: Progress,
    bar: Watcher,
    epoch_done: Callable[[Record], None],
    check_stop: Callable[[], None],
    shrunk: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Train from where ``progress`` stands to the end of the plan.

    Args:
        run: plan, data, model, optimizer, engine.
        progress: is brought forward epoch by epoch.
        bar: told of each update.
        epoch_done: called with the record of each finished epoch.
        check_stop: called before each update; may raise to end the run.
        shrunk: told of micro-batches that did not fit in memory, and of those from here on.

    Raises:
        UserError: a loss, gradient or C² is not finite; one sample does not fit in recovery.
    """
    run.network.train()
    for epoch, stage in run.plan.epochs_of_stages(progress.epoch):
        run = recovery.with_parts_of(run, progress.micro_batch_size)
        while True:
            before = recovery.Snapshot.of(run, progress)
            try:
                record = _one_epoch(run, stage, epoch, progress, bar, check_stop)
                break
            except (RuntimeError, MemoryError) as error:
                if not recovery.is_exhausted(error):
                    raise
                reason = str(error) or type(error).__name__
            # Here, not above, where the traceback holds on to the tensors of the failed try.
            largest = run.engine.micro_batch_size
            batch_size = progress.applied.batch_size if progress.applied else stage.b_m
            size = recovery.smaller(run, batch_size, reason)
            before.restore(run, progress)
            run = recovery.with_parts_of(run, size)
            progress.micro_batch_size = size
            shrunk(largest, size)
        progress.records.append(record)
        epoch_done(record)
        bar.end_epoch(record)


def _one_epoch(
    run: Training,
    stage: Stage,
    epoch: int,
    progress: Progress,
    bar: Watcher,
    check_stop: Callable[[], None],
) -> Record:
    """Train and evaluate, and make the record. ``progress`` moves on when all of it succeeded."""
    started = time.perf_counter()
    applied, average = _begin(run, stage, epoch, progress)
    optim.apply(run.optimizer, applied.learning_rate, applied.momentum, run.config.optimizer)
    torch.manual_seed(derive_seed(run.config.seed, "dropout", epoch, *run.engine.ranks.own))
    run.engine.begin_epoch(applied.batch_size, run.optimizer)
    bar.begin_epoch(epoch, applied)
    try:
        trained = _train_epoch(run, epoch, applied, bar, check_stop)
    except NotFinite as error:
        what = f"the loss or its gradient is not finite at update {error.update}"
        raise UserError(_not_finite(what, applied, epoch, stage, progress)) from None
    average.add(trained.variances, trained.gradient_squares, trained.pairs)
    for name, value in (("training loss", trained.loss), ("C²", average.variance)):
        if not math.isfinite(value):
            what = f"the {name} is {value}"
            raise UserError(_not_finite(what, applied, epoch, stage, progress))
    if run.engine.scaler.is_enabled() and run.engine.scaler.get_scale() < LEAST_SCALE:
        what = "the gradient overflows fp16 at any scale of the loss"
        raise UserError(_not_finite(what, applied, epoch, stage, progress))
    batchnorm.average(run.network, run.engine.ranks)
    tests = run.data.test_batches(run.engine.ranks)
    test_loss, test_accuracy = run.engine.evaluate(run.network, tests)
    progress.epoch, progress.updates = epoch, progress.updates + trained.updates
    progress.samples += trained.samples
    return {
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
        "skipped": trained.skipped,
        "images_per_second": trained.samples / trained.seconds,
        "seconds": time.perf_counter() - started,
    }


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
    bar: Watcher,
    check_stop: Callable[[], None],
) -> Epoch:
    started = time.perf_counter()
    index_batches = epoch_batches(run.data.n, applied.batch_size, run.config.seed, epoch)
    plan = Online.of_epoch(run.config, applied.batch_size)
    ranks, seed = run.engine.ranks, derive_seed(run.config.seed, "epoch", epoch)
    batches = run.data.train_batches(ranks.share(index_batches), seed)
    tally = Tally(len(index_batches), run.engine.device, run.engine.skip)
    pairs: list[Tensor] = []  # (2,) each, C² and ‖∇f‖²
    shares: list[int] = []  # of each batch, as it reached the model
    before: Batch | None = None
    for update, (index, batch) in enumerate(zip(index_batches, batches, strict=True)):
        check_stop()
        if update in plan.positions:
            pairs.append(online.pair(run.engine, run.network, plan.parts(batch, before, ranks)))
        tally.add(update, run.engine.step(run.network, run.optimizer, batch, range(len(index))))
        before = batch
        shares.append(len(batch[1]))
        bar.advance(len(index))
    sizes = ranks.sum_(torch.tensor(shares))  # fails where a rank has left; a GPU would wait for it
    sums, made = tally.sums(ranks)
    samples = int(sizes[made].sum())
    if not samples:
        raise NotFinite(1)
    loss, correct = (total / samples for total in ranks.sum_(sums.double()).tolist())
    if run.engine.skip:
        pairs = [pair for pair in pairs if pair.isfinite().all()]
    zeros = torch.zeros(2, dtype=torch.float64, device=run.engine.device)
    variances, gradient_squares = sum(pairs, zeros).tolist()
    return Epoch(
        loss=loss,
        accuracy=correct,
        updates=int(made.sum()),
        skipped=int((~made).sum()),
        samples=samples,
        learning_rate=optim.learning_rate(run.optimizer),
        batch_size=int(sizes.max()),
        seconds=time.perf_counter() - started,
        variances=variances,
        gradient_squares=gradient_squares,
        pairs=len(pairs),
    )


def _not_finite(what: str, applied: Applied, epoch: int, stage: Stage, progress: Progress) -> str:
    return (
        f"{what} in epoch {epoch} (stage {stage.stage}, η {applied.learning_rate:.4g}, b"
        f" {applied.batch_size}, δ {applied.delta:.4g}); a smaller learning_rate or"
        " engine.precision=fp32 may help, and engine.non_finite=skip passes single such updates"
        f" over. The last good checkpoint is of epoch {progress.epoch}"
    )
