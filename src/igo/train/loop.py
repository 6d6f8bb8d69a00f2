"""The training loop: train the plan's epochs, with one record for each finished epoch."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import nn

from igo.ground.errors import Outside, UserError
from igo.ground.files import Record
from igo.ground.ranks import Ranks
from igo.ground.seeds import derive_seed
from igo.loop.schedule import Schedule
from igo.noise.noise import Noise
from igo.noise.pairs import Pairs, Twin
from igo.train.engine import Sums, average_statistics
from igo.train.on_device import Batch
from igo.train.reference import reference_noise
from igo.train.training import Epoch, Progress, Training, Watcher, planned_delta, record_of

# The scale of an fp16 loss starts at 2^16 and is halved at each overflow. Below this it is no use.
LEAST_SCALE = 2.0**-20
# When memory runs out, a RuntimeError's message has one of these: of PyTorch's allocators, C++,
# cuBLAS and cuDNN, or oneDNN, which says no more.
OUT_OF_MEMORY = (
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
    """The parts of an epoch's batches, one after the other. The next ones can be seen ahead."""

    def __init__(self, parts: Iterator[Batch]) -> None:
        self._parts = parts
        self._seen_ahead = deque[Batch]()

    def __next__(self) -> Batch:
        return self._seen_ahead.popleft() if self._seen_ahead else next(self._parts)

    def ahead(self, count: int) -> list[Batch]:
        """The next ``count`` parts, which stay in the stream."""
        self._seen_ahead.extend(islice(self._parts, count - len(self._seen_ahead)))
        return [*self._seen_ahead]


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
    ranks = run.engine.ranks
    run.network.train()
    for epoch in run.batches.epochs():
        try:
            record = _next_record(run, epoch, progress, bar, check_stop)
        except NotFinite as error:
            raise UserError(_not_finite(run, error, progress)) from None
        except Outside:
            if ranks.size == 1:
                check_stop()  # The signal that ended a worker may have come here, too.
            raise
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY):
                raise Outside(_out_of_memory(run, epoch)) from None
            ranks.check_lost(error)
            raise
        progress.records.append(record)
        epoch_done(record)
        bar.end_epoch(record)


def _next_record(
    run: Training, epoch: int, progress: Progress, bar: Watcher, check_stop: Callable[[], None]
) -> Record:
    """Train and evaluate one epoch, and return its record; ``progress`` then has all but that."""
    start = time.perf_counter()
    config, ranks = run.config, run.engine.ranks
    if progress.reference is None:
        progress.reference = reference_noise(run)
    torch.manual_seed(derive_seed(config.seed, "dropout", epoch, *ranks.seed_suffix))
    first_row = run.plan.rows_of_epoch(epoch)[0]
    bar.begin_epoch(epoch, planned_delta(config, first_row, progress.reference))
    results = train_epoch(run, bar, check_stop, progress.twins)
    _check_finite(run, results.noise)
    average_statistics(run.network, ranks)
    evaluation = _evaluate(run, epoch)
    progress.epoch = epoch
    progress.samples += sum(results.sizes)
    progress.twins = results.twins
    last_row = run.plan.at(run.batches.updates).row
    record = record_of(run, last_row, results, evaluation, progress)
    record["seconds"] = time.perf_counter() - start
    if run.engine.device.type == "cuda":
        record["max_memory_allocated"] = torch.cuda.max_memory_allocated()  # bytes
        record["max_memory_reserved"] = torch.cuda.max_memory_reserved()
    return record


def train_epoch(
    run: Training,
    bar: Watcher,
    check_stop: Callable[[], None],
    twins: Sequence[Twin],
) -> Epoch:
    """Make the updates of the next epoch, and measure C² from the gradients that train.

    Two updates in a row are a pair, see ``Pairs``. Some pairs have a twin: the gradient of the next
    batch before this update, which shows by how much the update changes the pair's difference.
    ``twins`` are the newest of the epochs before.

    Raises:
        NotFinite: a loss is not finite. A CPU notices at once; a GPU, for which the host would
            wait, and several processes notice at the end of the epoch.
    """
    start = time.perf_counter()
    engine, plan, updates = run.engine, run.plan, run.batches.updates
    indices = [torch.tensor(part, dtype=torch.int64) for part in run.batches]
    epoch = plan.at(updates + 1).epoch
    k = plan.batches_of_epoch(epoch)
    seed = derive_seed(run.config.seed, "epoch", epoch)
    stream = Stream(run.data.train_batches(indices, seed))
    pairs = Pairs(run.network, k, updates, twins)
    parameters = [*run.network.parameters()]
    sums_of_updates: list[Sums] = []
    rates: list[float] = []
    unit = torch.ones((), device=engine.device)
    scales = [engine.scaler.scale(unit)]  # In fp16 a scale is halved where an update is skipped.
    stops_at_once = engine.device.type == "cpu" and engine.ranks.size == 1
    for number in range(updates + 1, updates + k + 1):
        check_stop()
        size = plan.at(number).batch_size
        sums = engine.backward(run.network, _parts(run.schedule, stream), size, parameters)
        sums_of_updates.append(sums)
        rates.append(run.schedule.update.learning_rate)
        if stops_at_once and not math.isfinite(sums.loss.item()):
            break  # _means will raise.
        scale = scales[-1] if engine.scaler.is_enabled() else None
        next_gradient = partial(_set_gradient, run, stream, number + 1, parameters)
        pairs.take(size, sums.slope, next_gradient, scale)
        engine.update(run.optimizer)
        scales.append(engine.scaler.scale(unit))
        bar.advance(size)
    own_sizes = torch.tensor([sums.samples for sums in sums_of_updates])
    # This comes before the GPU is read: if a rank has left, it fails, but reading would wait for
    # ever.
    sizes = engine.ranks.sum_(own_sizes).tolist()
    loss, accuracy = _means(sums_of_updates, sum(sizes), engine.ranks)
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


def _parts(schedule: Schedule, stream: Stream) -> Iterator[Batch]:
    """Yield the parts of the next update; each is counted in the schedule before."""
    is_last = False
    while not is_last:
        is_last = schedule.step().is_last_part
        yield next(stream)


def _set_gradient(
    run: Training, stream: Stream, number: int, parameters: list[nn.Parameter]
) -> None:
    """Set ``.grad`` to the gradient of the update that comes next in the stream."""
    size = run.plan.at(number).batch_size
    parts = stream.ahead(run.batches.parts_of(size))
    run.engine.backward(run.network, parts, size, parameters)


def _means(sums_of_updates: Sequence[Sums], samples: int, ranks: Ranks) -> tuple[float, float]:
    """Mean loss and accuracy of an epoch over all ranks, from this rank's sums.

    Raises:
        NotFinite: a rank's loss is not finite.
    """
    numbers = [number for sums in sums_of_updates for number in (sums.loss, sums.correct)]
    rows = torch.stack(numbers).view(-1, 2).cpu()
    faults = ranks.sum_((~rows[:, 0].isfinite()).double()).nonzero()
    if len(faults):
        raise NotFinite(f"the loss is not finite at update {int(faults[0]) + 1}")
    # NumPy adds one row after the other; the order of torch.sum differs from machine to machine.
    totals = torch.from_numpy(np.add.accumulate(rows.numpy(), axis=0)[-1])
    loss, correct = ranks.sum_(totals.double()).tolist()
    return loss / samples, correct / samples


def _evaluate(run: Training, epoch: int) -> Record:
    """Loss and accuracy on the test set and on validation images, if there are some.

    Both are None in an epoch that is not evaluated. The last epoch always is.
    """
    is_due = epoch % run.config.evaluate_every == 0 or epoch == run.plan.epochs
    values: Record = {}
    for part in ("test", "validation") if run.config.dataset.validation else ("test",):
        loss, accuracy = None, None
        if is_due:
            batches = run.data.test_batches(run.engine.ranks, part)
            loss, accuracy = run.engine.evaluate(run.network, batches)
        values |= {f"{part}/loss": loss, f"{part}/accuracy": accuracy}
    return values


def _check_finite(run: Training, noise: Noise | None) -> None:
    """Raise NotFinite if an epoch left numbers with which no training goes on."""
    scaler = run.engine.scaler
    fault = ""
    if noise and not math.isfinite(noise.variance):
        fault = f"C² is {noise.variance}"
    elif not torch.stack([p.isfinite().all() for p in run.network.parameters()]).all():
        fault = "a parameter is not finite at the end"
    elif scaler.is_enabled() and scaler.get_scale() < LEAST_SCALE:
        fault = "the gradient overflows fp16 at any scale of the loss"
    if fault:
        raise NotFinite(fault)


def _not_finite(run: Training, error: NotFinite, progress: Progress) -> str:
    """What the user is told: where it happened, and what may help."""
    update = run.plan.at(max(run.batches.updates, 1))
    stage, delta = update.row, planned_delta(run.config, update.row, progress.reference)
    delta_text = "" if delta is None else f", δ {delta:.4g}"
    return (
        f"{error} in epoch {update.epoch} (stage {stage.stage}, η {stage.eta_m:.4g}, b"
        f" {stage.b_m:.4g}{delta_text}); a smaller learning_rate or engine.precision=fp32 may"
        f" help. The last good checkpoint is of epoch {progress.epoch}"
    )


def _out_of_memory(run: Training, epoch: int) -> str:
    """What the user is told: how many samples were too many, and how many may fit."""
    largest = math.ceil(max(row.b_m for row in run.plan.rows_of_epoch(epoch)))
    at_once = min(run.engine.micro_batch_size, max(largest, run.data.test_batch))
    return (
        f"out of memory in epoch {epoch} with up to {at_once:,} samples at once. Stop other"
        f" programs, or set engine.micro_batch_size={max(at_once // 2, 1)}: a new run, as BatchNorm"
        " sees smaller batches"
    )
