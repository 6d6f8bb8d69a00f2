"""A plan as plain data: its rows, and the row and epoch of each update.

A stage that begins or ends inside an epoch has up to three rows with the same number: its part of
the first epoch, its whole epochs, and its part of the last epoch. Each is cut into equal batches.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from operator import attrgetter
from typing import Any

from igo.ground.words import aligned
from igo.method import batches

MOST_ROWS = 12  # that print(plan) shows
SAME = 1e-9  # relative: the largest difference that rounding makes on another machine


@dataclass(frozen=True)
class Stage:
    """A row of the plan; the column names are those of ``plan.csv`` and of the paper.

    ``first_epoch`` counts from 1. ``batches`` is k_m, the batches of each of the row's ``epochs``
    segments. ``gamma_m``, ``kappa_m`` and ``lambda_m`` lead from this row to the next
    (γ_m = δ_{m+1}/δ_m, κ_m = η_{m+1}/η_m, λ_m = b_{m+1}/b_m) and are None in the last row. A
    segment has N = ``samples`` of its epoch, from ``start`` on: all n, unless the row is less than
    an epoch. ``b_m`` = N/k_m is the mean batch size.
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


INSIDE_EPOCHS = ("start", "samples")  # columns of plans whose stages begin inside epochs
STAGE_COLUMNS = tuple(field.name for field in fields(Stage) if field.name not in INSIDE_EPOCHS)


@dataclass(frozen=True)
class Place:
    """One update of a plan; ``print`` shows it in one line.

    ``number``, ``epoch`` and ``batch`` count from 1; the epoch has ``batches``. The update's
    samples are ``start`` to ``start + size`` of the epoch's permutation.
    """

    number: int
    stage: Stage
    epoch: int
    batch: int
    batches: int
    start: int
    size: int
    learning_rate: float

    def __str__(self) -> str:
        """The place of the update, its η and b, and the planned noise of its stage."""
        place = f"update {self.number}: epoch {self.epoch}, batch {self.batch} of {self.batches}"
        noise = f"δ_m/δ_1 {self.stage.phi_m:.4f}, η {self.learning_rate:.5g}, b {self.size:,}"
        return f"{place}, stage {self.stage.stage}: {noise}"


@dataclass(frozen=True)
class Plan:
    """All stages of a run, in order; ``print(plan)`` shows them as a table.

    ``n`` is the number of training samples; of a stream, all its samples. ``learning_rate`` is η_1:
    1, unless ``igo.plan`` was given one, so that η_m is η_m/η_1. η rises from 0 over the first
    ``warmup`` samples. ``arguments`` are those of ``igo.plan``, for messages.
    """

    stages: tuple[Stage, ...]
    n: int
    learning_rate: float = 1.0
    warmup: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        """One line for each row, without the middle ones if there are many, and one of totals."""
        rate = "η_m/η_1" if self.learning_rate == 1 else "η_m"
        noise: tuple[str, ...] = ("δ_m/δ_1", "κ_m", "λ_m", rate, "b_m")
        rows = [("stage", "epochs", "batches", "updates", *noise, "samples")]
        same = attrgetter("start", "samples", "batches", "phi_m", "eta_m")
        for _, group in groupby(self.stages, key=same):  # equal stages are one row
            equal = list(group)
            first, last = equal[0], equal[-1]
            stages = _range(first.stage, last.stage)
            epochs = _range(first.first_epoch, last.epoch_range[-1])
            updates = sum(stage.updates for stage in equal)
            samples = sum(stage.epochs * stage.samples for stage in equal)
            counts = (f"{last.batches:,}", f"{updates:,}")
            kappa, lam = ("" if x is None else f"{x:.4f}" for x in (last.kappa_m, last.lambda_m))
            noise = (f"{last.phi_m:.4f}", kappa, lam, f"{last.eta_m:.5g}", f"{last.b_m:,.1f}")
            rows.append((stages, epochs, *counts, *noise, f"{samples:,}"))
        if self.by_epochs:
            rows = [row[:-1] for row in rows]
        if len(rows) - 1 > MOST_ROWS:
            half = MOST_ROWS // 2
            rows = [*rows[: half + 1], ("…",) * len(rows[0]), *rows[-half:]]
        total = f"{self.samples / self.n:,g} epochs of {self.n:,} samples: {self.updates:,} updates"
        if self.warmup:
            total += f", η warms up over {self.warmup:,} samples"
        return "\n".join([*aligned(rows), total])

    @property
    def epochs(self) -> int:
        """All epochs; a last part of an epoch, and each full-batch final update, count as one."""
        return self.stages[-1].epoch_range[-1] if self.stages else 0

    @property
    def samples(self) -> int:
        """Samples in all, each counted as often as it is trained on."""
        return sum(stage.epochs * stage.samples for stage in self.stages)

    @property
    def updates(self) -> int:
        """Parameter updates in all."""
        return self._ends[-1] if self.stages else 0

    @property
    def by_epochs(self) -> bool:
        """Whether every stage is of whole epochs."""
        return all(stage.samples == self.n for stage in self.stages)

    @property
    def batch_sizes(self) -> list[int]:
        """All sizes of batches, the largest first."""
        return sorted(self.sizes_from(1), reverse=True)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``plan.csv``, with STAGE_COLUMNS alone if all stages are whole epochs."""
        left_out = INSIDE_EPOCHS if self.by_epochs else ()
        rows = (asdict(stage) for stage in self.stages)
        return [{key: value for key, value in row.items() if key not in left_out} for row in rows]

    def stage_of_epoch(self, epoch: int) -> Stage:
        """The row that an epoch, counted from 1, begins with.

        Raises:
            IndexError: the plan has no such epoch.
        """
        return self.segments(epoch)[0]

    def segments(self, epoch: int) -> tuple[Stage, ...]:
        """The rows of an epoch, counted from 1: one, unless stages begin inside it.

        Raises:
            IndexError: the plan has no such epoch.
        """
        if not 1 <= epoch <= self.epochs:
            raise IndexError(f"epoch {epoch}: the plan has epochs 1 to {self.epochs}")
        last = bisect_right(self.stages, epoch, key=lambda stage: stage.first_epoch)
        return self.stages[self._epochs[last - 1][0] : last]

    def batches_of_epoch(self, epoch: int) -> int:
        """The number of batches of an epoch, counted from 1.

        Raises:
            IndexError: the plan has no such epoch.
        """
        return sum(row.batches for row in self.segments(epoch))

    def at(self, update: int) -> Place:
        """The stage, epoch, batch and η of an update, counted from 1.

        Raises:
            IndexError: the plan has no such update.
        """
        if not 1 <= update <= self.updates:
            raise IndexError(f"update {update}: the plan has updates 1 to {self.updates}")
        index = bisect_right(self._ends, update - 1)
        stage = self.stages[index]
        within = update - 1 - (self._ends[index] - stage.updates)
        epochs, batch = divmod(within, stage.batches)
        epoch = stage.first_epoch + epochs
        _, before, total = self._epochs[index]
        low, high = batches.bounds(stage.samples, stage.batches, batch)
        rate = stage.eta_m
        trained = (epoch - 1) * self.n + stage.start + high  # with this update
        if trained < self.warmup:
            rate *= trained / self.warmup
        return Place(
            update, stage, epoch, before + batch + 1, total, stage.start + low, high - low, rate
        )

    def sizes_from(self, update: int) -> set[int]:
        """All batch sizes from the row of an update, counted from 1, on."""
        index = bisect_right(self._ends, update - 1)
        rows = {(stage.samples, stage.batches) for stage in self.stages[index:]}
        return {size for row in rows for size in batches.counts(*row)}

    @cached_property
    def _epochs(self) -> list[tuple[int, int, int]]:
        """For each row: its epoch's first row, and the epoch's batches before it and in all."""
        firsts = [index for index, stage in enumerate(self.stages) if not stage.start]
        epochs: list[tuple[int, int, int]] = []
        for first, end in pairwise([*firsts, len(self.stages)]):
            before = [0, *accumulate(row.batches for row in self.stages[first:end])]
            epochs += [(first, count, before[-1]) for count in before[:-1]]
        return epochs

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(stage.updates for stage in self.stages))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The plan's identity for checkpoints, the same on every machine.

        ``plan`` is a digest of all whole numbers, ``rates`` are sums of η and φ, ``arguments`` is
        for messages.
        """
        whole = [(s.epochs, s.batches, s.start, s.samples) for s in self.stages]
        weights = [(1.0, s.updates, m + 1.0) for m, s in enumerate(self.stages)]
        rates = [
            math.fsum(weight[power] * value for weight, value in zip(weights, values, strict=True))
            for values in ([s.eta_m for s in self.stages], [s.phi_m for s in self.stages])
            for power in range(3)
        ]
        digest = hashlib.sha256(repr((self.n, self.warmup, whole)).encode()).hexdigest()[:16]
        return {"plan": digest, "rates": rates, "arguments": {**self.arguments}}

    def is_that_of(self, state: Mapping[str, Any]) -> bool:
        """Whether a checkpoint's state is of this plan."""
        pairs = zip(state["rates"], self.identity["rates"], strict=True)
        close = all(math.isclose(saved, planned, rel_tol=SAME) for saved, planned in pairs)
        return close and bool(state["plan"] == self.identity["plan"])


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
