"""Question (iv): the rates of the arms from the formulas, the tests by SciPy and statsmodels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from lab.exponent import momentum
from lab.theory.exponent import heavy_ball

A = [name for name in momentum.TRAININGS.arms if name.startswith("A")]
B = [name for name in momentum.TRAININGS.arms if name.startswith("B")]


def world(ratios: dict[str, float], spread: float = 0.02, seeds: int = 12, seed: int = 0):
    """Losses whose ratio to the reference is 1, or as given."""
    random = np.random.default_rng(seed)
    shared = 0.1 * random.standard_normal(seeds)
    losses = {
        name: 0.4 * ratios.get(name, 1.0) * np.exp(shared + spread * random.standard_normal(seeds))
        for name in momentum.TRAININGS.arms
    }
    return losses, {name: 0.9 - of_arm / 10 for name, of_arm in losses.items()}


def test_arms_a_have_the_delta_of_the_reference_by_the_published_formulas():
    c2, k2, b = momentum.VARIANCE, momentum.GRADIENT_NORM**2, 16
    wanted = 0.4 * np.sqrt(c2 / b)
    for beta in (0.5, 0.9):
        hat = beta * (beta**2 - beta + 1) / (1 - beta) ** 2
        shb = momentum.TRAININGS.arms[f"A SHB {beta:g}"]["learning_rate"]
        assert shb * np.sqrt((1 + hat) * c2 / b + hat * k2) == pytest.approx(wanted, rel=1e-3)
        nshb = momentum.TRAININGS.arms[f"A NSHB {beta:g}"]["learning_rate"]
        assert nshb * np.sqrt(c2 / b + 4 * beta**2 * (c2 / b + k2)) == pytest.approx(
            wanted, rel=1e-3
        )
        shb = momentum.TRAININGS.arms[f"B SHB {beta:g}"]["learning_rate"]
        assert shb / (1 - beta) == pytest.approx(0.4)
        assert momentum.TRAININGS.arms[f"B NSHB {beta:g}"]["learning_rate"] == 0.4


def test_verdicts_of_known_worlds():
    slow = {momentum.SENSITIVITY: 1.4}
    assert momentum.judge(*world(slow)).verdicts == {"A": "confirmed", "B": "confirmed"}
    far = momentum.judge(*world(slow | {A[2]: 1.3}))
    assert far.verdicts == {"A": "refuted", "B": "confirmed"}
    assert far.arms[A[2]].differs
    assert not far.arms[A[2]].equal
    near = momentum.judge(*world(slow | {B[0]: 1.04}, spread=0.01))
    assert near.arms[B[0]].differs  # different, and equal within the margin
    assert near.verdicts["B"] == "confirmed"
    wide = momentum.judge(*world(slow, spread=0.3))
    assert wide.verdicts == {"A": "undecided", "B": "undecided"}


def test_without_sensitivity_nothing_is_equal():
    judged = momentum.judge(*world({A[0]: 1.3}))
    assert not judged.sensitive
    assert judged.verdicts == {"A": "refuted", "B": "undecided"}


def test_tests_are_those_of_statsmodels_and_of_every_sign():
    losses, accuracies = world({momentum.SENSITIVITY: 1.4, A[0]: 1.05, B[1]: 1.2}, seeds=9)
    judged = momentum.judge(losses, accuracies)
    reference = np.log(losses[momentum.REFERENCE])
    equal, differs = [], []
    for name in A + B:
        logs = np.log(losses[name])
        equal.append(ttost_paired(logs, reference, -np.log(1.1), np.log(1.1))[0])
        d = logs - reference
        sums = [abs(np.dot(signs, d)) for signs in itertools.product((1, -1), repeat=9)]
        differs.append(np.mean(np.array(sums) >= abs(d.sum()) - 1e-12))
        assert judged.arms[name].ratio.value == pytest.approx(d.mean())
    assert [judged.arms[n].p_equal for n in A + B] == pytest.approx(equal)
    assert [judged.arms[n].p for n in A + B] == pytest.approx(differs)
    for attribute, p in (("p_equal_adjusted", equal), ("p_adjusted", differs)):
        theirs = multipletests(p, method="holm")[1]
        assert [getattr(judged.arms[n], attribute) for n in A + B] == pytest.approx(list(theirs))


def test_fewer_than_nine_seeds_cannot_refute():
    """Two of 2^n signs, times eight arms: what the amendment of the protocol says of n."""
    for seeds, verdict in ((8, "undecided"), (9, "refuted")):
        apart = dict.fromkeys(A + B, 2.0) | {momentum.SENSITIVITY: 1.4}
        judged = momentum.judge(*world(apart, seeds=seeds))
        assert judged.verdicts == {"A": verdict, "B": verdict}


@pytest.mark.parametrize("beta", [0.5, 0.9])
@pytest.mark.parametrize("h", [1e-4, 0.3, 1.2])
def test_what_the_page_says_of_quadratics_is_exact(beta, h):
    """docs/exponent.md: both rules on one mode, λ = 1, by second moments."""
    unit, b = np.ones(1), 16.0

    def loss(eta, momentum=0.0):
        return float(heavy_ball(unit, unit, eta, b, momentum).stationary()[0])

    step = loss(h * (1 - beta), beta) / loss(h)  # NSHB at h is SHB at h(1 − β): the same run
    assert step == pytest.approx((2 - h) / (2 - h * (1 - beta) / (1 + beta)), rel=1e-6)
    if h < 0.01:
        hat = beta * (beta**2 - beta + 1) / (1 - beta) ** 2
        shb = loss(h / np.sqrt(1 + hat), beta) / loss(h)
        assert shb == pytest.approx(1 / ((1 - beta) * np.sqrt(1 + hat)), rel=1e-3)
        assert shb == pytest.approx({0.5: 1.26, 0.9: 1.10}[beta], abs=0.006)
        nshb = loss(h * (1 - beta) / np.sqrt(1 + 4 * beta**2), beta) / loss(h)
        assert nshb == pytest.approx({0.5: 0.71, 0.9: 0.49}[beta], abs=0.006)
