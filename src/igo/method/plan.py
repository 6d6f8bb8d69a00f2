"""The whole schedule as plain data, computed before the first step: a noise profile times a split.

Stage m has the noise level δ_m = δ_1 φ_m. The split s shares the decay between learning rate and
batch size (slides, Algorithm 3; the split is derived from it): η_m = η_1 φ_m^s and
b_m = b_1 φ_m^(-2(1-s)). An epoch is k_m equal batches, so b_m = n/k_m with a whole k_m, and η_m
takes what is left: η_m = η_1 φ_m √(k_1/k_m). So δ_m/δ_1 = φ_m to float precision in every update,
but for one sample more or less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from igo.method import batches
from igo.method.profiles import BY_EPOCH, PROFILES, Position

PUBLISHED = 0.5  # ρ of δ = η C b^(-ρ)
LENGTHS = ("equal", "algorithm3")


class PlanError(ValueError):
    """An argument of ``plan`` that cannot be planned with.

    Attributes: ``argument`` its name, ``value``, and ``allowed``: what would be right.
    """

    def __init__(self, argument: str, value: object, allowed: str) -> None:
        self.argument, self.value, self.allowed = argument, value, allowed
        super().__init__(f"{argument}={value} is not allowed: {allowed}")


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


STAGE_COLUMNS = tuple(field.name for field in fields(Stage))


@dataclass(frozen=True)
class Plan:
    """All stages of a run, in order; n is the number of training samples."""

    stages: tuple[Stage, ...]
    n: int

    @property
    def epochs(self) -> int:
        """Epochs in all, those of a full-batch final stage included."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def updates(self) -> int:
        """Parameter updates in all."""
        return sum(stage.updates for stage in self.stages)

    @property
    def batch_sizes(self) -> list[int]:
        """All sizes of batches, larger ones first."""
        found = {size for stage in self.stages for size in batches.sizes(self.n, stage.batches)}
        return sorted(found, reverse=True)

    @property
    def rising(self) -> int:
        """Stages after which η rises, κ_m > 1, as a whole k_m cannot follow φ_m more closely."""
        return sum(stage.kappa_m is not None and stage.kappa_m > 1 + 1e-12 for stage in self.stages)

    def epochs_of_stages(self, start: int = 0) -> Iterator[tuple[int, Stage]]:
        """Yield (epoch, its stage) for every epoch after the first ``start`` ones."""
        for stage in self.stages:
            yield from ((epoch, stage) for epoch in stage.epoch_range if epoch > start)


@dataclass(frozen=True)
class Batching:
    """How many equal batches an epoch has at a noise level, between its two bounds.

    Args:
        n: training samples.
        first: k_1.
        least: k that keeps batches within max_batch_size.
        split: s, the learning rate's share of the decay.
        noise_exponent: ρ of δ = η C b^(-ρ).
        multiple: hardware grid that the larger of the two batch sizes is put on where possible.
    """

    n: int
    first: int
    least: int
    split: float
    noise_exponent: float = PUBLISHED
    multiple: int = 1

    def count(self, phi: float, before: int) -> int:
        """k_m = ⌈k_1 φ_m^((1-s)/ρ)⌉, not below its bound, never above ``before``, k_{m-1}."""
        wanted = self.first * math.pow(phi, (1 - self.split) / self.noise_exponent)
        k = min(max(batches.whole(wanted), self.least), before)
        return k if self.multiple == 1 else self._on_grid(k, before)

    def learning_rate(self, first: float, phi: float, k: int) -> float:
        """η_m = η_1 φ_m (k_1/k_m)^ρ, which keeps δ on its curve whatever k is."""
        return first * phi * math.pow(self.first / k, self.noise_exponent)

    def _on_grid(self, k: int, before: int) -> int:
        """The least k from here to ``before`` whose larger batch is on the grid; k without one."""
        largest = batches.sizes(self.n, k)[0] // self.multiple * self.multiple
        for size in range(largest, 0, -self.multiple):
            found = max(batches.count(self.n, size), k)
            if found > before:
                break
            if batches.sizes(self.n, found)[0] == size:
                return found
        return k


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
    _check(profile, split, batch_size, n, lengths)
    count = epochs if stages is None else stages
    first, cap = batches.count(n, batch_size), min(max_batch_size or n, n)
    batching = Batching(n, first, batches.count(n, cap), split, noise_exponent, batch_multiple)

    def phi_of(m: int, epochs_before: int) -> float:
        return PROFILES[profile](Position(m, count, epochs_before), **of_profile)

    starts = [m * epochs // count for m in range(count)]
    phis = [phi_of(m + 1, starts[m]) for m in range(count)]
    _check_phis(profile, phis)
    ks: list[int] = []
    for phi in phis:
        ks.append(first if by_momentum else batching.count(phi, ks[-1] if ks else first))
    etas = [
        float(learning_rate) if by_momentum else batching.learning_rate(learning_rate, phi, k)
        for phi, k in zip(phis, ks, strict=True)
    ]
    if 0.0 in etas:
        m = etas.index(0.0) + 1
        allowed = f"it underflows to η_{m} = 0 in stage {m} of {count}; use a larger one"
        raise PlanError("learning_rate", learning_rate, allowed)
    each = [after - start for start, after in zip(starts, [*starts[1:], epochs], strict=True)]
    if lengths == "algorithm3":
        if profile in BY_EPOCH:
            allowed = f"{profile} decays by the epoch, so its stages have no lengths of their own"
            raise PlanError("lengths", lengths, allowed)
        each = _lengths(phis, [eta / learning_rate for eta in etas], ks, epochs, h)
    if final_updates:  # stage M + 1: δ = 0, gradient descent on f itself; a full batch is an epoch
        phis, ks = [*phis, 0.0], [*ks, 1]
        etas, each = [*etas, etas[-1]], [*each, final_updates]
    return Plan(tuple(_rows(phis, etas, ks, each, n)), n)


def _check(profile: str, split: float, batch_size: int, n: int, lengths: str) -> None:
    if profile not in PROFILES:
        raise PlanError("profile", profile, f"it must be one of {', '.join(PROFILES)}")
    if not 0 <= split <= 1:
        raise PlanError("split", split, "it must be in [0, 1]")
    if not 1 <= batch_size <= n:
        raise PlanError("batch_size", batch_size, f"it must be in [1, {n}], the training samples")
    if lengths not in LENGTHS:
        raise PlanError("lengths", lengths, f"it must be one of {', '.join(LENGTHS)}")


def _check_phis(profile: str, phis: Sequence[float]) -> None:
    for m, phi in enumerate(phis, 1):
        if not 0 < phi <= 1:
            raise PlanError(
                "profile",
                profile,
                f"its noise level is δ_{m} = {phi:g} δ_1 in stage {m} of {len(phis)}, which must be"
                " in (0, 1]; use fewer stages or a slower decay",
            )


def _lengths(
    phis: Sequence[float], rates: Sequence[float], ks: Sequence[int], epochs: int, h: float
) -> list[int]:
    """Epochs of each stage for updates ∝ 1/(φ_m² - h η_m/η_1), T_F of Algorithm 3 [derived].

    Whole epochs, at least one each, by largest remainders; an epoch of stage m has k_m updates.

    Raises:
        PlanError: the bracket is not positive somewhere, where T_F has no meaning.
    """
    brackets = [phi**2 - h * rate for phi, rate in zip(phis, rates, strict=True)]
    for m, bracket in enumerate(brackets, 1):
        if bracket <= 0:
            allowed = (
                f"φ_{m}² - h η_{m}/η_1 = {bracket:.3g} in stage {m} of {len(phis)}, and Algorithm 3"
                " needs it positive (ε_m > H_3 η_m); use a smaller h"
            )
            raise PlanError("h", h, allowed)
    shares = [1 / (bracket * k) for bracket, k in zip(brackets, ks, strict=True)]
    return _apportioned(shares, epochs)


def _apportioned(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers, at least 1 each, that add up to ``total`` nearly in proportion."""
    lengths = [1] * len(shares)
    spare = total - len(shares)  # after one each
    exact = [max(0.0, share / math.fsum(shares) * total - 1) for share in shares]
    scale = spare / math.fsum(exact) if spare else 0.0
    exact = [one * scale for one in exact]
    lengths = [1 + math.floor(one) for one in exact]
    by_remainder = sorted(range(len(exact)), key=lambda m: math.floor(exact[m]) - exact[m])
    for m in by_remainder[: total - sum(lengths)]:
        lengths[m] += 1
    return lengths


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
