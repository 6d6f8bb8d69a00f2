"""The page results/exponent/methods.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from igo.analysis.statistics import LEVEL, Array
from igo.report.phrases import p_value, signed
from lab.exponent import trainings
from lab.exponent.methods import (
    COMMON,
    FACTOR,
    OWN,
    SENSITIVITY,
    TRAININGS,
    Judged,
    Test,
    judge,
    values,
)
from lab.study.judge import Numbers, interval
from lab.study.records import Run

PAGE = """# Methods 1 to 4 again, on 8,000 images

    python -m lab.exponent question=methods
    python -m lab.exponent question=methods first_seed=100 output=…    # again, with other seeds

**{first}**

Question (vi) of the [protocol](protocol.md) with its amendments, which say what was reduced:
Fashion-MNIST at 14×14 pixels, 10 epochs. Each seed has its own 8,000 images. ResNet-8 of width 8,
b_1 = 16, five stages of two epochs. Differences are in points of test accuracy, paired by seed.
The anneal is 100 updates of b = 32 with η from 0.1 to 0, the same for all.

## (a) Does falling noise end higher than constant noise?

Each method has the η_1 that held-out images chose ([tuning](../tuning.md)): {own}.

| Method | endpoint | difference [95 %] | {p} | detectable | verdict |
|---|---|---|---|---|---|---|---|---|
{higher}

- *Confirmed*: different (sign-flip test) and above. *Refuted*: different and below, or equal within
  ±0.5 points (TOST). Else *undecided*. Holm over the six tests, for each kind of test.
- `detectable`: the difference that 80 % of such studies find.

## (b) Do methods of one noise curve end equal?

All at η_1 = {common:g}, so by the plan they have one curve of δ.

| Methods | endpoint | difference [95 %] | {p} | seeds | δ, factor | verdict |
|---|---|---|---|---|---|---|---|---|---|
{equal}

- *Confirmed*: equal within ±0.5 points. *Refuted*: different and not equal. Else *undecided*. Holm
  over the six tests, for each kind of test.
- `seeds`: so many make 80 % of the studies find equal methods equal.
- `δ, factor`: between the measured δ of the two, by the rms of the logarithm over stages. A pair
  above {factor} is not a test of equal δ.
- Sensitivity, Method 2 less Method 2 with a quarter of δ: {sensitivity}.
  Nothing is confirmed at an endpoint without a difference there.

## Means and measured δ

| arm | last epoch, % | after the anneal, % | δ of stage 1 | 2 | 3 | 4 | 5 |
|---|---|---|---|---|---|---|---|
{means}

δ is measured during the training (`noise.online`): the geometric mean over the epochs of a stage
and over the seeds.

{hardware}
"""
P = "p, different | Holm | p, equal | Holm"


def text(runs: Mapping[str, Run], seeds: Sequence[int]) -> str:
    """The page of these seeds."""
    accuracies, noise = values(runs, seeds)
    judged = judge(accuracies, noise)
    return PAGE.format(
        first=_first(judged), common=COMMON, p=P, factor=FACTOR,
        own=", ".join(f"{eta:g} (Method {method})" for method, eta in OWN.items()),
        higher="\n".join(_higher(test, judged.n) for test in judged.higher),
        equal="\n".join(_equal(test, judged.n) for test in judged.equal),
        sensitivity="; ".join(
            f"{endpoint} {_points(numbers)}, p {p_value(numbers['p'])}"
            for endpoint, numbers in judged.sensitivity.items()
        ),
        means="\n".join(
            _means(arm, [by_arm[arm] for by_arm in accuracies.values()], noise[arm])
            for arm in TRAININGS.arms
        ),
        hardware=trainings.hardware(runs, TRAININGS.names(seeds)),
    )  # fmt: skip


def _first(judged: Judged) -> str:
    higher = "; ".join(_listed(judged.higher, "Method {first}", judged.n))
    equal = "; ".join(_listed(judged.equal, "{first}–{second}", judged.n))
    sentences = f"(a) Above Method 1: {higher}. (b) Equal: {equal}."
    if without := [endpoint for endpoint, differs in judged.sensitive.items() if not differs]:
        sentences += f" No sensitivity: {', '.join(without)}."
    return f"{sentences} {judged.n} of {TRAININGS.seeds} seeds."


def _listed(tests: list[Test], form: str, n: int) -> list[str]:
    """For each endpoint, the verdicts of its tests."""
    by_endpoint: dict[str, list[str]] = {}
    for test in tests:
        label = form.format(first=test.first, second=test.second)
        verdict = TRAININGS.verdict(n, test.verdict)
        by_endpoint.setdefault(test.endpoint, []).append(f"{label} {verdict}")
    return [f"{endpoint}, {', '.join(verdicts)}" for endpoint, verdicts in by_endpoint.items()]


def _higher(test: Test, n: int) -> str:
    numbers = test.numbers
    detectable = numbers["detectable"]
    cells = [
        str(test.first), test.endpoint, _points(numbers), *_p(numbers),
        "–" if detectable is None else f"{detectable:.2g}", TRAININGS.verdict(n, test.verdict),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _equal(test: Test, n: int) -> str:
    numbers = test.numbers
    verdict = TRAININGS.verdict(n, test.verdict)
    p = numbers["p_adjusted"]
    if verdict == "confirmed" and p is not None and p <= LEVEL:
        verdict = "confirmed, and different"
    cells = [
        f"{test.first}–{test.second}", test.endpoint, _points(numbers), *_p(numbers),
        str(numbers["seeds_to_equate"] or "–"), f"{test.departs:.2f}", verdict,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _p(numbers: Numbers) -> list[str]:
    names = ("p", "p_adjusted", "p_equal", "p_equal_adjusted")
    return [p_value(numbers[name]) for name in names]


def _points(numbers: Numbers) -> str:
    value, low, high = (signed(number) for number in interval(numbers))
    return f"{value} [{low}, {high}]"


def _means(arm: str, accuracies: list[Array], noise: Array) -> str:
    label = f"{arm} (sensitivity)" if arm == SENSITIVITY else arm
    of_stages = [f"{delta:.3f}" for delta in np.exp(noise.mean(axis=0))]
    return f"| {' | '.join([label, *(f'{runs.mean():.2f}' for runs in accuracies), *of_stages])} |"
