"""The training loop: walk the plan stage by stage, one record for each finished epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from igo.errors import UserError
from igo.files import Record
from igo.method.plan import Stage
from igo.method.sampler import BatchSampler
from igo.method.schedule import Schedule
from igo.seeds import derive_seed
from igo.train import batchnorm, control, measure, micro_batch, optim, recovery
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
    follows = control.feedback(run.config)
    sampler = BatchSampler(
        run.plan, run.config.seed, rank=ranks.rank, ranks=ranks.size, feedback=follows
    )
    progress.feedback = (progress.feedback or sampler.state_dict()["feedback"]) if follows else None
    _go_to(progress, sampler, run)
    schedule: Schedule | None = None
    for epoch in sampler.epochs():
        run = recovery.with_parts_of(run, progress.micro_batch_size)
        while True:
            before = recovery.Snapshot.of(run, progress)
            try:
                started = time.perf_counter()
                _measure(run, sampler, progress)
                if schedule is None:
                    noise = progress.reference if run.plan.by_momentum else None
                    schedule = Schedule(run.optimizer, sampler, noise=noise)
                record = _one_epoch(run, sampler, schedule, progress, bar, check_stop)
                record["seconds"] = time.perf_counter() - started
                break
            except (RuntimeError, MemoryError) as error:
                if not micro_batch.is_exhausted(error):
                    raise
                reason = str(error) or type(error).__name__
            # Here, not above, where the traceback holds on to the tensors of the failed try.
            largest = run.engine.micro_batch_size
            k = sampler.plan.batches_of_epoch(epoch)
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
    progress: Progress,
    bar: Watcher,
    check_stop: Callable[[], None],
) -> Record:
    """Train, evaluate, record. ``progress`` moves on when all succeeded."""
    place = sampler.plan.at(sampler.updates + 1)
    epoch, stage = place.epoch, place.stage
    assert progress.reference is not None
    delta = control.aim(run.config, sampler.plan, stage, progress.reference)
    torch.manual_seed(derive_seed(run.config.seed, "dropout", epoch, *run.engine.ranks.own))
    bar.begin_epoch(epoch, delta)
    try:
        trained = train_epoch(run, sampler, schedule, bar, check_stop)
        _check_finite(run, trained)
    except NotFinite as error:
        eta = schedule.learning_rate or stage.eta_m
        where = (
            f"epoch {epoch} (stage {stage.stage}, η {eta:.4g}, b {stage.b_m:.4g}, δ {delta:.4g})"
        )
        raise UserError(_not_finite(error, where, progress)) from None

    batchnorm.average(run.network, run.engine.ranks)
    evaluated = _evaluate(run, epoch)

    progress.epoch, progress.updates = epoch, progress.updates + trained.updates
    progress.samples += trained.samples
    return {
        **_where_and_with_what(run, stage, trained, progress),
        # a GPU's learning rate is a float32: δ is that of the rate that was applied
        "delta_m": delta * (trained.learning_rate / (schedule.learning_rate or stage.eta_m)),
        **_noise(run, delta, trained, progress),
        "train/loss": trained.loss,
        "train/accuracy": trained.accuracy,
        **evaluated,
        "skipped": trained.skipped,
        "images_per_second": trained.samples / trained.seconds,
    }


def _go_to(progress: Progress, sampler: BatchSampler, run: Training) -> None:
    """Bring the sampler to the end of the last whole epoch; it counts skipped updates too."""
    state, epoch, feedback = sampler.state_dict(), progress.epoch, progress.feedback
    if feedback is not None:
        rows, first = feedback["rows"], run.plan.stages[0]
        reached = run.plan.stage_of_epoch(epoch).stage if epoch else 0
        if len(rows) < reached:  # an old checkpoint: it knows the newest stage, and needs no other
            rows = [[first.batches, first.eta_m], *rows * (reached - 1)]
        state["feedback"] = {**feedback, "rows": rows}
    sampler.load_state_dict({**state, "updates": 0})
    sampler.updates = sum(sampler.plan.batches_of_epoch(one) for one in range(1, epoch + 1))


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


def _measure(run: Training, sampler: BatchSampler, progress: Progress) -> None:
    """C² at the start of training, and of each stage where the plan follows it."""
    if progress.reference is not None and not sampler.awaits_noise:
        return
    stage = sampler.plan.at(sampler.updates + 1).stage
    before = sampler.plan.at(sampler.updates).stage.batches if sampler.updates else None
    current = measure.mini_batch(
        run.engine,
        run.network,
        run.data,
        batches=run.config.noise.batches,
        batch_size=measure.size_at_start(run.config, before),
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
    if progress.reference.variance <= 0 and (run.plan.by_momentum or sampler.awaits_noise):
        raise UserError("C² is 0 at the start of training: there is no noise to follow")
    if sampler.awaits_noise:
        sampler.measured(current)
        progress.feedback = sampler.state_dict()["feedback"]


def _where_and_with_what(run: Training, stage: Stage, trained: Epoch, progress: Progress) -> Record:
    return {
        "epoch": progress.epoch,
        "stage": stage.stage,
        "updates": progress.updates,
        "samples": progress.samples,
        "eta_m": trained.learning_rate,
        "b_m": trained.batch_size,
        "beta_m": optim.momentum(run.optimizer),
        "gamma_m": stage.gamma_m,
    }


def _noise(run: Training, delta: float, trained: Epoch, progress: Progress) -> Record:
    """δ and C² at this epoch's start, and the C² that the planned δ_m is of."""
    found, reference = trained.noise, progress.reference

    def level(variance: float | None) -> float | None:
        if found is None or variance is None or math.isinf(variance):
            return None
        if delta == 0:  # gradient descent on f itself: a batch is all samples
            return 0.0
        eta, b, beta = trained.learning_rate, trained.batch_size, optim.momentum(run.optimizer)
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


def _not_finite(what: NotFinite, where: str, progress: Progress) -> str:
    return (
        f"{what} in {where}; a smaller learning_rate or engine.precision=fp32 may help, and"
        " engine.non_finite=skip passes single such updates over. The last good checkpoint is of"
        f" epoch {progress.epoch}"
    )
