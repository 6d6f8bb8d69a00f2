"""Question (vi), on 8,000 images: does falling noise end higher? Does only the curve of δ count?

Methods 1 to 4 of the paper, five stages. (a) compares Methods 2, 3 and 4 with Method 1, each at its
own η_1. (b) compares Methods 2, 3 and 4 with each other, at one η_1. ``lab.study.judge`` has the
tests.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from igo.analysis.statistics import LEVEL, Array
from lab.exponent.trainings import Trainings
from lab.study import judge as tests
from lab.study.judge import Numbers
from lab.study.records import Run

OWN = {1: 0.4, 2: 0.4, 3: 0.4, 4: 0.4}  # η_1 of each method, as tuned
COMMON = 0.4  # η_1 of (b)
FALLING = (2, 3, 4)  # the methods whose noise falls
DIVISOR = 4  # of δ in the sensitivity arm
FACTOR = 1.25  # between the measured δ of two methods; if larger, they are no test of equal δ
ENDPOINTS = {"last epoch": "test/accuracy", "after the anneal": "annealed"}
IN_PERCENT = {"last epoch": 100, "after the anneal": 1}
NO_TEST = "not a test of equal δ"


def name(method: int, eta: float) -> str:
    """The name of an arm."""
    return f"Method {method}, η₁ = {eta:g}"


SENSITIVITY = name(2, COMMON / DIVISOR)


def _arms() -> dict[str, dict[str, Any]]:
    rates = [(m, COMMON) for m in FALLING] + [(2, COMMON / DIVISOR)] + list(OWN.items())
    return {
        name(method, eta): {
            "dataset.samples": 8000, "dataset.redraw": True, "epochs": 10, "evaluate_every": 10,
            "engine.precision": "fp32", "learning_rate": eta, "schedule": f"method{method}",
        }
        for method, eta in rates
    }  # fmt: skip


TRAININGS = Trainings(sweep="exponent_methods", experiment="exponent_small", arms=_arms(), seeds=12)


def measured_noise(run: Run) -> list[float]:
    """Mean ln δ of each stage, over the epochs in which δ was measured."""
    of_stages = itertools.groupby(run.epochs, key=lambda record: record["stage"])
    return [
        float(np.mean([math.log(r["delta_measured"]) for r in records if r["delta_measured"]]))
        for _, records in of_stages
    ]


def departure(first: Array, second: Array) -> float:
    """The factor between the δ of two arms, from ln δ (seeds, stages) of each.

    It is exp of the root mean square, over stages, of the mean difference over seeds.
    """
    return math.exp(float(np.sqrt(np.mean((first - second).mean(axis=0) ** 2))))


@dataclass(frozen=True)
class Test:
    """Two methods at an endpoint. In (b) ``departs`` is the factor between their measured δ."""

    endpoint: str
    first: int
    second: int
    numbers: Numbers
    verdict: str
    departs: float | None = None


@dataclass(frozen=True)
class Judged:
    """The tests of (a) and (b), and Method 2 less the sensitivity arm at each endpoint."""

    n: int
    higher: list[Test]
    equal: list[Test]
    sensitivity: dict[str, Numbers]

    @property
    def sensitive(self) -> dict[str, bool]:
        """Whether the sensitivity arm differs, by endpoint."""
        return {endpoint: _sensitive(numbers) for endpoint, numbers in self.sensitivity.items()}


def judge(accuracies: Mapping[str, Mapping[str, Array]], noise: Mapping[str, Array]) -> Judged:
    """Judge by the protocol's rule.

    Args:
        accuracies: in %, by endpoint and arm, (seeds,).
        noise: ln of the measured δ by arm, (seeds, stages).
    """
    sensitivity = {
        endpoint: tests.paired(by_arm[name(2, COMMON)], by_arm[SENSITIVITY])
        for endpoint, by_arm in accuracies.items()
    }
    higher = [(endpoint, method, 1) for endpoint in accuracies for method in FALLING]
    of_higher = [
        tests.paired(accuracies[e][name(i, OWN[i])], accuracies[e][name(j, OWN[j])])
        for e, i, j in higher
    ]
    pairs = list(itertools.combinations(FALLING, 2))
    equal = [(endpoint, *pair) for endpoint in accuracies for pair in pairs]
    of_equal = [
        tests.paired(accuracies[e][name(i, COMMON)], accuracies[e][name(j, COMMON)])
        for e, i, j in equal
    ]
    for family in (of_higher, of_equal):
        tests.adjusted(family)
    departs = {(i, j): departure(noise[name(i, COMMON)], noise[name(j, COMMON)]) for i, j in pairs}
    return Judged(
        len(next(iter(noise.values()))),
        [
            Test(*of, numbers, tests.verdict("above", numbers))
            for of, numbers in zip(higher, of_higher, strict=True)
        ],
        [
            Test(e, i, j, numbers, _of_equal(numbers, departs[i, j], _sensitive(sensitivity[e])),
                 departs[i, j])
            for (e, i, j), numbers in zip(equal, of_equal, strict=True)
        ],
        sensitivity,
    )  # fmt: skip


def _sensitive(numbers: Numbers) -> bool:
    p: float | None = numbers["p"]
    return p is not None and p <= LEVEL


def _of_equal(numbers: Numbers, departs: float, sensitive: bool) -> str:
    """The verdict on equality; without equal δ no test, without sensitivity never confirmed."""
    if departs > FACTOR:
        return NO_TEST
    by_tests = tests.verdict("equal", numbers)
    return "undecided" if by_tests == "confirmed" and not sensitive else by_tests


def values(
    runs: Mapping[str, Run], seeds: Sequence[int]
) -> tuple[dict[str, dict[str, Array]], dict[str, Array]]:
    """The accuracies and the ln δ of these seeds, as ``judge`` takes them."""
    accuracies = {
        endpoint: {
            arm: IN_PERCENT[endpoint] * of_seeds
            for arm, of_seeds in TRAININGS.values(runs, seeds, entry).items()
        }
        for endpoint, entry in ENDPOINTS.items()
    }
    noise = {
        arm: np.array([measured_noise(runs[run]) for run in names])
        for arm, names in TRAININGS.names(seeds).items()
    }
    return accuracies, noise
