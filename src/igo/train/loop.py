"""The training loop: train the plan's epochs, with one record for each finished epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from igo.ground.errors import Outside, UserError, first_line
from igo.ground.files import Record
from igo.ground.seeds import derive_seed
from igo.method import batches
from igo.method.plan import Stage
from igo.method.sampler import BatchSampler
from igo.method.schedule import Schedule
from igo.train import batchnorm, control, measure, micro_batch, on_device
from igo.train.epoch import NotFinite, train_epoch
from igo.train.record import record_of
from igo.train.state import Epoch, Progress, Training, Watcher

LEAST_SCALE = 2.0**-20  # of an fp16 loss; it starts at 2^16 and is halved at each overflow


def train(
    run: Training,
    progress: Progress,
    bar: Watcher,
    epoch_done: Callable[[Record], None],
    check_stop: Callable[[], None],
) -> None:
    """Train from ``progress`` to the end of the plan, and update ``progress``.

    ``check_stop`` is called before each update and may raise to end the run.
    """
    run.network.train()
    sampler, schedule = _sampler(run, progress), None
    for epoch in sampler.epochs():
        try:
            started = time.perf_counter()
            schedule = _begin_epoch(run, sampler, schedule, progress, bar)
            trained = train_epoch(run, sampler, schedule, bar, check_stop)
            record = _end_epoch(run, sampler, trained, progress)
            record["seconds"] = time.perf_counter() - started
        except NotFinite as error:
            raise UserError(_not_finite(run, sampler, error, progress)) from None
        except (RuntimeError, MemoryError) as error:
            if str(error).startswith("DataLoader worker"):
                ended = first_line(error).rstrip(". ")
                raise Outside(f"{ended}; the same command continues") from None
            if not micro_batch.is_exhausted(error):
                raise
            raise Outside(_out_of_memory(run, sampler, epoch)) from None
        progress.records.append(record)
        epoch_done(record)
        bar.end_epoch(record)


def _sampler(run: Training, progress: Progress) -> BatchSampler:
    """The sampler of the run's plan, at the end of the last whole epoch."""
    ranks = run.engine.ranks
    sampler = BatchSampler(
        run.plan, range(run.data.n), seed=run.config.seed, rank=ranks.rank, ranks=ranks.size
    )
    _go_to(progress, sampler)
    return sampler


def _begin_epoch(
    run: Training,
    sampler: BatchSampler,
    schedule: Schedule | None,
    progress: Progress,
    bar: Watcher,
) -> Schedule:
    """Measure C² if the plan needs it, and return the schedule that trains the epoch."""
    _measure(run, progress)
    if schedule is None:
        schedule = Schedule(run.optimizer, sampler)
    place = sampler.plan.at(sampler.updates + 1)
    suffix = run.engine.ranks.seed_suffix
    torch.manual_seed(derive_seed(run.config.seed, "dropout", place.epoch, *suffix))
    bar.begin_epoch(place.epoch, _aim(run, place.stage, progress))
    return schedule


def _end_epoch(run: Training, sampler: BatchSampler, trained: Epoch, progress: Progress) -> Record:
    """Evaluate, update ``progress`` and make the record; a failed evaluation changes nothing."""
    _check_finite(run, trained)
    place = sampler.plan.at(sampler.updates)
    batchnorm.average(run.network, run.engine.ranks)
    evaluated = _evaluate(run, place.epoch)
    progress.epoch, progress.updates = place.epoch, progress.updates + trained.updates
    progress.samples += trained.samples
    delta = _aim(run, place.stage, progress)
    return record_of(run, place.stage, delta, trained, evaluated, progress)


def _aim(run: Training, stage: Stage, progress: Progress) -> float | None:
    """δ_m of a stage with the C² of the start of training; None if it is unknown by then."""
    assert progress.reference is not None
    return control.aim(run.config, stage, progress.reference)


def _go_to(progress: Progress, sampler: BatchSampler) -> None:
    """Set the sampler to the end of the last whole epoch."""
    sampler.load_state_dict({**sampler.state_dict(), "updates": progress.updates})


def _evaluate(run: Training, epoch: int) -> Record:
    """Loss and accuracy on the test set and on validation images, if there are some.

    Both are None in an epoch that is not evaluated. The last epoch always is.
    """
    due = epoch % run.config.evaluate_every == 0 or epoch == run.plan.epochs
    splits = {"test": run.data.test_batches}
    if run.config.dataset.validation:
        splits["validation"] = run.data.validation_batches
    values: Record = {}
    for name, stream in splits.items():
        loss, accuracy = None, None
        if due:
            loss, accuracy = run.engine.evaluate(run.network, stream(run.engine.ranks))
        values |= {f"{name}/loss": loss, f"{name}/accuracy": accuracy}
    return values


def _measure(run: Training, progress: Progress) -> None:
    """Measure C² at the start of training."""
    if progress.reference is not None:
        return
    reference = measure.mini_batch(
        run.engine,
        run.network,
        run.data,
        batches=run.config.noise.batches,
        batch_size=measure.size_at_start(run.config),
        seed=derive_seed(run.config.seed, "noise", 1),
    )
    progress.reference = run.engine.ranks.broadcast(reference)  # rounding may differ between ranks
    if not math.isfinite(reference.variance):
        raise UserError(
            f"C² is {reference.variance} at the start of training; a smaller learning_rate, or"
            " engine.precision=fp32, may help"
        )


def _check_finite(run: Training, trained: Epoch) -> None:
    variance = trained.noise.variance if trained.noise else 0.0
    for name, value in (("training loss", trained.loss), ("C²", variance)):
        if not math.isfinite(value):
            raise NotFinite(f"the {name} is {value}")
    if not torch.stack([p.isfinite().all() for p in run.network.parameters()]).all():
        raise NotFinite("a parameter is not finite at the end")
    if run.engine.scaler.is_enabled() and run.engine.scaler.get_scale() < LEAST_SCALE:
        raise NotFinite("the gradient overflows fp16 at any scale of the loss")


def _not_finite(run: Training, sampler: BatchSampler, error: NotFinite, progress: Progress) -> str:
    place = sampler.plan.at(sampler.updates)
    stage, delta = place.stage, _aim(run, place.stage, progress)
    level = "" if delta is None else f", δ {delta:.4g}"
    return (
        f"{error} in epoch {place.epoch} (stage {stage.stage}, η {stage.eta_m:.4g}, b"
        f" {stage.b_m:.4g}{level}); a smaller learning_rate or engine.precision=fp32 may"
        f" help. The last good checkpoint is of epoch {progress.epoch}"
    )


def _out_of_memory(run: Training, sampler: BatchSampler, epoch: int) -> str:
    largest = batches.sizes(run.plan.n, sampler.plan.batches_of_epoch(epoch))[0]
    at_once = min(run.engine.micro_batch_size, max(largest, on_device.TEST_BATCH))
    return (
        f"out of memory in epoch {epoch} with up to {at_once:,} samples at once; unless another"
        f" program takes it, set engine.micro_batch_size={max(at_once // 2, 1)} (another run:"
        " BatchNorm sees the parts)"
    )
