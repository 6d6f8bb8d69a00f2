"""The training loop: train the plan's epochs, with one record for each finished epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, islice

import numpy as np
import torch

from igo.config.schema import Config
from igo.ground.errors import Outside, UserError, first_line
from igo.ground.files import Record
from igo.ground.seeds import derive_seed
from igo.method import batches
from igo.method.plan import Stage
from igo.method.sampler import BatchSampler
from igo.method.schedule import Schedule
from igo.noise import noise
from igo.noise.noise import Noise
from igo.train import measure, micro_batch, on_device
from igo.train.engine import average_statistics
from igo.train.measure import Online
from igo.train.on_device import Batch
from igo.train.state import Epoch, Progress, Training, Watcher

LEAST_SCALE = 2.0**-20  # of an fp16 loss; it starts at 2^16 and is halved at each overflow


class NotFinite(ArithmeticError):
    """A number of the training is not finite; the message says which."""


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
    ranks = run.engine.ranks
    sampler = BatchSampler(
        run.plan, range(run.data.n), seed=run.config.seed, rank=ranks.rank, ranks=ranks.size
    )
    sampler.load_state_dict({**sampler.state_dict(), "updates": progress.updates})
    schedule = None
    for epoch in sampler.epochs():
        try:
            started = time.perf_counter()
            _begin_epoch(run, sampler, progress, bar)
            schedule = schedule or Schedule(run.optimizer, sampler)
            trained = train_epoch(run, sampler, schedule, bar, check_stop)
            record = _end_epoch(run, sampler, trained, progress)
            record["seconds"] = time.perf_counter() - started
        except NotFinite as error:
            raise UserError(_not_finite(run, sampler, error, progress)) from None
        except (RuntimeError, MemoryError) as error:
            if micro_batch.is_exhausted(error):
                raise Outside(_out_of_memory(run, sampler, epoch)) from None
            if str(error).startswith("DataLoader worker"):
                ended = first_line(error).rstrip(". ")
                raise Outside(f"{ended}; the same command continues") from None
            ranks.check_lost(error)
            raise
        progress.records.append(record)
        epoch_done(record)
        bar.end_epoch(record)


def _begin_epoch(run: Training, sampler: BatchSampler, progress: Progress, bar: Watcher) -> None:
    """Measure C² at the start of training, and seed dropout."""
    if progress.reference is None:
        _measure(run, progress)
    place = sampler.plan.at(sampler.updates + 1)
    suffix = run.engine.ranks.seed_suffix
    torch.manual_seed(derive_seed(run.config.seed, "dropout", place.epoch, *suffix))
    bar.begin_epoch(place.epoch, _aim(run, place.stage, progress))


def _measure(run: Training, progress: Progress) -> None:
    reference = measure.mini_batch(
        run.engine,
        run.network,
        run.data,
        batches=run.config.noise.batches,
        batch_size=measure.size_at_start(run.config),
        seed=derive_seed(run.config.seed, "noise", 1),
    )
    progress.reference = reference
    if not math.isfinite(reference.variance):
        raise UserError(
            f"C² is {reference.variance} at the start of training; a smaller learning_rate, or"
            " engine.precision=fp32, may help"
        )


def train_epoch(
    run: Training,
    sampler: BatchSampler,
    schedule: Schedule,
    bar: Watcher,
    check_stop: Callable[[], None],
) -> Epoch:
    """Make the updates of the sampler's next epoch; C² is measured before the first.

    Raises:
        NotFinite: a loss is not finite. A CPU notices at once; a GPU, for which the host would
            wait, and several processes notice at the end of the epoch.
    """
    started = time.perf_counter()
    seed, ranks, engine = run.config.seed, run.engine.ranks, run.engine
    drawn = [torch.tensor(indices, dtype=torch.int64) for indices in sampler]
    epoch, k = sampler.plan.at(sampler.updates + 1).epoch, len(drawn)
    stream = run.data.train_batches(
        drawn, derive_seed(seed, "epoch", epoch), engine.micro_batch_size
    )
    pieces = Online.of_epoch(run.config.noise, run.data.n, k, ranks.size)
    first = list(islice(stream, pieces.batches))
    measured = measure.online(engine, run.network, pieces, first, run.data.n)
    totals = torch.zeros(k, 2, device=engine.device)  # losses and correct answers
    at_once = engine.device.type == "cpu" and ranks.size == 1
    shares: list[int] = []  # this rank's samples of each batch that reached the model
    skipped, scale = 0, engine.scaler.get_scale()
    for _, batch in zip(drawn, chain(_emptied(first), stream), strict=True):
        check_stop()
        update = schedule.step()
        made = engine.step(run.network, run.optimizer, batch, update.batch_size)
        totals[update.batch - 1] = made
        if at_once and not math.isfinite(made[0].item()):
            raise NotFinite(f"the loss is not finite at update {update.batch}")
        if engine.scaler.is_enabled():  # fp16: it halves the scale where it skips an update
            before, scale = scale, engine.scaler.get_scale()
            skipped += scale < before
        shares.append(len(batch[1]))
        bar.advance(update.batch_size)
    sizes = ranks.sum_(torch.tensor(shares))  # fails if a rank has left; reading a GPU would wait
    rows, samples = totals.cpu(), int(sizes.sum())
    wrong = ranks.sum_((~rows[:, 0].isfinite()).double()).nonzero()
    if len(wrong):
        raise NotFinite(f"the loss is not finite at update {int(wrong[0]) + 1}")
    sums = torch.from_numpy(np.add.accumulate(rows.numpy(), axis=0)[-1])  # one after the other
    loss, correct = (total / samples for total in ranks.sum_(sums.double()).tolist())
    return Epoch(
        loss=loss,
        accuracy=correct,
        updates=k,
        skipped=skipped,
        samples=samples,
        learning_rate=run.optimizer.param_groups[0]["lr"],
        batch_size=samples / k,
        seconds=time.perf_counter() - started,
        noise=measured,
    )


def _emptied(batches: list[Batch]) -> Iterator[Batch]:
    """Yield the batches in order, and remove each from the list, so that its memory is freed."""
    batches.reverse()
    while batches:
        yield batches.pop()


def _end_epoch(run: Training, sampler: BatchSampler, trained: Epoch, progress: Progress) -> Record:
    """Evaluate, update ``progress`` and make the record; a failed evaluation changes nothing."""
    _check_finite(run, trained)
    place = sampler.plan.at(sampler.updates)
    average_statistics(run.network, run.engine.ranks)
    evaluated = _evaluate(run, place.epoch)
    progress.epoch, progress.updates = place.epoch, progress.updates + trained.updates
    progress.samples += trained.samples
    return _record(run, place.stage, trained, evaluated, progress)


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


def _record(
    run: Training, stage: Stage, trained: Epoch, evaluated: Record, progress: Progress
) -> Record:
    """The record of a finished epoch, as docs/training.md lists it, without its seconds."""
    delta = _aim(run, stage, progress)
    skipped = {"skipped": trained.skipped} if run.engine.scaler.is_enabled() else {}
    return {
        "epoch": progress.epoch,
        "stage": stage.stage,
        "updates": progress.updates,
        **skipped,
        "samples": progress.samples,
        "eta_m": trained.learning_rate,
        "b_m": trained.batch_size,
        "beta_m": run.optimizer.param_groups[0].get("momentum"),
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
    measured, reference = trained.noise, progress.reference
    known = run.config.optimizer.formula

    def level(variance: float | None) -> float | None:
        if not known or measured is None or variance is None or math.isinf(variance):
            return None
        if delta == 0:  # gradient descent on f itself: a batch is all samples
            return 0.0
        beta = run.optimizer.param_groups[0].get("momentum") or 0.0
        at_bound = replace(measured, variance=variance)
        return noise_level(run.config, trained.learning_rate, trained.batch_size, beta, at_bound)

    low, high = measured.interval if measured and measured.interval else (None, None)
    return {
        "delta_measured": level(measured.variance if measured else None),
        "delta_measured_low": level(low),
        "delta_measured_high": level(high),
        "gradient_variance": measured.variance if measured else None,
        "gradient_norm": measured.gradient_norm if measured else None,
        "noise_scale": measured.noise_scale if measured else None,
        "variance_pieces": measured.batches if measured else 0,
        "variance_batch_size": measured.batch_size if measured else None,
        "reference_variance": reference.variance if reference else None,
        "reference_gradient_norm": reference.gradient_norm if reference else None,
    }


def _aim(run: Training, stage: Stage, progress: Progress) -> float | None:
    """δ_m of a stage with the C² and ‖∇f‖ of the start of training; None if no δ is known."""
    config, reference = run.config, progress.reference
    if stage.phi_m == 0:  # gradient descent on f itself
        return 0.0
    if reference is None or not config.optimizer.formula:
        return None
    return noise_level(config, stage.eta_m, stage.b_m, config.optimizer.momentum, reference)


def noise_level(config: Config, eta: float, b: float, momentum: float, measured: Noise) -> float:
    """δ of the configured optimizer, which has one, at a measured C² and ‖∇f‖."""
    return noise.noise_level(
        eta,
        b,
        measured.variance,
        optimizer=config.optimizer.name,
        momentum=momentum,
        gradient_norm=measured.gradient_norm,
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
