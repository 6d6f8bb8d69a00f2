"""The training loop: train the plan's epochs, with one record for each finished epoch."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

import numpy as np
import torch

from igo.ground.errors import Outside, UserError
from igo.ground.files import Record
from igo.ground.ranks import Ranks
from igo.ground.seeds import derive_seed
from igo.noise.noise import Noise
from igo.noise.pairs import Pairs, Twin
from igo.train.engine import Sums, average_statistics
from igo.train.on_device import Batch
from igo.train.reference import reference_noise
from igo.train.training import Epoch, Progress, Training, Watcher, planned_delta, record_of

# The scale of an fp16 loss starts at 2^16 and is halved at each overflow. Below this scale the
# gradient overflows whatever the scale is.
LEAST_SCALE = 2.0**-20
# When memory runs out, a RuntimeError's message has one of these texts: of PyTorch's allocators,
# C++, cuBLAS and cuDNN, or oneDNN, whose errors say no more.
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


class Gradients:
    """The gradients of an epoch's updates, one after the other; the next can be had ahead.

    A batch has one part or several, see ``Engine``. All parts of an epoch are one stream.
    """

    def __init__(self, run: Training, epoch: int) -> None:
        indices = [torch.tensor(part, dtype=torch.int64) for part in run.batches]
        seed = derive_seed(run.config.seed, "epoch", epoch)
        self._run, self._parts = run, run.data.train_batches(indices, seed)
        self._parameters = [*run.network.parameters()]

    def begin(self) -> Sums:
        """Begin the next update: count it in the schedule, which sets η, and set ``.grad``."""
        return self._set_gradient(self._next_size, self._counted_parts())

    def look_ahead(self) -> None:
        """Set ``.grad`` to the gradient of the next update, without beginning it."""
        size = self._next_size
        parts = [*islice(self._parts, self._run.batches.parts_of(size))]
        self._parts = chain(parts, self._parts)  # ``begin`` will take them once more.
        self._set_gradient(size, parts)

    @property
    def _next_size(self) -> int:
        """The samples of the batch of the first update that is not counted yet."""
        return self._run.plan.at(self._run.batches.updates + 1).batch_size

    def _counted_parts(self) -> Iterator[Batch]:
        """Yield the parts of the next update; the schedule counts each before."""
        is_last = False
        while not is_last:
            is_last = self._run.schedule.step().is_last_part
            yield next(self._parts)

    def _set_gradient(self, size: int, parts: Iterable[Batch]) -> Sums:
        """Set ``.grad`` to the gradient of a batch of ``size`` samples, which has these parts."""
        return self._run.engine.backward(self._run.network, parts, size, self._parameters)


def train(
    run: Training,
    progress: Progress,
    bar: Watcher,
    epoch_done: Callable[[Record], None],
    check_stop: Callable[[], None],
) -> None:
    """Train from ``progress`` to the end of the plan, and update ``progress``.

    Args:
        run: what is trained.
        progress: of the run so far; each finished epoch changes it.
        bar: watches the updates.
        epoch_done: called with the record of each finished epoch, to keep it.
        check_stop: called before each update; it may raise to end the run.

    Raises:
        UserError: a number is not finite.
        Outside: memory ran out, or another process of the run has ended.
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
                # A signal to all processes of the run ends a worker that reads images, too. Then
                # the run ends by the signal, and not by the lost worker.
                check_stop()
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
    """Train and evaluate one epoch, and return its record, which ``progress`` does not have yet.

    The dropout of an epoch has a seed of its own, so that a resumed run draws the same.
    """
    start = time.perf_counter()
    config, ranks = run.config, run.engine.ranks
    if progress.reference is None:
        progress.reference = reference_noise(run)
    torch.manual_seed(derive_seed(config.seed, "dropout", epoch, *ranks.seed_suffix))
    first_row = run.plan.rows_of_epoch(epoch)[0]
    bar.begin_epoch(epoch, planned_delta(config, first_row, progress.reference))
    results = train_epoch(run, bar, check_stop, progress.twins)
    _check_finite(run, results.noise)
    # On CPUs each rank has BatchNorm's statistics of its own samples.
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
        NotFinite: a loss is not finite. One process on a CPU notices at once. On a GPU the host
            would have to wait for each loss, and of several processes only one might notice: so
            they notice at the end of the epoch.
    """
    start = time.perf_counter()
    engine, updates = run.engine, run.batches.updates
    first = run.plan.at(updates + 1)  # the epoch's first update; ``batches`` are the epoch's
    gradients = Gradients(run, first.epoch)
    pairs = Pairs(run.network, first.batches, updates, twins)
    sums_of_updates: list[Sums] = []
    rates: list[float] = []
    # The scale of the loss before each update and after the last; 1 but for fp16. The scaler halves
    # it where it skips an update.
    unit = torch.ones((), device=engine.device)
    scales = [engine.scaler.scale(unit)]
    stops_at_once = engine.device.type == "cpu" and engine.ranks.size == 1
    for _ in range(first.batches):
        check_stop()
        sums = gradients.begin()
        update = run.schedule.update  # It is the one that has begun.
        sums_of_updates.append(sums)
        rates.append(update.learning_rate)
        if stops_at_once and not math.isfinite(sums.loss.item()):
            break  # _means will raise.
        scale = scales[-1] if engine.scaler.is_enabled() else None
        pairs.take(update.batch_size, sums.slope, gradients.look_ahead, scale)
        engine.update(run.optimizer)
        scales.append(engine.scaler.scale(unit))
        bar.advance(update.batch_size)
    own_sizes = torch.tensor([sums.samples for sums in sums_of_updates])
    # The ranks' sizes are added before the GPU is read: if a rank has left, the sum fails, but
    # reading would wait for ever.
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


def _means(sums_of_updates: Sequence[Sums], samples: int, ranks: Ranks) -> tuple[float, float]:
    """Mean loss and accuracy of an epoch over all ranks, from this rank's sums.

    ``samples`` are those of the epoch, over all ranks.

    Raises:
        NotFinite: a rank's loss is not finite.
    """
    numbers = [number for sums in sums_of_updates for number in (sums.loss, sums.correct)]
    rows = torch.stack(numbers).view(-1, 2).cpu()  # (updates, 2), read at once
    # All ranks raise where one has a fault, and name the same update, the first.
    faults = ranks.sum_((~rows[:, 0].isfinite()).double()).nonzero()
    if len(faults):
        raise NotFinite(f"the loss is not finite at update {int(faults[0]) + 1}")
    # NumPy adds one row after the other; the order of torch.sum differs from machine to machine.
    totals = torch.from_numpy(np.add.accumulate(rows.numpy(), axis=0)[-1])
    loss, correct = ranks.sum_(totals.double()).tolist()
    return loss / samples, correct / samples


def _evaluate(run: Training, epoch: int) -> Record:
    """Loss and accuracy on the test set and on validation images, if there are some.

    Both are None in an epoch that is not evaluated. The last epoch is always evaluated.
    """
    is_due = epoch % run.config.evaluate_every == 0 or epoch == run.plan.epochs
    values: Record = {}
    parts = ["test"]
    if run.config.dataset.validation:
        parts.append("validation")
    for part in parts:
        loss, accuracy = None, None
        if is_due:
            batches = run.data.test_batches(run.engine.ranks, part)
            loss, accuracy = run.engine.evaluate(run.network, batches)
        values |= {f"{part}/loss": loss, f"{part}/accuracy": accuracy}
    return values


def _check_finite(run: Training, noise: Noise | None) -> None:
    """Raise NotFinite if no training can go on after an epoch: its C² or a parameter is not finite.

    Or fp16's scale of the loss has become too small. ``noise`` is the epoch's; None without a pair.
    """
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
    """What the user is told: where a number was not finite, and what may help."""
    update = run.plan.at(run.batches.updates)
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
