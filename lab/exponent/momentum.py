"""Question (iv): which settings with momentum give equal results: those of equal δ or equal step?

The reference is SGD. An arm A has the η of equal δ by the published formulas
(``igo.noise_level``). An arm B has equal η/(1 − β) (SHB) or equal η (NSHB).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from igo import noise_level
from igo.analysis import statistics
from igo.analysis.statistics import LEVEL, Array, Estimate
from lab.exponent.trainings import Trainings

ETA, BATCH = 0.4, 16  # of the reference
BETAS = (0.5, 0.9)
MARGIN = math.log(1.1)  # of ln training loss
# measured at epoch 5 of the reference, seed 900, from 500 batches of 16
VARIANCE, GRADIENT_NORM = 18.931, 0.388
REFERENCE, SENSITIVITY = "SGD 0.4", "SGD 0.1"
LOSS, ACCURACY = "train/loss", "test/accuracy"


def eta_of_equal_noise(optimizer: str, beta: float) -> float:
    """The η with the δ of the reference, to four digits."""
    noise_at_rate_1 = noise_level(
        1.0, BATCH, VARIANCE, optimizer=optimizer, momentum=beta, gradient_norm=GRADIENT_NORM
    )
    return float(f"{noise_level(ETA, BATCH, VARIANCE) / noise_at_rate_1:.4g}")


def eta_of_equal_step(optimizer: str, beta: float) -> float:
    """The η with the step of the reference along a constant gradient, to four digits."""
    return float(f"{ETA * (1 - beta) if optimizer == 'shb' else ETA:.4g}")


def _arms() -> dict[str, dict[str, Any]]:
    common = {
        "dataset.samples": 8000, "evaluate_every": 1000, "schedule": "constant",
        "batch_size": BATCH, "epochs": 2,
    }  # fmt: skip
    arms = {
        f"SGD {eta:g}": {**common, "optimizer": "sgd", "learning_rate": eta} for eta in (ETA, 0.1)
    }
    for letter, rule in (("A", eta_of_equal_noise), ("B", eta_of_equal_step)):
        for optimizer in ("shb", "nshb"):
            for beta in BETAS:
                arms[f"{letter} {optimizer.upper()} {beta:g}"] = {
                    **common, "optimizer": optimizer, "optimizer.momentum": beta,
                    "learning_rate": rule(optimizer, beta),
                }  # fmt: skip
    return arms


TRAININGS = Trainings(
    sweep="exponent_momentum", experiment="study_fashion_mnist", arms=_arms(), seeds=12
)


@dataclass(frozen=True)
class Arm:
    """An arm against the reference: ln of the ratio of losses, p values, points of accuracy.

    ``detectable`` is ln of the ratio that 80 % of such studies find. ``seeds`` is the number of
    seeds that a test of equality needs.
    """

    ratio: Estimate
    p_equal: float
    p_equal_adjusted: float
    p: float
    p_adjusted: float
    detectable: float | None
    seeds: int | None
    accuracy: Estimate

    @property
    def equal(self) -> bool:
        """Whether TOST finds the arm within the margin."""
        return self.p_equal_adjusted <= LEVEL

    @property
    def differs(self) -> bool:
        """Whether the sign-flip test finds a difference."""
        return self.p_adjusted <= LEVEL


@dataclass(frozen=True)
class Judged:
    """The arms, whether the sensitivity arm differs as it must, and the verdicts of A and B."""

    n: int
    arms: dict[str, Arm]
    sensitive: bool
    verdicts: dict[str, str]


def judge(losses: Mapping[str, Array], accuracies: Mapping[str, Array]) -> Judged:
    """Judge training losses and test accuracies of the last epoch, (seeds,) for each arm."""
    others = [name for name in losses if name != REFERENCE]
    gaps = {name: np.log(losses[name] / losses[REFERENCE]) for name in others}
    primary = [name for name in others if name != SENSITIVITY]
    equal, differs = (
        dict(zip(primary, statistics.holm([test(gaps[n]) for n in primary]), strict=True))
        for test in (_p_equal, _p)
    )
    arms = {}
    for name in others:
        gap, tests = gaps[name], len(primary) if name in primary else 1
        sd, n = float(gap.std(ddof=1)), len(gap)
        p_equal, p = _p_equal(gap), _p(gap)
        arms[name] = Arm(
            statistics.mean_of(gap), p_equal, float(equal.get(name) or p_equal), p,
            float(differs.get(name) or p), statistics.detectable(sd, n, LEVEL / tests),
            statistics.seeds_to_equate(MARGIN, sd, LEVEL / tests),
            statistics.mean_of(100 * (accuracies[name] - accuracies[REFERENCE])),
        )  # fmt: skip
    control = arms[SENSITIVITY]
    sensitive = control.p <= LEVEL and abs(control.ratio.value) > MARGIN
    verdicts = {
        letter: _verdict([arms[n] for n in primary if n.startswith(letter)], sensitive)
        for letter in "AB"
    }
    return Judged(len(losses[REFERENCE]), arms, sensitive, verdicts)


def _p(gap: Array) -> float:
    p = statistics.sign_flip(gap)
    return 1.0 if p is None else p


def _p_equal(gap: Array) -> float:
    p = statistics.equivalence(gap, MARGIN)
    return 1.0 if p is None else p


def _verdict(arms: list[Arm], sensitive: bool) -> str:
    if any(arm.differs and not arm.equal for arm in arms):
        return "refuted"
    return "confirmed" if sensitive and all(arm.equal for arm in arms) else "undecided"
