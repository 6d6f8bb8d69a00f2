"""The whole schedule as plain data, computed before the first step: a noise profile times a split.

Stage m has the noise level δ_m = δ_1 φ_m. The split s shares the decay between learning rate and
batch size (slides, Algorithm 3; the split is derived from it): η_m = η_1 φ_m^s and
b_m = b_1 φ_m^(-2(1-s)). An epoch is k_m equal batches, so b_m = n/k_m with a whole k_m, and η_m
takes what is left: η_m = η_1 φ_m √(k_1/k_m). So δ_m/δ_1 = φ_m to float precision in every update,
but for one sample more or less.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

from igo.method import arguments, batches
from igo.method.arguments import PlanError
from igo.method.batches import PUBLISHED, Batching
from igo.method.lengths import lengths_of_stages
from igo.method.profiles import BY_EPOCH, PROFILES, Position
from igo.words import aligned

MOST_ROWS = 12  # of a plan as text
HEADER = ("stage", "epochs", "batches", "updates", "δ_m/δ_1", "η_m", "b_m")


@dataclass(frozen=True)
class Stage:
    """One stage of the plan; the column names are those of ``plan.csv`` and of the paper.

    ``first_epoch`` counts from 1, ``batches`` is k_m, of an epoch. ``gamma_m``, ``kappa_m`` and
    ``lambda_m`` lead from this stage to the next (γ_m = δ_{m+1}/δ_m, κ_m = η_{m+1}/η_m,
    λ_m = b_{m+1}/b_m) and are None in the last. ``b_m`` = n/k_m is the mean batch size.
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

    @property
    def epoch_range(self) -> range:
        """The stage's epochs, counted from 1."""
        return range(self.first_epoch, self.first_epoch + self.epochs)

    @property
    def span(self) -> str:
        """Its epochs as text: ``3`` or ``3-7``."""
        first, last = self.first_epoch, self.epoch_range[-1]
        return str(first) if first == last else f"{first}-{last}"

    @property
    def row(self) -> tuple[str, ...]:
        """What ``print(plan)`` shows of it, below HEADER."""
        numbers = (f"{self.phi_m:.4f}", f"{self.eta_m:.5g}", f"{self.b_m:,.1f}")
        return (str(self.stage), self.span, f"{self.batches:,}", f"{self.updates:,}", *numbers)


STAGE_COLUMNS = tuple(field.name for field in fields(Stage))


@dataclass(frozen=True)
class Plan:
    """All stages of a run, in order; ``print(plan)`` shows them as a table.

    ``n`` is the number of training samples. ``by_momentum``: β carries the decay, η and b stay.
    """

    stages: tuple[Stage, ...]
    n: int
    by_momentum: bool = False

    def __str__(self) -> str:
        """One line a stage, the middle ones left out where there are many, and one of totals."""
        rows = [stage.row for stage in self.stages]
        if len(rows) > MOST_ROWS:
            half = MOST_ROWS // 2
            rows = [*rows[:half], ("…",) * len(HEADER), *rows[-half:]]
        total = f"{self.epochs:,} epochs of {self.n:,} samples: {self.updates:,} updates"
        return "\n".join([*aligned([HEADER, *rows]), total])

    @property
    def epochs(self) -> int:
        """Epochs in all, those of a full-batch final stage included."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def updates(self) -> int:
        """Parameter updates in all."""
        return self._ends[-1] if self.stages else 0

    @property
    def batch_sizes(self) -> list[int]:
        """All sizes of batches, larger ones first."""
        found = {size for stage in self.stages for size in batches.sizes(self.n, stage.batches)}
        return sorted(found, reverse=True)

    @property
    def rising(self) -> int:
        """Stages after which η rises, κ_m > 1, as a whole k_m cannot follow φ_m more closely."""
        return sum(stage.kappa_m is not None and stage.kappa_m > 1 + 1e-12 for stage in self.stages)

    def stage_of_epoch(self, epoch: int) -> Stage:
        """The stage that an epoch, counted from 1, belongs to; its ``batches`` are the epoch's.

        Raises:
            IndexError: the plan has no such epoch.
        """
        if not 1 <= epoch <= self.epochs:
            raise IndexError(f"epoch {epoch}: the plan has epochs 1 to {self.epochs}")
        return self.stages[bisect_right(self.stages, epoch, key=lambda one: one.first_epoch) - 1]

    def locate(self, update: int) -> tuple[Stage, int, int]:
        """Where an update, counted from 1, is: its stage, its epoch, and its batch in the epoch.

        Raises:
            IndexError: the plan has no such update.
        """
        if not 1 <= update <= self.updates:
            raise IndexError(f"update {update}: the plan has updates 1 to {self.updates}")
        index = bisect_right(self._ends, update - 1)
        stage = self.stages[index]
        epochs, batch = divmod(update - 1 - (self._ends[index] - stage.updates), stage.batches)
        return stage, stage.first_epoch + epochs, batch + 1

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(stage.updates for stage in self.stages))

    @cached_property
    def digest(self) -> str:
        """What tells this plan from others, for checkpoints."""
        told = (self.n, self.by_momentum, [(s.epochs, s.batches, s.eta_m) for s in self.stages])
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def epochs_of_stages(self, start: int = 0) -> Iterator[tuple[int, Stage]]:
        """Yield (epoch, its stage) for every epoch after the first ``start`` ones."""
        for stage in self.stages:
            yield from ((epoch, stage) for epoch in stage.epoch_range if epoch > start)


def plan(
    profile: str,
    *,
    n: int,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    split: float = 0.5,
    stages: int | None = None,
    max_batch_size: int | None = None,
    batch_multiple: int = 1,
    noise_exponent: float = PUBLISHED,
    lengths: str = "equal",
    h: float = 0.0,
    final_updates: int = 0,
    by_momentum: bool = False,
    **of_profile: Any,
) -> Plan:
    """Compute every stage of a training run.

    >>> plan = igo.plan("graduated", n=50_000, epochs=5, learning_rate=0.1, batch_size=32, p=0.5)
    >>> print(plan)
    stage  epochs  batches  updates  δ_m/δ_1       η_m   b_m
        1       1    1,563    1,563   1.0000       0.1  32.0
        2       2    1,398    1,398   0.8944  0.094574  35.8
        3       3    1,211    1,211   0.7746     0.088  41.3
        4       4      989      989   0.6325  0.079508  50.6
        5       5      699      699   0.4472  0.066874  71.5
    5 epochs of 50,000 samples: 5,860 updates
    >>> plan.updates, plan.stage_of_epoch(2).batches
    (5860, 1398)
    >>> stage, epoch, batch = plan.locate(update=1600)
    >>> stage.stage, epoch, batch
    (2, 2, 37)

    Args:
        profile: one of ``igo.method.profiles.PROFILES``.
        n: training samples.
        epochs: passes over them.
        learning_rate: η_1.
        batch_size: b_1, the largest batch of the first stage; k_1 = ⌈n/b_1⌉.
        split: s in [0, 1], the learning rate's share of the decay: 1 all of it, 0 none.
        stages: M, by default one an epoch.
        max_batch_size: bound on every batch; None is n.
        batch_multiple: puts the larger batch size of a stage on a grid where that is possible.
        noise_exponent: ρ of δ = η C b^(-ρ): 1/2 as published, 1 by Smith et al. 2018, (α - 1)/α
            where the noise has tail index α.
        lengths: ``equal`` stages, or ``algorithm3``: updates ∝ 1/(φ_m² - h η_m/η_1) [derived].
        h: of ``algorithm3``, 0 or more.
        final_updates: updates of stage M + 1, where δ = 0: full batches at the last η.
        by_momentum: leave η and b as they are, since β carries the decay.
        of_profile: the profile's own parameters, such as ``p``.

    Raises:
        PlanError: naming the argument, its value and what would be right.
    """
    given = {"profile": profile, "n": n, "epochs": epochs, "learning_rate": learning_rate,
             "batch_size": batch_size, "split": split, "stages": stages,
             "max_batch_size": max_batch_size, "batch_multiple": batch_multiple,
             "noise_exponent": noise_exponent, "lengths": lengths, "h": h,
             "final_updates": final_updates, "by_momentum": by_momentum}  # fmt: skip
    arguments.check(given, of_profile)
    count = epochs if stages is None else stages
    starts = [m * epochs // count for m in range(count)]
    phis = _noise_levels(profile, starts, of_profile)
    first, cap = batches.count(n, batch_size), min(max_batch_size or n, n)
    batching = Batching(n, first, batches.count(n, cap), split, noise_exponent, batch_multiple)
    etas, ks = [float(learning_rate)] * count, [first] * count
    for m, phi in enumerate(() if by_momentum else phis):
        ks[m] = batching.count(phi, ks[m - 1] if m else first)
        etas[m] = batching.learning_rate(learning_rate, phi, ks[m])
    if 0.0 in etas:
        m = etas.index(0.0) + 1
        allowed = f"it underflows to η_{m} = 0 in stage {m} of {count}; use a larger one"
        raise PlanError("learning_rate", learning_rate, allowed)
    each = [after - start for start, after in pairwise([*starts, epochs])]
    if lengths == "algorithm3":
        if profile in BY_EPOCH:
            allowed = f"{profile} decays by the epoch, so its stages have no lengths of their own"
            raise PlanError("lengths", lengths, allowed)
        each = lengths_of_stages(phis, [eta / learning_rate for eta in etas], ks, epochs, h)
    if final_updates:  # stage M + 1: δ = 0, gradient descent on f itself; a full batch is an epoch
        phis, ks = [*phis, 0.0], [*ks, 1]
        etas, each = [*etas, etas[-1]], [*each, final_updates]
    return Plan(tuple(_rows(phis, etas, ks, each, n)), n, by_momentum)


def _noise_levels(
    profile: str, starts: Sequence[int], of_profile: Mapping[str, Any]
) -> list[float]:
    """φ_m of stages that have so many epochs before them."""
    phis = []
    for m, epochs_before in enumerate(starts, 1):
        phi = PROFILES[profile](Position(m, len(starts), epochs_before), **of_profile)
        if not 0 < phi <= 1:
            raise PlanError(
                "profile",
                profile,
                f"its noise level is δ_{m} = {phi:g} δ_1 in stage {m} of {len(starts)}, which must"
                " be in (0, 1]; use fewer stages or a slower decay",
            )
        phis.append(phi)
    return phis


def _rows(
    phis: Sequence[float], etas: Sequence[float], ks: Sequence[int], epochs: Sequence[int], n: int
) -> Iterator[Stage]:
    first_epoch = 1
    for m, (phi, eta, k, length) in enumerate(zip(phis, etas, ks, epochs, strict=True)):
        last = m + 1 == len(phis)
        yield Stage(
            stage=m + 1,
            first_epoch=first_epoch,
            epochs=length,
            batches=k,
            updates=length * k,
            phi_m=phi,
            gamma_m=None if last else phis[m + 1] / phi,
            kappa_m=None if last else etas[m + 1] / eta,
            lambda_m=None if last else k / ks[m + 1],
            eta_m=eta,
            b_m=n / k,
        )
        first_epoch += length
