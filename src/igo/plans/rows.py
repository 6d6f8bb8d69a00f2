"""The rows of a plan, and an update of it, as plain data."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the plan: a stage, or what it has of an epoch. The names are the paper's.

    ``stage`` is m; the row has ``epochs`` epochs from ``first_epoch`` on. Both count from 1. Of
    each epoch it has N = ``samples`` samples, from ``start`` on: all n, unless the row is less than
    an epoch. They are cut into k_m = ``batches`` batches, and ``b_m`` = N/k_m is the mean batch
    size. ``gamma_m``, ``kappa_m`` and ``lambda_m`` lead from this row to the next (γ_m =
    δ_{m+1}/δ_m, κ_m = η_{m+1}/η_m, λ_m = b_{m+1}/b_m) and are None in the last row.
    """

    stage: int
    first_epoch: int
    epochs: int
    batches: int
    updates: int = field(init=False)
    phi_m: float = 1.0  # ``rated`` sets φ and η, once all rows are cut.
    gamma_m: float | None = None
    kappa_m: float | None = None
    lambda_m: float | None = None
    eta_m: float = 1.0
    b_m: float = field(init=False)
    start: int
    samples: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "updates", self.epochs * self.batches)
        object.__setattr__(self, "b_m", self.samples / self.batches)

    @property
    def epoch_range(self) -> range:
        """The row's epochs, counted from 1."""
        return range(self.first_epoch, self.first_epoch + self.epochs)


@dataclass(frozen=True, slots=True)
class Update:
    """One parameter update of a plan, or one part of it.

    ``number`` counts the updates of the plan from 1, ``epoch`` its epochs, ``batch`` the epoch's
    ``batches`` and ``part`` the batch's ``parts``. ``batch_size`` is b, the samples of the batch
    over all ranks and parts. This part has ``samples`` samples on this rank: of the epoch's
    permutation the one at ``start``, and each ``ranks``-th after it. ``learning_rate`` is η; of a
    plan without a learning rate η/η_1, and of a ``Schedule``'s update as it was set. ``row`` has
    the rest, such as ``row.b_m`` and ``row.phi_m``.
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


def root_of_b(row: Row, first_row: Row) -> float:
    """√(b/b_1), of the mean batch sizes of two rows."""
    square = row.samples * first_row.batches / (first_row.samples * row.batches)
    return math.pow(square, 0.5)  # math.sqrt would change the last bits of old plans.


def rated(
    rows: Sequence[Row], factors: Iterable[float], eta_1: float, *, by_rate: bool
) -> tuple[Row, ...]:
    """The rows with φ and η. A row's factor is its φ, or with ``by_rate`` its η/η_1.

    The other one follows from η = η_1 φ √(b/b_1), where b is the row's mean batch size and b_1 that
    of the first row. So δ = δ_1 φ, although an epoch has a whole number of batches.
    """
    rated_rows = []
    for row, factor in zip(rows, factors, strict=True):
        root = root_of_b(row, rows[0])
        if by_rate:
            rated_rows.append(replace(row, eta_m=eta_1 * factor, phi_m=factor / root))
        else:
            rated_rows.append(replace(row, eta_m=eta_1 * factor * root, phi_m=factor))
    return linked(rated_rows)


def linked(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with their γ, κ and λ, which lead from each to the next."""
    linked_rows = [
        replace(
            row,
            gamma_m=next_row.phi_m / row.phi_m,
            kappa_m=next_row.eta_m / row.eta_m,
            lambda_m=next_row.samples * row.batches / (row.samples * next_row.batches),
        )
        for row, next_row in pairwise(rows)
    ]
    last_row = replace(rows[-1], gamma_m=None, kappa_m=None, lambda_m=None)
    return (*linked_rows, last_row)
