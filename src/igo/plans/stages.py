"""A plan as plain data: its rows, and the row and epoch of each update.

A stage of whole epochs is one row. One that begins or ends inside an epoch has up to three: its
part of the first epoch, its whole epochs, and its part of the last. Each is cut into equal batches.
"""

import hashlib
import math
import operator
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import accumulate, count, groupby, pairwise, repeat, zip_longest
from operator import attrgetter, mul
from typing import Any

from igo.plans import batches
from igo.plans.profiles import CONSTANT

MOST_ROWS = 12  # print(plan) shows no more.
FEW_STAGES = 20  # A cosine in as many is up to 0.08 η_1 above its own curve.
SAME = 1e-9  # Rounding on another machine makes a smaller relative difference.


@dataclass(frozen=True)
class Row:
    """A row of the plan: a stage, or what it has of an epoch. The names are the paper's.

    ``stage`` is m and ``first_epoch`` an epoch; both count from 1. ``batches`` is k_m, the batches
    of each of the row's ``epochs`` segments. ``gamma_m``, ``kappa_m`` and ``lambda_m`` lead from
    this row to the next (γ_m = δ_{m+1}/δ_m, κ_m = η_{m+1}/η_m, λ_m = b_{m+1}/b_m) and are None in
    the last row. A segment has N = ``samples`` of its epoch, from ``start`` on: all n, unless the
    row is less than an epoch. ``b_m`` = N/k_m is the mean batch size.
    """

    stage: int
    first_epoch: int
    epochs: int
    batches: int
    updates: int
    phi_m: float
    gamma_m: float | None
    kappa_m: float | None
    lambda_m: float | None
    eta_m: float
    b_m: float
    start: int
    samples: int

    @property
    def epoch_range(self) -> range:
        """The row's epochs, counted from 1."""
        return range(self.first_epoch, self.first_epoch + self.epochs)


INSIDE_EPOCHS = ("start", "samples")  # Plans whose stages begin inside epochs have them.
COLUMNS = tuple(field.name for field in fields(Row) if field.name not in INSIDE_EPOCHS)


@dataclass(frozen=True, slots=True)
class Update:
    """One parameter update of a plan, or one part of it.

    ``number``, ``epoch`` and ``batch`` (in the epoch, of ``batches``) count from 1, and so does
    ``part`` of ``parts``. ``batch_size`` is b, the samples of the batch over all ranks and parts.
    This part has ``samples`` samples on this rank: of the epoch's permutation ``start`` and each
    ``ranks``-th after it. ``learning_rate`` is η; of a plan without a learning rate
    η/η_1, and of a ``Schedule``'s update as it was set.
    ``row`` has the rest, such as ``row.b_m`` and ``row.phi_m``.
    """

    number: int
    epoch: int
    batch: int
    batches: int
    batch_size: int
    learning_rate: float
    row: Row
    start: int
    samples: int
    ranks: int = 1
    part: int = 1
    parts: int = 1

    @property
    def stage(self) -> int:
        """m, counted from 1."""
        return self.row.stage

    @property
    def weight(self) -> float:
        """The factor of a part's mean loss if ranks average gradients (DDP).

        It is samples · ranks / batch_size: 1 for one part and equal shares. With it, the average
        over ranks, summed over parts, is the gradient of the whole batch's mean loss.
        """
        return self.samples * self.ranks / self.batch_size

    @property
    def is_last_part(self) -> bool:
        """Whether this is the last part. Call ``optimizer.step()`` after the last part only."""
        return self.part == self.parts

    @property
    def ends_epoch(self) -> bool:
        """Whether this is the last part of the epoch's last update."""
        return self.is_last_part and self.batch == self.batches


@dataclass(frozen=True)
class Plan:
    """All rows of a plan, in order; ``print(plan)`` shows them as a table.

    ``n`` is the number of training samples; of a stream, all its samples. ``learning_rate`` is η_1:
    1, unless ``igo.plan`` was given one, so that η_m is η_m/η_1. η rises from 0 over the first
    ``warmup_samples``. ``arguments`` are those of ``igo.plan``, for messages. With the clock of
    updates, ``rates`` has η/η_1 of each update without the warm-up, and a row has their mean.
    """

    rows: tuple[Row, ...]
    n: int
    learning_rate: float = 1.0
    warmup_samples: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    rates: Sequence[float] = field(default=(), repr=False, hash=False)

    def __str__(self) -> str:
        """One line for each row, without the middle ones if there are many, and one of totals."""
        rate = "η_m/η_1" if self.learning_rate == 1 else "η_m"
        table: list[tuple[str, ...]] = [
            ("stage", "epochs", "batches", "updates", "φ_m", "κ_m", "λ_m", rate, "b_m", "samples")
        ]
        look = attrgetter("start", "samples", "batches", "phi_m", "eta_m")
        for _, group in groupby(self.rows, key=look):  # Equal stages are shown as one.
            rows = list(group)
            first_row, last_row = rows[0], rows[-1]
            updates = sum(row.updates for row in rows)
            samples = sum(row.epochs * row.samples for row in rows)
            table.append(
                (
                    _range(first_row.stage, last_row.stage),
                    _range(first_row.first_epoch, last_row.epoch_range[-1]),
                    f"{last_row.batches:,}",
                    f"{updates:,}",
                    f"{last_row.phi_m:.4f}",
                    *(
                        "" if x is None else f"{x:.4f}"
                        for x in (last_row.kappa_m, last_row.lambda_m)
                    ),
                    f"{last_row.eta_m:.5g}",
                    f"{last_row.b_m:,.1f}",
                    f"{samples:,}",
                )
            )
        if self.by_epochs:
            table = [line[:-1] for line in table]
        if len(table) - 1 > MOST_ROWS:
            half = MOST_ROWS // 2
            table = [*table[: half + 1], ("…",) * len(table[0]), *table[-half:]]
        epochs = f"{self.samples / self.n:,g} epoch{'s' * (self.samples != self.n)}"
        total = f"{epochs} of {self.n:,} samples: {self.updates:,} updates"
        if self.rates:
            total += ", each with an η of its own, whose mean a row has"
        elif self._follows_roughly:
            total += f", η in {self.rows[-1].stage} steps (clock='updates' sets it at each update)"
        left_out = (self.arguments.get("samples") or 0) - self.samples
        if left_out > 0:
            total += f", {left_out:,} samples left out"
        if self.updates != self.updates_at_constant_b:
            total += f"; {self.updates_at_constant_b:,} with b constant"
        if self.warmup_samples:
            total += f", η warms up over {self.warmup_samples:,} samples"
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            for line in table
        ]
        return "\n".join([*lines, total])

    __repr__ = __str__  # A notebook shows the table, too.

    @property
    def epochs(self) -> int:
        """All epochs; a last part of an epoch, and each full-batch final update, count as one."""
        return self.rows[-1].epoch_range[-1] if self.rows else 0

    @property
    def samples(self) -> int:
        """Samples in all, each counted as often as it is trained on."""
        return sum(row.epochs * row.samples for row in self.rows)

    @property
    def updates(self) -> int:
        """Parameter updates in all."""
        return self._ends[-1] if self.rows else 0

    @property
    def updates_at_constant_b(self) -> int:
        """The updates that the plan's samples would take in batches of b_1."""
        first_row = self.rows[0]
        b_1 = batches.count(first_row.samples, first_row.batches)
        full_batches = sum(row.updates for row in self.rows if row.phi_m == 0)
        epochs, rest = divmod(self.samples - full_batches * self.n, self.n)
        return epochs * batches.count(self.n, b_1) + batches.count(rest, b_1) + full_batches

    @property
    def _follows_roughly(self) -> bool:
        """Whether η follows a curve of t in steps that are large."""
        profile, rate = (self.arguments.get(name) for name in ("profile", "rate"))
        return bool(rate) and profile not in CONSTANT and self.rows[-1].stage <= FEW_STAGES

    @property
    def by_epochs(self) -> bool:
        """Whether every stage is of whole epochs."""
        return all(row.samples == self.n for row in self.rows)

    @property
    def batch_sizes(self) -> list[int]:
        """All sizes of batches, the largest first."""
        cuts = {(row.samples, row.batches) for row in self.rows}
        return sorted({size for cut in cuts for size in batches.counts(*cut)}, reverse=True)

    def table(self) -> list[dict[str, Any]]:
        """The lines of ``plan.csv``, with COLUMNS alone if all stages are whole epochs."""
        columns = COLUMNS if self.by_epochs else COLUMNS + INSIDE_EPOCHS
        return [{name: getattr(row, name) for name in columns} for row in self.rows]

    def rows_of_epoch(self, epoch: int) -> tuple[Row, ...]:
        """The rows of an epoch, counted from 1: one, unless stages begin inside it.

        Raises:
            IndexError: the plan has no such epoch.
        """
        if not 1 <= epoch <= self.epochs:
            raise IndexError(f"epoch {epoch}: the plan has epochs 1 to {self.epochs}")
        end = bisect_right(self.rows, epoch, key=lambda row: row.first_epoch)
        return self.rows[self._epochs[end - 1][0] : end]

    def batches_of_epoch(self, epoch: int) -> int:
        """The number of batches of an epoch, counted from 1.

        Raises:
            IndexError: the plan has no such epoch.
        """
        return sum(row.batches for row in self.rows_of_epoch(epoch))

    def at(self, update: int) -> Update:
        """The stage, epoch, batch and η of an update, counted from 1.

        Raises:
            IndexError: the plan has no such update.
            TypeError: it is no whole number.
        """
        if not 1 <= update <= self.updates:
            raise IndexError(f"update {update}: the plan has updates 1 to {self.updates}")
        updates_before = operator.index(update) - 1
        index = bisect_right(self._ends, updates_before)
        row = self.rows[index]
        updates_of_row = updates_before - (self._ends[index] - row.updates)
        epochs, batch = divmod(updates_of_row, row.batches)
        epoch = row.first_epoch + epochs
        _, batches_before, total = self._epochs[index]
        low, high = batches.bounds(row.samples, row.batches, batch)
        rate = self.learning_rate * self.rates[updates_before] if self.rates else row.eta_m
        samples_after = (epoch - 1) * self.n + row.start + high
        if samples_after < self.warmup_samples:
            rate *= samples_after / self.warmup_samples
        size, start = high - low, row.start + low
        return Update(
            update, epoch, batches_before + batch + 1, total, size, rate, row, start, size
        )

    def after(self, samples: int) -> int:
        """The updates that are made when so many samples have been trained on.

        It finds the place in a plan of a program that counts consumed samples:
        ``counter.updates = plan.after(consumed)``. An update in progress does not count.

        >>> plan = igo.plan("constant", samples=100, batch_size=10)
        >>> plan.after(0), plan.after(30), plan.after(39), plan.after(100)
        (0, 3, 3, 10)

        Raises:
            ValueError: the plan has fewer samples.
            TypeError: that is no whole number.
        """
        samples = operator.index(samples)
        if not 0 <= samples <= self.samples:
            raise ValueError(f"samples={samples}: the plan has 0 to {self.samples:,}")
        return bisect_right(range(1, self.updates + 1), samples, key=self.samples_of)

    def samples_of(self, updates: int) -> int:
        """The samples that the first so many updates train on, the inverse of ``after``."""
        if not updates:
            return 0
        update = self.at(updates)
        return (update.epoch - 1) * self.n + update.start + update.batch_size

    def starts(self) -> Iterator[int]:
        """Yield the samples before each update."""
        for row in self.rows:
            for epoch in row.epoch_range:
                start = (epoch - 1) * self.n + row.start
                for batch in range(row.batches):
                    yield start + batches.bounds(row.samples, row.batches, batch)[0]

    # These are cached because each update asks for them.
    @cached_property
    def _epochs(self) -> list[tuple[int, int, int]]:
        """For each row: its epoch's first row, and the epoch's batches before it and in all."""
        firsts = [index for index, row in enumerate(self.rows) if not row.start]
        epochs: list[tuple[int, int, int]] = []
        for start, end in pairwise([*firsts, len(self.rows)]):
            batches_before = [0, *accumulate(row.batches for row in self.rows[start:end])]
            epochs += [
                (start, batches_done, batches_before[-1]) for batches_done in batches_before[:-1]
            ]
        return epochs

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(row.updates for row in self.rows))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The plan's identity for checkpoints, the same on every machine.

        ``plan`` is a digest of all whole numbers. ``rates`` are sums of η_m/η_1 and of φ_m: plain,
        and weighted by updates and by the row's number. ``arguments`` is for messages.
        """
        # Checkpoints hold this, and a plan may have thousands of rows: so sums stand for the rates.
        # The weighted ones notice rates in another order.
        integers = [(row.epochs, row.batches, row.start, row.samples) for row in self.rows]
        etas = [row.eta_m / self.learning_rate for row in self.rows]
        phis = [row.phi_m for row in self.rows]
        rates = [
            math.fsum(map(mul, weights, values))
            for values in (etas, phis)
            for weights in (repeat(1), [row.updates for row in self.rows], count(1))
        ]
        if self.rates:
            rates.append(math.fsum(map(mul, count(1), self.rates)))
        counts = repr((self.n, self.warmup_samples, integers))
        digest = hashlib.sha256(counts.encode()).hexdigest()[:16]
        return {"plan": digest, "rates": rates, "arguments": {**self.arguments}}

    def is_that_of(self, state: Mapping[str, Any]) -> bool:
        """Whether a checkpoint's state is of this plan."""
        pairs = zip_longest(state["rates"], self.identity["rates"], fillvalue=math.nan)
        close = all(math.isclose(saved, planned, rel_tol=SAME) for saved, planned in pairs)
        return close and bool(state["plan"] == self.identity["plan"])


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
