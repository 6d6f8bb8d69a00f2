"""The dented bowl: its smoothed forms by quadrature, its dents, and that it is σ-nice."""

import numpy as np
import pytest
from scipy.integrate import quad

from lab.theory.dented import Dented
from lab.theory.nice import check_sigma_nice

PROBLEM = Dented()
KINKS = [-1.02, -0.98, 0.0, 0.98, 1.02]


@pytest.mark.parametrize("level", [0.03, 0.24, 1.7])
@pytest.mark.parametrize("x", [-1.01, 0.05, 0.7, 2.0])
def test_smoothed_forms_are_means_over_the_ball(level, x):
    low, high = x - level, x + level
    inside = [k for k in KINKS if low < k < high]

    def mean(function):
        return quad(function, low, high, points=inside, limit=200)[0] / (2 * level)

    at = np.array([x])
    assert PROBLEM.value(at, level)[0] == pytest.approx(
        mean(lambda y: float(PROBLEM.value(np.array([y]))[0])), abs=1e-9
    )
    slope = mean(lambda y: float(PROBLEM.gradient(np.array([y]))[0]))
    assert PROBLEM.gradient(at, level)[0] == pytest.approx(slope, abs=1e-9)
    up, down = (PROBLEM.gradient(at + s * 1e-6, level)[0] for s in (1, -1))
    second = PROBLEM.second_derivative(at, level)[0]
    assert second == pytest.approx((up - down) / 2e-6, abs=1e-4)


def test_f_itself_by_differences_and_negative_in_the_dents():
    for x in (-1.0, -0.5, 0.5, 1.0, 1.5):
        values = PROBLEM.value(np.array([x - 1e-4, x, x + 1e-4]))
        assert (values[2] - values[0]) / 2e-4 == pytest.approx(
            PROBLEM.gradient(np.array([x]))[0], abs=1e-6
        )
        expected = -2 if abs(x) == 1 else 1
        assert (values[2] - 2 * values[1] + values[0]) / 1e-8 == pytest.approx(expected, abs=1e-3)


def test_it_is_sigma_nice_and_a_wider_dent_is_not():
    levels = [4.0, 1.0, *np.linspace(0.3, 0.2, 11), 0.1, 0.02]
    assert check_sigma_nice(PROBLEM.smoothed(), levels, 0.7).holds
    assert not check_sigma_nice(PROBLEM.smoothed(), levels, 0.8).holds
    wide = Dented(far=1.2)
    assert not check_sigma_nice(wide.smoothed(), levels, 0.01).holds
