"""The whole schedule as plain data, computed before the first step: a noise profile times a split.

Stage m has the noise level δ_m = δ_1 φ_m. The split s divides the decay between learning rate and
batch size (slides, Algorithm 3; the split is derived from it): η_m = η_1 φ_m^s and
b_m = b_1 φ_m^(-2(1-s)). A segment, the part of an epoch that a stage has, is cut into k equal
batches, so b = N/k. As k is a whole number, η = η_1 φ_m √(b/b_1) keeps δ/δ_1 = φ_m to float
precision in every update, but for one sample more or less.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from igo.method import arguments, batches, rounds
from igo.method.arguments import RAMP, PlanError, PlanWarning
from igo.method.batches import PUBLISHED, Batching, Growth
from igo.method.profiles import BY_EPOCH, Position, Profile, function, name_of
from igo.method.segments import Segments, cut, ramp, starts_of_stages
from igo.method.stages import STAGE_COLUMNS, Plan, Stage

__all__ = ["STAGE_COLUMNS", "Plan", "Stage", "plan"]


def plan(
    profile: str | Profile,
    *,
    n: int | None = None,
    epochs: int | None = None,
    samples: int | None = None,
    learning_rate: float,
    batch_size: int | str,
    split: float | None = None,
    stages: int | None = None,
    warmup: float = 0,
    switch: float = 0.0,
    max_batch_size: int | None = None,
    batch_multiple: int = 1,
    noise_exponent: float = PUBLISHED,
    lengths: str = "equal",
    h: float = 0.0,
    epsilon: float | None = None,
    alpha_0: float | None = None,
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
    >>> place = plan.at(update=1600)
    >>> place.stage.stage, place.epoch, place.batch
    (2, 2, 37)

    A single pass over a stream has as many stages as you like:

    >>> print(igo.plan("cosine", samples=10**6, stages=3, learning_rate=0.1, batch_size=100))
    stage  epochs  batches  updates  δ_m/δ_1       η_m    b_m  samples
        1       1    3,334    3,334   1.0000       0.1  100.0  333,333
        2       1    2,501    2,501   0.7500  0.086594  133.3  333,334
        3       1      834      834   0.2500  0.049985  399.7  333,333
    1 epochs of 1,000,000 samples: 6,669 updates

    Args:
        profile: one of ``igo.method.profiles.PROFILES``, ``"ramp"``, a function that returns φ in
            (0, 1] for t in [0, 1), the share of the schedule before a stage (φ is 1 at t = 0), or
            ``"method1"`` to ``"method4"``, the paper's methods with 5 stages.
        n: training samples. For a stream leave it out, and give ``samples``.
        epochs: passes over the n samples.
        samples: instead of ``epochs``, how many samples to train on, counting repeats. The last
            epoch need not be a whole one.
        learning_rate: η_1.
        batch_size: b_1, the largest batch of the first stage; k_1 = ⌈n/b_1⌉. For ``"ramp"``, batch
            sizes by samples: ``"0:768 250M:1536"``. Then φ_m = (b_1/b_m)^(ρ/(1 - s)), so that η is
            constant at split 0, and falls as b_m^(-ρ) at split 1/2.
        split: s in [0, 1], the learning rate's share of the decay: 1 all of it, 0 none; 1/2 by
            default, but the paper's methods have their own.
        stages: M, by default one for each epoch. If there are more stages than epochs, or the last
            epoch is not whole, stages begin inside epochs.
        warmup: samples, or below 1 a share of all samples, over which η and δ rise linearly to η_1
            and δ_1: the update that ends with sample s has η_1 s/``warmup``. The profile begins
            after the warm-up.
        switch: the share t of the schedule after which the batch grows; until then b is b_1, and
            the learning rate carries the whole decay.
        max_batch_size: the largest batch size allowed; None is n.
        batch_multiple: the larger batch size of a stage is a multiple of it if possible.
        noise_exponent: ρ of δ = η C b^(-ρ): 1/2 as published, 1 by Smith et al. 2018, (α - 1)/α
            if the noise has tail index α.
        lengths: ``equal`` stages, or ``algorithm3``: updates ∝ 1/(φ_m² - h η_m/η_1) [derived].
        h: of ``algorithm3``, 0 or more.
        epsilon: ε, the accuracy wanted; it chooses M = ⌈(1/(α_0 ε))^(1/p)⌉, Algorithm 3.
        alpha_0: α_0 in this M, see ``igo.method.rounds.alpha_0``.
        final_updates: updates of stage M + 1, where δ = 0: full batches at the last η.
        by_momentum: keep η and b constant, as β carries the decay.
        of_profile: the profile's parameters, such as ``p``.

    Raises:
        PlanError: it names the argument, its value and which values are right.
    """
    given = dict(locals())
    del given["of_profile"]
    items = {**given, **of_profile}.items()
    typed = {name: name_of(value) if callable(value) else value for name, value in items}
    given, of_profile = arguments.by_name(given, of_profile)
    arguments.check(given, of_profile)
    planned = _Planner(arguments.cast(given), arguments.cast(of_profile)).plan()
    return replace(planned, arguments=arguments.cast(typed))


class _Planner:
    """The steps from checked arguments to a plan."""

    def __init__(self, given: Mapping[str, Any], of_profile: Mapping[str, Any]) -> None:
        self.given, self.of_profile = dict(given), of_profile
        n, epochs, samples = given["n"], given["epochs"], given["samples"]
        self.total: int = n * epochs if samples is None else samples
        self.n: int = self.total if n is None else n
        self.given["stages"] = rounds.of_plan(given, of_profile, self.total)
        if 0 < given["warmup"] < 1:
            self.given["warmup"] = self.given["warmup"] * self.total
        self.given["warmup"] = round(self.given["warmup"])
        self.sizes: list[int] = []  # of a ramp
        self.starts = self._starts()
        self.whole = self.total % self.n == 0 and not any(start % self.n for start in self.starts)
        self.phis = self._noise_levels()
        first = next(cut(self.starts, self.total, self.n)).samples
        k_1 = batches.count(first, min(self.given["batch_size"], first))
        arguments.check_warmup(given["warmup"], self.given["warmup"], first // k_1, n)
        largest = min(self.given["max_batch_size"] or self.n, self.n)
        self.batching = Batching(
            first,
            k_1,
            largest,
            self.given["split"],
            self.given["noise_exponent"],
            self.given["batch_multiple"],
            sum(m / len(self.starts) < self.given["switch"] for m in range(len(self.starts))),
        )

    def plan(self) -> Plan:
        given = self.given
        if given["lengths"] == "algorithm3":
            self.starts = self._lengthened()
        segments = list(cut(self.starts, self.total, self.n))
        phis = [self.phis[segment.stage - 1] for segment in segments]
        applied = self._applied(segments)
        for segment, (_, eta) in zip(segments, applied, strict=True):
            if eta == 0:
                allowed = (
                    f"it underflows to η_{segment.stage} = 0 in stage {segment.stage} of"
                    f" {len(self.starts)}; use a larger one"
                )
                raise PlanError("learning_rate", given["learning_rate"], allowed)
        self._warn(segments, [k for k, _ in applied])
        if given["final_updates"]:  # stage M + 1: δ = 0, gradient descent on f itself
            if not self.whole:
                allowed = "full batches must follow whole epochs of a data set of n samples"
                raise PlanError("final_updates", given["final_updates"], allowed)
            epoch = self.total // self.n + 1
            last = Segments(len(self.starts) + 1, epoch, given["final_updates"], 0, self.n)
            segments, phis = [*segments, last], [*phis, 0.0]
            applied.append((1, applied[-1][1]))
        rows = rows_of(segments, phis, applied)
        return Plan(rows, self.n, given["by_momentum"], given["warmup"], self.batching)

    def _starts(self) -> list[int]:
        given = self.given
        if given["profile"] != RAMP:
            arguments.check_sizes(self.n, self.total, given)
            return starts_of_stages(self.total, self.n, given["stages"], given["warmup"])
        if given["split"] == 1 or given["stages"] is not None:
            name = "split" if given["stages"] is None else "stages"
            allowed = "a ramp's batch sizes define the stages and carry decay; leave it out"
            raise PlanError(name, given[name], allowed)
        starts, self.sizes = ramp(given["batch_size"], self.total)
        given["batch_size"] = self.sizes[0]
        arguments.check_sizes(self.n, self.total, given)
        largest = min(given["max_batch_size"] or self.n, self.n)
        if self.sizes[-1] > largest:
            raise PlanError("batch_size", self.sizes[-1], f"no batch can be above {largest}")
        return starts

    def _noise_levels(self) -> list[float]:
        given, count = self.given, len(self.starts)
        if self.sizes:
            power = given["noise_exponent"] / (1 - given["split"])
            return [math.pow(self.sizes[0] / size, power) for size in self.sizes]
        profile, name = given["profile"], name_of(given["profile"])
        phis = []
        for m, start in enumerate(self.starts, 1):
            after = max(start - given["warmup"], 0)
            before = start // self.n - given["warmup"] // self.n if self.whole else after / self.n
            position = Position(m, count, max(before, 0))
            phi = arguments.as_number(function(profile)(position, **self.of_profile), name)
            if m == 1 and not math.isclose(phi, 1, rel_tol=1e-9):
                allowed = f"φ is {phi:g} in stage 1 and must be 1; divide φ by its value at t = 0"
                raise PlanError("profile", name, allowed)
            if not 0 < phi <= 1:
                allowed = (
                    f"its noise level is δ_{m} = {phi:g} δ_1 in stage {m} of {count}, and δ_m/δ_1"
                    " must be in (0, 1]; use fewer stages or a slower decay"
                )
                raise PlanError("profile", name, allowed)
            phis.append(phi)
        return phis

    def _applied(self, segments: Sequence[Segments]) -> list[tuple[int, float]]:
        growth = Growth(self.batching, self.given["learning_rate"])
        levels = [1.0] * len(self.phis) if self.given["by_momentum"] else self.phis
        return [growth.next(s.stage, s.samples, levels[s.stage - 1]) for s in segments]

    def _lengthened(self) -> list[int]:
        profile, count = self.given["profile"], len(self.starts)
        if profile in BY_EPOCH:
            allowed = f"{profile} decays by the epoch, so the lengths of its stages are fixed"
            raise PlanError("lengths", "algorithm3", allowed)
        if not self.whole or self.sizes or self.given["warmup"]:
            allowed = "it needs whole epochs, at least one for each stage, and no warm-up or ramp"
            raise PlanError("lengths", "algorithm3", allowed)
        applied = self._applied([Segments(m, m, 1, 0, self.n) for m in range(1, count + 1)])
        ks, etas = zip(*applied, strict=True)
        rates = [eta / self.given["learning_rate"] for eta in etas]
        epochs, h = self.total // self.n, self.given["h"]
        lengths = rounds.lengths_of_stages(self.phis, rates, ks, epochs, h)
        return [sum(lengths[:m]) * self.n for m in range(count)]

    def _warn(self, segments: Sequence[Segments], ks: Sequence[int]) -> None:
        if len(self.starts) == 1 and self.given["profile"] not in ("constant", RAMP):
            warnings.warn(
                "one stage: the noise stays at δ_1, so profile and split do nothing; give stages=",
                PlanWarning,
                stacklevel=4,
            )
        pairs = zip(segments, ks, strict=True)
        full = [segment.stage for segment, k in pairs if k == 1 and segment.samples == self.n]
        if full and self.given["max_batch_size"] is None and ks[0] > 1:
            warnings.warn(
                f"b reaches n = {self.n} in stage {full[0]} of {len(self.starts)}: from there on"
                " SGD has no noise; give max_batch_size=, or max_batch_size=n if you want this",
                PlanWarning,
                stacklevel=4,
            )


def rows_of(
    segments: Sequence[Segments | Stage],
    phis: Sequence[float],
    applied: Sequence[tuple[int, float]],
) -> tuple[Stage, ...]:
    """The rows of a plan, from φ, k and η of each segment."""
    rows = []
    for m, (segment, phi, (k, eta)) in enumerate(zip(segments, phis, applied, strict=True), 1):
        gamma = kappa = growth = None
        if m < len(segments):
            k_after, eta_after = applied[m]
            gamma, kappa = phis[m] / phi, eta_after / eta
            growth = segments[m].samples * k / (segment.samples * k_after)
        rows.append(
            Stage(
                stage=segment.stage,
                first_epoch=segment.first_epoch,
                epochs=segment.epochs,
                batches=k,
                updates=segment.epochs * k,
                phi_m=phi,
                gamma_m=gamma,
                kappa_m=kappa,
                lambda_m=growth,
                eta_m=eta,
                b_m=segment.samples / k,
                start=segment.start,
                samples=segment.samples,
            )
        )
    return tuple(rows)
