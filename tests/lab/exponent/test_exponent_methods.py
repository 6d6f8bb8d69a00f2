"""Question (vi): verdicts of simulated studies, tests by statsmodels, η_1 by the tuning."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from lab.exponent import methods
from lab.exponent.methods import COMMON, ENDPOINTS, NO_TEST, OWN, SENSITIVITY, name
from lab.study import tuning
from lab.study.records import Run, of_archives, path_of_archive

CONSTANT = name(1, OWN[1])
BETTER = {arm: 1.5 for arm in methods.TRAININGS.arms if arm not in (CONSTANT, SENSITIVITY)}


def study(
    points: dict[str, float],
    delta: dict[str, float] | None = None,
    spread: float = 0.15,
    n: int = 12,
) -> methods.Judged:
    """Judge a study: accuracies of 86 % and so many points more, δ falling and times a factor."""
    random = np.random.default_rng(0)
    shared = random.standard_normal(n)
    accuracies = {
        endpoint: {
            arm: 86 + points.get(arm, 0) + shared + spread * random.standard_normal(n)
            for arm in methods.TRAININGS.arms
        }
        for endpoint in ENDPOINTS
    }
    noise = {
        arm: np.log((delta or {}).get(arm, 1.0) / np.sqrt(2) ** np.arange(5))
        + 0.05 * random.standard_normal((n, 5))
        for arm in methods.TRAININGS.arms
    }
    return methods.judge(accuracies, noise)


def verdicts(tests: list[methods.Test]) -> set[str]:
    return {test.verdict for test in tests}


def test_equal_arms_are_equal_if_the_sensitivity_arm_differs():
    judged = study(BETTER | {SENSITIVITY: 0.5})
    assert verdicts(judged.higher) == {"confirmed"}
    assert verdicts(judged.equal) == {"confirmed"}
    insensitive = study(BETTER | {SENSITIVITY: 1.5})
    assert not any(insensitive.sensitive.values())
    assert verdicts(insensitive.equal) == {"undecided"}


@pytest.mark.slow
def test_different_arms_are_refuted_with_and_without_sensitivity():
    for of_sensitivity in (0.5, 1.5):
        judged = study(BETTER | {name(3, COMMON): 3.0, SENSITIVITY: of_sensitivity})
        apart = [test.verdict for test in judged.equal if 3 in (test.first, test.second)]
        assert apart == ["refuted"] * 4
    below = study(dict.fromkeys(BETTER, -1.5))
    assert verdicts(below.higher) == {"refuted"}
    wide = study(BETTER | {SENSITIVITY: 0.5}, spread=4.0)
    assert verdicts(wide.higher) | verdicts(wide.equal) == {"undecided"}


def test_arms_of_another_measured_delta_are_no_test():
    for factor, others in ((1.2, {"confirmed"}), (1.3, {NO_TEST})):
        judged = study(BETTER | {SENSITIVITY: 0.5}, {name(4, COMMON): factor})
        of_4 = {test.verdict for test in judged.equal if test.second == 4}
        assert of_4 == others
        assert {test.verdict for test in judged.equal if test.second == 3} == {"confirmed"}
        departs = [test.departs for test in judged.equal if test.second == 4]
        assert departs == pytest.approx([factor] * len(departs), rel=0.03)


def test_p_values_are_those_of_statsmodels_and_of_every_sign():
    random = np.random.default_rng(1)
    n = 9
    accuracies = {
        endpoint: {arm: 86 + 0.4 * random.standard_normal(n) for arm in methods.TRAININGS.arms}
        for endpoint in ENDPOINTS
    }
    noise = {arm: np.zeros((n, 5)) for arm in methods.TRAININGS.arms}
    judged = methods.judge(accuracies, noise)
    for tests, rates in ((judged.higher, OWN), (judged.equal, dict.fromkeys(OWN, COMMON))):
        differs, equal = [], []
        for test in tests:
            first, second = (
                accuracies[test.endpoint][name(m, rates[m])] for m in (test.first, test.second)
            )
            gap = first - second
            sums = [abs(np.dot(signs, gap)) for signs in itertools.product((1, -1), repeat=n)]
            differs.append(np.mean(np.array(sums) >= abs(gap.sum()) - 1e-12))
            equal.append(ttost_paired(first, second, -0.5, 0.5)[0])
        assert len(tests) == 6
        for entry, p in (("p_adjusted", differs), ("p_equal_adjusted", equal)):
            theirs = multipletests(p, method="holm")[1]
            assert [test.numbers[entry] for test in tests] == pytest.approx(list(theirs))


def test_delta_of_a_stage_is_the_geometric_mean_over_its_epochs():
    records = [
        f'{{"stage": {stage}, "delta_measured": {delta}}}'
        for stage, delta in ((1, 1.0), (1, 4.0), (2, "null"), (2, 3.0))
    ]
    run = Run("run", {"status.json": "{}", "metrics.jsonl": "\n".join(records)})
    assert np.exp(methods.measured_noise(run)) == pytest.approx([2.0, 3.0])


def test_the_sensitivity_arm_is_method_2_with_a_quarter_of_delta():
    arms = methods.TRAININGS.arms
    reference = arms[name(2, COMMON)]
    assert arms[SENSITIVITY] == reference | {"learning_rate": reference["learning_rate"] / 4}


def test_rates_are_those_that_the_held_out_images_choose():
    if not path_of_archive("exponent_methods_tuning").is_file():
        pytest.skip("not run")
    runs = of_archives(pattern="exponent_methods_tuning.tar.xz")
    (by_setting,) = tuning.validation(runs.values()).values()
    by_method = {int(setting[-1]): by_rate for setting, by_rate in by_setting.items()}
    assert {method: tuning.best(by_rate) for method, by_rate in by_method.items()} == OWN
    assert all(len(by_rate) == 5 for by_rate in by_method.values())
    means = {
        rate: float(np.mean([by_method[method][rate] for method in (2, 3, 4)]))
        for rate in by_method[1]
    }
    assert tuning.best(means) == COMMON
