"""η and b of each stage from the noise that is measured when the stage begins.

A plan assumes that C² is constant. Here η √(C²/b) = δ_1 φ_m holds with the measured C². So η/√b
changes by ψ = φ_m √(C²_1/C²) against the first stage, and the split divides ψ between η and b as
the plan divides φ_m.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from igo.method.arguments import PlanError
from igo.method.batches import PUBLISHED, Growth
from igo.method.plan import Plan, Stage, rows_of
from igo.noise.noise import Noise, noise_level


@dataclass(frozen=True)
class Feedback:
    """Makes a plan follow the noise: ``igo.BatchSampler(plan, feedback=igo.Feedback())``.

    At the start of each stage, ``measured`` of the sampler chooses the stage's η and b:

    >>> plan = igo.plan("linear", n=60, epochs=2, learning_rate=0.1, batch_size=4, split=0)
    >>> batches = igo.BatchSampler(plan, feedback=igo.Feedback())
    >>> def noise(variance):  # as igo.measure_noise and igo.NoiseMeter give it
    ...     return igo.Noise(variance, None, 0.0, batch_size=4, batches=8, sampling="disjoint")
    >>> for epoch in batches.epochs():
    ...     if batches.awaits_noise:  # a stage begins
    ...         batches.measured(noise(8.0 if epoch == 1 else 4.0))
    ...     sizes = {batches.advance().batch_size for _ in batches}
    ...     print(epoch, sizes, plan.stage_of_epoch(epoch).b_m)
    1 {4} 4.0
    2 {8, 7} 15.0

    b never shrinks, and never exceeds the plan's ``max_batch_size``. δ at the start of a stage is
    at most δ at the start of the stage before, unless C² rose by more than ``limit`` can balance.

    Args:
        limit: the largest factor between a stage's change of η/√b and the planned change.
        hysteresis: keep the C² in use while it is within the interval of the new one, so that
            chance alone changes neither η nor b.

    Raises:
        PlanError: the limit is not above 1.
    """

    limit: float = 2.0
    hysteresis: bool = True

    def __post_init__(self) -> None:
        if not self.limit > 1:
            raise PlanError("limit", self.limit, "it must be above 1")


class Course:
    """The plan as it is trained: with feedback it follows the noise, otherwise it never changes.

    ``plan`` has past stages as trained, and the others as if C² stayed the same. η and b are chosen
    up to the update ``known``.

    Raises:
        PlanError: the plan cannot follow the noise.
    """

    def __init__(self, plan: Plan, feedback: Feedback | None) -> None:
        self.planned = self.plan = plan
        self.known, self.feedback, self._first = plan.updates, feedback, plan.stages[0]
        if feedback is None:
            return
        if plan.by_momentum:
            allowed = "with by_momentum β carries the decay; leave one of the two out"
            raise PlanError("feedback", feedback, allowed)
        if plan.batching is None or plan.batching.noise_exponent != PUBLISHED:
            allowed = "it follows the published δ = η √(C²/b): leave noise_exponent out"
            raise PlanError("feedback", feedback, allowed)
        start: dict[str, Any] = {"rows": [], "reference": None, "variance": None, "delta": None}
        self.load_state_dict({"feedback": start})

    def state_dict(self) -> dict[str, Any]:
        """k and η of the rows so far; C² at the start and in use; δ at the newest stage's start."""
        if self.feedback is None:
            return {}
        values = {"reference": self._reference, "variance": self._variance, "delta": self._delta}
        return {"feedback": {"rows": [list(row) for row in self._rows], **values}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was called.

        Raises:
            PlanError: only one of the state and this course has feedback.
        """
        if (self.feedback is None) == ("feedback" in state):
            allowed = "the checkpoint was made with{} it; do the same"
            raise PlanError("feedback", self.feedback, allowed.format("out" * bool(self.feedback)))
        if self.feedback is None:
            return
        values = state["feedback"]
        self._rows: list[tuple[int, float]] = [(k, eta) for k, eta in values["rows"]]
        self._reference: float | None = values["reference"]
        self._variance: float | None = values["variance"]
        self._delta: float | None = values["delta"]
        self._forecast()

    def _forecast(self) -> None:
        """Plan the stages to come with the newest C²."""
        rows, applied, growth = self.planned.stages, [*self._rows], self._growth()
        self.known = sum(row.epochs * k for row, (k, _) in zip(rows, applied, strict=False))
        for row in rows[len(applied) :]:
            if row.phi_m > 0:
                applied.append(growth.next(row.stage, row.samples, row.phi_m * self._departure))
            else:  # full batches at the last η need no measurement
                applied.append((row.batches, applied[-1][1]))
        stages = rows_of(rows, [row.phi_m for row in rows], applied)
        self.plan = replace(self.planned, stages=stages)
        if not any(row.phi_m for row in rows[len(self._rows) :]):
            self.known = self.plan.updates

    def decide(self, noise: Noise | None) -> None:
        """Choose k and η of the stage that begins; as forecast if ``noise`` is None.

        Raises:
            PlanError: C² is not finite, or 0 in the first measurement.
        """
        if noise is not None:
            self._take(noise)
        rows = self.planned.stages[len(self._rows) :]
        psi, growth = self._wanted(rows[0]), self._growth()
        for row in rows[:3]:  # a stage has at most three rows
            if row.stage == rows[0].stage:
                self._rows.append(growth.next(row.stage, row.samples, psi))
        if self._variance is not None:
            (k, eta), n = self._rows[-1], self.planned.stages[len(self._rows) - 1].samples
            self._delta = noise_level(eta, n / k, self._variance)
        self._forecast()

    def _take(self, noise: Noise) -> None:
        variance = float(noise.variance)
        if not math.isfinite(variance):
            raise PlanError("noise", variance, "C² is not finite; a smaller η may help")
        if self._reference is None:
            if variance <= 0:
                raise PlanError("noise", variance, "C² is 0: there is no noise to follow")
            self._reference = variance
        assert self.feedback is not None
        if self._variance is not None and self.feedback.hysteresis and noise.interval:
            low, high = noise.interval
            if low <= self._variance <= high:
                return
        self._variance = variance

    def _wanted(self, stage: Stage) -> float:
        """ψ of a stage, within a factor of ``limit`` of the planned change."""
        assert self.feedback is not None
        if self._delta is None or self._variance is None or self._reference is None:
            return stage.phi_m * self._departure
        eta, b, last = self._first.eta_m, self._first.b_m, len(self._rows) - 1
        delta_1 = noise_level(eta, b, self._reference)
        target, now = delta_1 * stage.phi_m, noise_level(eta, b, self._variance)
        psi = min(target, self._delta) / now if now > 0 else math.inf
        planned = self._level(last) * target / (delta_1 * self.planned.stages[last].phi_m)
        return min(max(psi, planned / self.feedback.limit), planned * self.feedback.limit)

    @property
    def _departure(self) -> float:
        """ψ/φ of the newest stage."""
        last = len(self._rows) - 1
        return self._level(last) / self.planned.stages[last].phi_m if self._rows else 1.0

    def _level(self, index: int) -> float:
        """ψ of a row: its η/√b, divided by η/√b of the first row."""
        (k, eta), n, first = self._rows[index], self.planned.stages[index].samples, self._first
        return eta / first.eta_m * math.sqrt(k * first.samples / (n * first.batches))

    def _growth(self) -> Growth:
        assert self.planned.batching is not None
        growth = Growth(self.planned.batching, self._first.eta_m)
        for index, (k, _) in enumerate(self._rows):
            growth.note(self.planned.stages[index].samples, k, self._level(index))
        return growth
