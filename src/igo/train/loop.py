"""The training loop: walk the plan stage by stage, one record for each finished epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from igo.errors import UserError
from igo.files import Record
from igo.method.plan import Plan, Stage
from igo.method.sampler import BatchSampler
from igo.method.schedule import Schedule
from igo.seeds import derive_seed
from igo.train import batchnorm, control, measure, micro_batch, optim, recovery
from igo.train.control import Applied
from igo.train.epoch import train_epoch
from igo.train.finite import NotFinite
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
        UserError: a loss, gradient or C² is not finite; one sample does not fit in memory.
    """
    run.network.train()
    ranks = run.engine.ranks
    sampler = BatchSampler(run.plan, run.config.seed, rank=ranks.rank, ranks=ranks.size)
    _go_to(progress, sampler, run)
    schedule: Schedule | None = None
    for epoch in sampler.epochs():
        stage = run.plan.stage_of_epoch(epoch)
        run = recovery.with_parts_of(run, progress.micro_batch_size)
        while True:
            before = recovery.Snapshot.of(run, progress)
            try:
                started = time.perf_counter()
                applied = _measure_and_decide(run, stage, epoch, progress)
                if control.follows_noise(run.config):
                    sampler.plan = _as_applied(sampler.plan, stage, applied)
                if schedule is None:
                    noise = progress.reference if run.plan.by_momentum else None
                    schedule = Schedule(run.optimizer, sampler, noise=noise)
                record = _one_epoch(run, sampler, schedule, applied, progress, bar, check_stop)
                record["seconds"] = time.perf_counter() - started
                break
            except (RuntimeError, MemoryError) as error:
                if not micro_batch.is_exhausted(error):
                    raise
                reason = str(error) or type(error).__name__
            # Here, not above, where the traceback holds on to the tensors of the failed try.
            largest = run.engine.micro_batch_size
            k = progress.applied.batches if progress.applied else stage.batches
            before.restore(run, progress)  # and what the failed try had in memory is free
            _go_to(progress, sampler, run)
            schedule = None
            size = recovery.smaller(run, k, reason)
            run = recovery.with_parts_of(run, size)
            progress.micro_batch_size = size
            shrunk(largest, size)
        progress.records.append(record)
        epoch_done(record)
        bar.end_epoch(record)


def _one_epoch(
    run: Training,
    sampler: BatchSampler,
    schedule: Schedule,
    applied: Applied,
    progress: Progress,
    bar: Watcher,
    check_stop: Callable[[], None],
) -> Record:
    """Train, evaluate, record. ``progress`` moves on when all succeeded."""
    place = sampler.plan.at(sampler.updates + 1)
    epoch, stage = place.epoch, place.stage
    torch.manual_seed(derive_seed(run.config.seed, "dropout", epoch, *run.engine.ranks.own))
    bar.begin_epoch(epoch, applied)
    try:
        trained = train_epoch(run, sampler, schedule, bar, check_stop)
        _check_finite(run, trained)
    except NotFinite as error:
        raise UserError(_not_finite(error, applied, epoch, stage, progress)) from None

    batchnorm.average(run.network, run.engine.ranks)
    evaluated = _evaluate(run, epoch)

    progress.epoch, progress.updates = epoch, progress.updates + trained.updates
    progress.samples += trained.samples
    return {
        **_where_and_with_what(run, stage, applied, trained, progress),
        **_noise(run, applied, trained, progress),
        "train/loss": trained.loss,
        "train/accuracy": trained.accuracy,
        **evaluated,
        "skipped": trained.skipped,
        "images_per_second": trained.samples / trained.seconds,
    }


def _go_to(progress: Progress, sampler: BatchSampler, run: Training) -> None:
    """Bring the sampler to the end of the last whole epoch.

    The sampler counts skipped updates too, and past stages as planned: with feedback they may have
    had other k_m, which changes the count and no batch to come.
    """
    plan, epoch = run.plan, progress.epoch
    if control.follows_noise(run.config) and epoch and progress.applied is not None:
        plan = _as_applied(plan, plan.stage_of_epoch(epoch), progress.applied)
    sampler.plan = plan
    updates = sum(plan.batches_of_epoch(number) for number in range(1, epoch + 1))
    sampler.load_state_dict({**sampler.state_dict(), "updates": updates})


def _as_applied(plan: Plan, stage: Stage, applied: Applied) -> Plan:
    return plan.changed(stage.stage, applied.batches, applied.learning_rate)


def _evaluate(run: Training, epoch: int) -> Record:
    """Loss and accuracy on the test set and, where some are held out, the validation images.

    None for each in an epoch that is not to be evaluated; the last one always is.
    """
    due = epoch % run.config.evaluate_every == 0 or epoch == run.plan.epochs
    splits = {"test": run.data.test_batches}
    if run.config.dataset.validation:
        splits["validation"] = run.data.validation_batches
    found: Record = {}
    for name, stream in splits.items():
        loss, accuracy = None, None
        if due:
            loss, accuracy = run.engine.evaluate(run.network, stream(run.engine.ranks))
        found |= {f"{name}/loss": loss, f"{name}/accuracy": accuracy}
    return found


def _measure_and_decide(run: Training, stage: Stage, epoch: int, progress: Progress) -> Applied:
    """At the start of a stage decide what it trains with, by C² as it is where the plan asks."""
    if epoch != stage.first_epoch and progress.applied is not None:
        return progress.applied
    current = progress.reference
    if current is None or control.follows_noise(run.config):
        current = measure.mini_batch(
            run.engine,
            run.network,
            run.data,
            batches=run.config.noise.batches,
            batch_size=measure.size_at_start(run.config, progress.applied),
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
    progress.applied = control.decide(
        run.config, stage, progress.reference, current, progress.applied
    )
    return progress.applied


def _where_and_with_what(
    run: Training, stage: Stage, applied: Applied, trained: Epoch, progress: Progress
) -> Record:
    return {
        "epoch": progress.epoch,
        "stage": stage.stage,
        "updates": progress.updates,
        "samples": progress.samples,
        "eta_m": trained.learning_rate,
        "b_m": trained.batch_size,
        "beta_m": optim.momentum(run.optimizer),
        "gamma_m": stage.gamma_m,
        # a GPU's learning rate is a float32: δ is that of the rate that was applied
        "delta_m": applied.delta * (trained.learning_rate / applied.learning_rate),
    }


def _noise(run: Training, applied: Applied, trained: Epoch, progress: Progress) -> Record:
    """δ and C² at this epoch's start, and the C² that the planned δ_m is of."""
    found, reference = trained.noise, progress.reference

    def level(variance: float | None) -> float | None:
        if found is None or variance is None or math.isinf(variance):
            return None
        if applied.delta == 0:  # gradient descent on f itself: a batch is all samples
            return 0.0
        eta, b, beta = trained.learning_rate, trained.batch_size, applied.momentum
        return control.level(run.config, eta, b, beta, replace(found, variance=variance))

    low, high = found.interval if found and found.interval else (None, None)
    return {
        "delta_measured": level(found.variance if found else None),
        "delta_measured_low": level(low),
        "delta_measured_high": level(high),
        "gradient_variance": found.variance if found else None,
        "gradient_norm": found.gradient_norm if found else None,
        "noise_scale": found.noise_scale if found else None,
        "variance_pieces": found.batches if found else 0,
        "variance_batch_size": found.batch_size if found else None,
        "reference_variance": reference.variance if reference else None,
        "reference_gradient_norm": reference.gradient_norm if reference else None,
    }


def _check_finite(run: Training, trained: Epoch) -> None:
    """See that an epoch's sums are numbers.

    Raises:
        NotFinite: naming what is not.
    """
    variance = trained.noise.variance if trained.noise else 0.0
    for name, value in (("training loss", trained.loss), ("C²", variance)):
        if not math.isfinite(value):
            raise NotFinite(f"the {name} is {value}")
    if run.engine.scaler.is_enabled() and run.engine.scaler.get_scale() < LEAST_SCALE:
        raise NotFinite("the gradient overflows fp16 at any scale of the loss")


def _not_finite(
    what: NotFinite, applied: Applied, epoch: int, stage: Stage, progress: Progress
) -> str:
    return (
        f"{what} in epoch {epoch} (stage {stage.stage}, η {applied.learning_rate:.4g}, b"
        f" {applied.batch_size:.4g}, δ {applied.delta:.4g}); a smaller learning_rate or"
        " engine.precision=fp32 may help, and engine.non_finite=skip passes single such updates"
        f" over. The last good checkpoint is of epoch {progress.epoch}"
    )
