"""A plan as plain data: its rows, and the row and epoch of each update.

A stage of whole epochs is one row. One that begins or ends inside an epoch has up to three: its
part of the first epoch, its whole epochs, and its part of the last. Each is cut into equal batches.
"""

from __future__ import annotations

import hashlib
import math
import operator
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import accumulate, count, groupby, zip_longest
from operator import attrgetter, mul
from typing import Any

from igo.plans import batches
from igo.plans.arguments import PlanError
from igo.plans.controls import CONTROLS, rows_of
from igo.plans.profiles import CONSTANT
from igo.plans.rows import Row, Update, rated, root_of_b

MOST_ROWS = 12  # print(plan) shows no more.
FEW_STAGES = 20  # A cosine in as many is up to 0.08 η_1 above its own curve.
SAME = 1e-9  # Rounding on another machine makes a smaller relative difference.

INSIDE_EPOCHS = ("start", "samples")  # Plans whose stages begin inside epochs have them.
COLUMNS = tuple(field.name for field in fields(Row) if field.name not in INSIDE_EPOCHS)


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
    arguments: Mapping[str, Any] = field(default_factory=dict, compare=False)
    rates: Sequence[float] = field(default=(), hash=False)

    def __str__(self) -> str:
        """One line for each row, without the middle ones if there are many, and one of totals."""
        rate = "η_m/η_1" if self.learning_rate == 1 else "η_m"
        head = f"stage epochs batches updates φ_m κ_m λ_m {rate} b_m samples".split()
        equals = attrgetter("start", "samples", "batches", "phi_m", "eta_m")
        lines = [_line([*rows]) for _, rows in groupby(self.rows, key=equals)]
        if len(lines) > MOST_ROWS:
            half = MOST_ROWS // 2
            lines = [*lines[:half], ["…"] * len(head), *lines[-half:]]
        table = [head, *lines]
        if self.by_epochs:  # The samples of a row are those of its epochs.
            table = [line[:-1] for line in table]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        texts = ["  ".join(map(str.rjust, line, widths)) for line in table]
        return "\n".join([*texts, self._total()])

    def _total(self) -> str:
        """The epochs and updates in all, and what the rows do not say."""
        asked = self.arguments
        epochs = f"{self.samples / self.n:,g} epoch{'s' * (self.samples != self.n)}"
        total = f"{epochs} of {self.n:,} samples: {self.updates:,} updates"
        is_curve = asked.get("rate") and asked.get("profile") not in CONSTANT
        if self.rates:
            total += ", each with an η of its own, whose mean a row has"
        elif is_curve and self.rows[-1].stage <= FEW_STAGES:
            steps = len(list(groupby(row.eta_m for row in self.rows)))
            total += f", η in {steps} steps" if steps > 1 else ", η stays η_1"
            total += " (clock='updates', or schedule.clock=updates, gives each update its own)"
        left_out = (asked.get("samples") or 0) - self.samples
        if left_out > 0:
            total += f", {left_out:,} samples left out"
        if control := asked.get("control"):
            total += f", control={control}"
        elif self.rows[-1].phi_m:  # A plan that ends without noise has no such control.
            rows_at_b_1 = rows_of("noise", self.rows, self.n, self._unit)
            updates_at_b_1 = sum(row.updates for row in rows_at_b_1)
            if updates_at_b_1 != self.updates:
                total += f"; {updates_at_b_1:,} with b constant"
        if self.warmup_samples:
            total += f", η warms up over {self.warmup_samples:,} samples"
        highest = max(self.rates or [row.eta_m / self.learning_rate for row in self.rows])
        if highest > 1 + SAME:
            total += f"; η rises to {highest:.5g} η_1"
        return total

    __repr__ = __str__  # A notebook shows the table, too.

    @property
    def epochs(self) -> int:
        """All epochs; a last part of an epoch, and each full-batch final update, count as one."""
        return self.rows[-1].epoch_range[-1]

    @property
    def samples(self) -> int:
        """Samples in all, each counted as often as it is trained on."""
        return sum(row.epochs * row.samples for row in self.rows)

    @property
    def updates(self) -> int:
        """Parameter updates in all."""
        return self._ends[-1]

    @property
    def by_epochs(self) -> bool:
        """Whether every stage is of whole epochs."""
        return all(row.samples == self.n for row in self.rows)

    @property
    def batch_sizes(self) -> list[int]:
        """All sizes of batches, the largest first."""
        cuts = {(row.samples, row.batches) for row in self.rows}
        return sorted({size for cut in cuts for size in batches.counts_by_size(*cut)}, reverse=True)

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
        first_epoch = attrgetter("first_epoch")
        end = bisect_right(self.rows, epoch, key=first_epoch)
        first = bisect_left(self.rows, self.rows[end - 1].first_epoch, key=first_epoch)
        return self.rows[first:end]

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
        batches_before, batches_of_epoch = self._batches_in_epoch[index]
        low, high = batches.bounds(row.samples, row.batches, batch)
        rate = self.learning_rate * self.rates[updates_before] if self.rates else row.eta_m
        samples_after = (epoch - 1) * self.n + row.start + high
        if samples_after < self.warmup_samples:
            rate *= samples_after / self.warmup_samples
        batch_number, size, start = batches_before + batch + 1, high - low, row.start + low
        # Names instead of positions would take a third of a microsecond more in each update.
        return Update(update, epoch, batch_number, batches_of_epoch, size, rate, row, start, size)

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

    def control(self, kind: str) -> Plan:
        """What this plan is compared with, on the same samples.

        With ``"rate"`` each share of the samples has the same η, and a constant b makes as many
        updates: the control of a growing b. With ``"noise"`` each has the same η/√b, and b stays at
        b_1. With ``"reversed"`` the last row comes first.

        >>> plan = igo.plan("method3", n=50_000, epochs=200, batch_size=32)
        >>> plan.updates, plan.control("rate").updates, plan.control("noise").updates
        (121200, 121200, 312600)

        Raises:
            PlanError: there is no such control, or this plan has none.
        """
        is_b_constant = all(abs(row.b_m - self.rows[0].b_m) < self._unit for row in self.rows)
        is_noise_constant = not self.rates and len({row.phi_m for row in self.rows}) == 1
        advice = ""
        if kind not in CONTROLS:
            advice = f"it must be one of {', '.join(CONTROLS)}"
        elif self.rows[-1].phi_m == 0:
            advice = "a plan that ends without noise has none"
        elif kind == "reversed" and self.samples % self.n:
            advice = "the last epoch must be a whole one"
        elif kind != "reversed" and is_b_constant:
            advice = "its b is constant, so it is its own control; leave it out"
        elif is_b_constant and is_noise_constant:
            advice = "its η and b are constant, so it is its own; leave it out"
        if advice:
            raise PlanError("control", kind, advice)
        rows = rows_of(kind, self.rows, self.n, self._unit)
        arguments = {**self.arguments, "control": kind}
        # These rates are those of "reversed"; the other controls get theirs below.
        plan = replace(self, rows=rows, rates=self.rates[::-1], arguments=arguments)
        if kind == "reversed" or not self.rates:
            return plan
        return plan.with_rates(self.rates_in(plan, at_b_1=kind == "noise"))

    @property
    def _unit(self) -> int:
        """What each batch of a control is a multiple of: for a stream its ``batch_multiple``.

        It is 1 for a data set, whose batches are multiples only where this is possible.
        """
        return 1 if self.arguments.get("n") else self.arguments.get("batch_multiple", 1)

    def with_rates(self, rates: Sequence[float]) -> Plan:
        """The plan with these η/η_1, one for each update; η_m of a row is then their mean."""
        means = [
            math.fsum(rates[end - row.updates : end]) / row.updates
            for row, end in zip(self.rows, self._ends, strict=True)
        ]
        rows = rated(self.rows, means, self.learning_rate, by_rate=True)
        return replace(self, rows=rows, rates=rates)

    def rates_in(self, plan: Plan, *, at_b_1: bool = False) -> Sequence[float]:
        """η/η_1 at the share of the samples where each update of another plan begins.

        With ``at_b_1`` it is multiplied by √(b_1/b), so that η/√b is the same where b is b_1.
        """
        rates = list[float]()
        for row, end in zip(self.rows, self._ends, strict=True):
            root = root_of_b(row, self.rows[0]) if at_b_1 else 1
            rates_of_row = [row.eta_m / self.learning_rate] * row.updates
            if self.rates:
                rates_of_row = [*self.rates[end - row.updates : end]]
            rates += [rate / root for rate in rates_of_row]
        starts = list(self.starts())
        places = (start * self.samples // plan.samples for start in plan.starts())
        return array("d", (rates[bisect_right(starts, place) - 1] for place in places))

    # These are cached because each update asks for them.
    @cached_property
    def _batches_in_epoch(self) -> list[tuple[int, int]]:
        """For each row: the batches of its epoch that come before it, and all of its epoch."""
        pairs: list[tuple[int, int]] = []
        for _, rows_of_epoch in groupby(self.rows, attrgetter("first_epoch")):
            *batches_before, total = accumulate((row.batches for row in rows_of_epoch), initial=0)
            pairs += [(batches_done, total) for batches_done in batches_before]
        return pairs

    @cached_property
    def _ends(self) -> list[int]:
        """For each row: the updates of the plan up to its end."""
        return list(accumulate(row.updates for row in self.rows))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The plan's identity for checkpoints, the same on every machine.

        ``plan`` is a digest of all whole numbers. ``rates`` are sums of η_m/η_1 and of φ_m: plain,
        and weighted by updates and by the row's number. ``arguments`` is for messages.
        """
        integers = [(row.epochs, row.batches, row.start, row.samples) for row in self.rows]
        counts = repr((self.n, self.warmup_samples, integers))
        digest = hashlib.sha256(counts.encode()).hexdigest()[:16]
        # A plan may have thousands of rows, so a checkpoint holds sums of the rates. The weighted
        # ones notice rates in another order.
        updates = [row.updates for row in self.rows]
        etas = [row.eta_m / self.learning_rate for row in self.rows]
        phis = [row.phi_m for row in self.rows]
        sums = []
        for values in (etas, phis):
            sums.append(math.fsum(values))
            sums.append(math.fsum(map(mul, updates, values)))
            sums.append(math.fsum(map(mul, count(1), values)))
        if self.rates:
            sums.append(math.fsum(map(mul, count(1), self.rates)))
        return {"plan": digest, "rates": sums, "arguments": {**self.arguments}}

    def is_that_of(self, state: Mapping[str, Any]) -> bool:
        """Whether a checkpoint's state is of this plan."""
        pairs = zip_longest(state.get("rates", ()), self.identity["rates"], fillvalue=math.nan)
        close = all(math.isclose(saved, planned, rel_tol=SAME) for saved, planned in pairs)
        return close and bool(state["plan"] == self.identity["plan"])


def _line(rows: Sequence[Row]) -> list[str]:
    """A line of a printed plan: rows that follow each other, are equal, and are shown as one."""
    first_row, row = rows[0], rows[-1]
    return [
        _range(first_row.stage, row.stage),
        _range(first_row.first_epoch, row.epoch_range[-1]),
        f"{row.batches:,}",
        f"{sum(row.updates for row in rows):,}",
        f"{row.phi_m:.4f}",
        "" if row.kappa_m is None else f"{row.kappa_m:.4f}",
        "" if row.lambda_m is None else f"{row.lambda_m:.4f}",
        f"{row.eta_m:.5g}",
        f"{row.b_m:,.1f}",
        f"{sum(row.epochs * row.samples for row in rows):,}",
    ]


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
