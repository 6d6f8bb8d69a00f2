"""The training loop: train the plan's epochs, with one record for each finished epoch."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from igo.ground.errors import Outside, UserError
from igo.ground.files import Record
from igo.ground.ranks import Ranks
from igo.ground.seeds import derive_seed
from igo.loop.schedule import Schedule
from igo.noise.noise import Noise
from igo.noise.pairs import Pairs
from igo.train import on_device
from igo.train.engine import average_statistics
from igo.train.on_device import Batch
from igo.train.reference import reference_noise
from igo.train.training import Epoch, Progress, Training, Watcher, planned_delta, record_of

# The scale of an fp16 loss starts at 2^16 and is halved at each overflow. Below this it is no use.
LEAST_SCALE = 2.0**-20
# Parts of a RuntimeError's message when memory runs out: PyTorch's allocators, C++, cuBLAS and
# cuDNN, and oneDNN, which says no more.
EXHAUSTED = (
    "can't allocate memory",
    "Cannot allocate memory",
    "out of memory",
    "bad_alloc",
    "STATUS_ALLOC_FAILED",
    "could not create a memory object",
    "could not create a primitive",
    "could not execute a primitive",
)


class NotFinite(ArithmeticError):
    """A number of the training is not finite; the message says which."""


class Stream(Iterator[Batch]):
    """The parts of an epoch's batches, of which a twin sees those of the next batch ahead.

    ``samples`` are those of the parts that were taken.
    """

    def __init__(self, parts: Iterator[Batch]) -> None:
        self._parts, self._ahead = parts, deque[Batch]()
        self.samples = 0

    def __next__(self) -> Batch:
        images, labels = self._ahead.popleft() if self._ahead else next(self._parts)
        self.samples += len(labels)
        return images, labels

    def ahead(self, count: int) -> list[Batch]:
        """The next so many parts, which are still to come."""
        self._ahead.extend(islice(self._parts, count - len(self._ahead)))
        return [*self._ahead]


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
    config, plan, ranks = run.config, run.plan, run.engine.ranks
    run.network.train()
    for epoch in run.batches.epochs():
        try:
            start = time.perf_counter()
            if progress.reference is None:
                progress.reference = reference_noise(run)
            torch.manual_seed(derive_seed(config.seed, "dropout", epoch, *ranks.seed_suffix))
            first_row = plan.rows_of_epoch(epoch)[0]
            bar.begin_epoch(epoch, planned_delta(config, first_row, progress.reference))
            results = train_epoch(run, bar, check_stop, progress.twins)
            _check_finite(run, results, progress.reference)
            average_statistics(run.network, ranks)
            evaluation = _evaluate(run, epoch)
            progress.epoch = epoch
            progress.samples += sum(results.sizes)
            progress.twins = [*map(tuple, results.twins)]
            stage = plan.at(run.batches.updates).row
            record = record_of(run, stage, results, evaluation, progress)
            record["seconds"] = time.perf_counter() - start
            if run.engine.device.type == "cuda":
                record["max_memory_allocated"] = torch.cuda.max_memory_allocated()  # bytes
                record["max_memory_reserved"] = torch.cuda.max_memory_reserved()
        except NotFinite as error:
            raise UserError(_not_finite(run, error, progress)) from None
        except Outside:
            if ranks.size == 1:
                check_stop()  # The signal that ended a worker may have come here, too.
            raise
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or any(words in str(error) for words in EXHAUSTED):
                raise Outside(_out_of_memory(run, epoch)) from None
            ranks.check_lost(error)
            raise
        progress.records.append(record)
        epoch_done(record)
        bar.end_epoch(record)


def train_epoch(
    run: Training,
    bar: Watcher,
    check_stop: Callable[[], None],
    twins: Sequence[tuple[float, ...]] = (),
) -> Epoch:
    """Make the updates of the next epoch; ``twins`` are those of the epochs before.

    Raises:
        NotFinite: a loss is not finite. A CPU notices at once; a GPU, for which the host would
            wait, and several processes notice at the end of the epoch.
    """
    start = time.perf_counter()
    engine, updates = run.engine, run.batches.updates
    indices = [torch.tensor(part, dtype=torch.int64) for part in run.batches]
    epoch = run.plan.at(updates + 1).epoch
    k = run.plan.batches_of_epoch(epoch)
    seed = derive_seed(run.config.seed, "epoch", epoch)
    stream = Stream(run.data.train_batches(indices, seed))
    pairs = Pairs(run.network, k, updates, twins)
    parameters = [*run.network.parameters()]
    losses: list[Tensor] = []  # Each batch has its sum of losses and its correct answers.
    rates: list[float] = []
    shares: list[int] = []  # They are this rank's samples of each update.
    reads_losses = engine.device.type == "cpu" and engine.ranks.size == 1
    unit = torch.ones((), device=engine.device)
    scales = [engine.scaler.scale(unit)]  # In fp16 a scale is halved where an update is skipped.

    def next_gradient() -> None:
        size = run.plan.at(number + 1).batch_size
        engine.backward(run.network, stream.ahead(run.batches.parts_of(size)), size)

    for number in range(updates + 1, updates + k + 1):
        check_stop()
        taken = stream.samples
        size = run.plan.at(number).batch_size
        *sums, slope = engine.backward(run.network, _parts(run.schedule, stream), size, parameters)
        update = run.schedule.update
        rates.append(update.learning_rate)
        shares.append(stream.samples - taken)
        losses += sums
        if reads_losses and not math.isfinite(sums[0].item()):
            break  # _means will raise.
        scale = scales[-1] if engine.scaler.is_enabled() else None
        pairs.take(update.batch_size, slope, next_gradient, scale)
        engine.update(run.optimizer)
        scales.append(engine.scaler.scale(unit))
        bar.advance(update.batch_size)
    # This comes before the GPU is read: if a rank has left, it fails, but reading would wait for
    # ever.
    sizes = engine.ranks.sum_(torch.tensor(shares)).tolist()
    loss, accuracy = _means(losses, sum(sizes), engine.ranks)
    noise, newest_twins = pairs.noise(engine.ranks)
    return Epoch(
        loss=loss,
        accuracy=accuracy,
        skipped=int((torch.stack(scales).diff() < 0).sum()),
        rates=rates,
        sizes=sizes,
        seconds=time.perf_counter() - start,
        noise=noise,
        twins=newest_twins,
    )


def _parts(schedule: Schedule, stream: Iterator[Batch]) -> Iterator[Batch]:
    """Count each part of the next update, and yield it."""
    is_last = False
    while not is_last:
        is_last = schedule.step().is_last_part
        yield next(stream)


def _means(losses: list[Tensor], samples: int, ranks: Ranks) -> tuple[float, float]:
    """Mean loss and accuracy of an epoch over all ranks, from each batch's sums.

    Raises:
        NotFinite: a rank's loss is not finite.
    """
    rows = torch.stack(losses).view(-1, 2).cpu()
    faults = ranks.sum_((~rows[:, 0].isfinite()).double()).nonzero()
    if len(faults):
        raise NotFinite(f"the loss is not finite at update {int(faults[0]) + 1}")
    # NumPy adds one row after the other; the order of torch.sum differs from machine to machine.
    sums = torch.from_numpy(np.add.accumulate(rows.numpy(), axis=0)[-1])
    loss, correct = ranks.sum_(sums.double()).tolist()
    return loss / samples, correct / samples


def _evaluate(run: Training, epoch: int) -> Record:
    """Loss and accuracy on the test set and on validation images, if there are some.

    Both are None in an epoch that is not evaluated. The last epoch always is.
    """
    is_due = epoch % run.config.evaluate_every == 0 or epoch == run.plan.epochs
    values: Record = {}
    for subset in ("test", "validation") if run.config.dataset.validation else ("test",):
        loss, accuracy = None, None
        if is_due:
            stream = run.data.test_batches(run.engine.ranks, subset)
            loss, accuracy = run.engine.evaluate(run.network, stream)
        values |= {f"{subset}/loss": loss, f"{subset}/accuracy": accuracy}
    return values


def _check_finite(run: Training, results: Epoch, reference: Noise) -> None:
    variances = [noise.variance for noise in (results.noise, reference) if noise]
    scaler = run.engine.scaler
    fault = ""
    if not math.isfinite(sum(variances)):
        fault = f"C² is {sum(variances)}"
    elif not torch.stack([p.isfinite().all() for p in run.network.parameters()]).all():
        fault = "a parameter is not finite at the end"
    elif scaler.is_enabled() and scaler.get_scale() < LEAST_SCALE:
        fault = "the gradient overflows fp16 at any scale of the loss"
    if fault:
        raise NotFinite(fault)


def _not_finite(run: Training, error: NotFinite, progress: Progress) -> str:
    update = run.plan.at(max(run.batches.updates, 1))
    stage, delta = update.row, planned_delta(run.config, update.row, progress.reference)
    delta_text = "" if delta is None else f", δ {delta:.4g}"
    return (
        f"{error} in epoch {update.epoch} (stage {stage.stage}, η {stage.eta_m:.4g}, b"
        f" {stage.b_m:.4g}{delta_text}); a smaller learning_rate or engine.precision=fp32 may"
        f" help. The last good checkpoint is of epoch {progress.epoch}"
    )


def _out_of_memory(run: Training, epoch: int) -> str:
    largest = math.ceil(max(row.b_m for row in run.plan.rows_of_epoch(epoch)))
    at_once = min(run.engine.micro_batch_size, max(largest, on_device.TEST_BATCH))
    return (
        f"out of memory in epoch {epoch} with up to {at_once:,} samples at once. Stop other"
        f" programs, or set engine.micro_batch_size={max(at_once // 2, 1)}: a new run, as BatchNorm"
        " sees smaller batches"
    )
