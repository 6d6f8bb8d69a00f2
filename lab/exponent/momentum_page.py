"""The page results/exponent/momentum.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from igo.analysis.statistics import Estimate
from igo.report.phrases import p_value, signed
from lab.exponent import trainings
from lab.exponent.momentum import (
    ACCURACY,
    LOSS,
    REFERENCE,
    SENSITIVITY,
    TRAININGS,
    Arm,
    Judged,
    judge,
)
from lab.study.records import Run

PAGE = """# Momentum: equal δ, or an equal step?

    python -m lab.exponent question=momentum
    python -m lab.exponent question=momentum first_seed=100 output=…    # again, with other seeds

**{first}**

Question (iv) of the [protocol](protocol.md) with its amendments. Training loss of the last epoch
against that of the reference, SGD at η = 0.4, seed by seed. Arms A have the reference's δ by the
published formulas. Arms B have its step: the same η/(1 − β) (SHB) or η (NSHB). The sensitivity arm
is SGD at η = 0.1.

| arm | η | n | loss ÷ reference [95 %] | p, equal | Holm | p, different | Holm | {power} |
|---|---|---|---|---|---|---|---|---|---|---|
{arms}

- Equal: the ratio is within 1/1.1 to 1.1 (TOST on its logarithm). Different: sign-flip test. Holm
  over the eight arms, for each of the two tests. The sensitivity arm is judged alone.
- An arm that is different and not equal *refutes* its letter. A letter is *confirmed* where all
  its four arms are equal and the sensitivity arm differs by more than 10 %. Else it is *undecided*.
- `detectable`: the ratio that 80 % of such studies find to be different. `seeds`: so many make
  80 % of the studies find equal arms equal.
- Last: test accuracy less that of the reference, in points.
- The reference has a mean training loss of {loss:.4f} and a test accuracy of {accuracy:.2f} %.

{hardware}
"""
POWER = "detectable | seeds | accuracy, points"


def text(runs: Mapping[str, Run], seeds: Sequence[int]) -> str:
    """The page of these seeds."""
    losses, accuracies = (TRAININGS.values(runs, seeds, entry) for entry in (LOSS, ACCURACY))
    judged = judge(losses, accuracies)
    return PAGE.format(
        first=_first(judged), power=POWER,
        arms="\n".join(_line(name, arm, judged.n) for name, arm in judged.arms.items()),
        loss=losses[REFERENCE].mean(), accuracy=100 * accuracies[REFERENCE].mean(),
        hardware=trainings.hardware(runs, TRAININGS.names(seeds)),
    )  # fmt: skip


def _first(judged: Judged) -> str:
    a, b = (TRAININGS.verdict(judged.n, judged.verdicts[letter]) for letter in "AB")
    sentences = f"Equal δ is equal in result: {a}. Equal step is equal in result: {b}."
    if not judged.sensitive:
        sentences += " The sensitivity arm does not differ as it must: no equivalence is concluded."
    return f"{sentences} {judged.n} of {TRAININGS.seeds} seeds."


def _line(name: str, arm: Arm, n: int) -> str:
    judged_alone = name == SENSITIVITY
    holm = ["–", "–"] if judged_alone else [p_value(arm.p_equal_adjusted), p_value(arm.p_adjusted)]
    detectable = "–" if arm.detectable is None else f"{math.exp(arm.detectable):.3f}"
    cells = [
        name, f"{TRAININGS.arms[name]['learning_rate']:g}", str(n), _ratio(arm.ratio),
        p_value(arm.p_equal), holm[0], p_value(arm.p), holm[1], detectable, str(arm.seeds or "–"),
        _points(arm.accuracy),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _ratio(log: Estimate) -> str:
    value, low, high = (math.exp(number) for number in (log.value, log.low, log.high))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _points(value: Estimate) -> str:
    return f"{signed(value.value)} [{signed(value.low)}, {signed(value.high)}]"
