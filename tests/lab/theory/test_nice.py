from dataclasses import dataclass

import numpy as np
import pytest

from lab.theory.functions import Dented, Ripple, rastrigin
from lab.theory.nice import bands, check_new_sigma_nice, check_sigma_nice, minimisers
from lab.theory.smoothing import BALL, GAUSSIAN


@dataclass(frozen=True)
class Drifting:
    """f̂_δ = c(x − speed·δ)²/2, whose minimiser moves by exactly speed·(δ_m − δ_{m+1})."""

    speed: float
    c: float = 1.0
    domain = (-5.0, 5.0)

    def value(self, x, d):
        return self.c * (x - self.speed * d) ** 2 / 2

    def gradient(self, x, d):
        return self.c * (x - self.speed * d)

    def second_derivative(self, x, _):
        return np.full_like(x, self.c)


def broken(levels, condition):
    return [level.delta for level in levels if not getattr(level, condition)]


def test_a_quadratic_is_nice_with_its_own_curvature_and_no_more():
    for sigma, expected in ((3.0, []), (3.1, [1.0, 0.5])):
        levels = check_sigma_nice(Drifting(0, 3.0), [1.0, 0.5], sigma)
        assert broken(levels, "ii_holds") == expected
        assert broken(levels, "i_holds") == []
        assert [level.largest_sigma for level in levels] == pytest.approx([3.0, 3.0])


def test_condition_one_is_a_speed_limit_on_the_minimiser():
    for speed, failing in ((0.99, []), (1.01, [1.0, 0.7])):
        levels = check_new_sigma_nice(Drifting(speed), [1.0, 0.7, 0.2], sigma=0.5)
        assert broken(levels, "i_holds") == failing
        levels_of_hazan = check_sigma_nice(Drifting(speed), [1.0], sigma=0.5)
        assert broken(levels_of_hazan, "i_holds") == failing[:1]


def test_ball_smoothed_rastrigin_fails_at_zero_inside_the_band_and_has_two_minimisers():
    function = rastrigin(BALL, 1)
    levels = check_new_sigma_nice(function, [1.2, 0.75, 0.3], sigma=1.0, width=0.1)
    assert broken(levels, "ii_holds") == [0.75]
    minima = np.sort(minimisers(function, 0.75))
    x = np.linspace(-2, 2, 400_001)[:, None]
    values = function.value(x, 0.75)
    assert minima == pytest.approx([x[values[:200_000].argmin(), 0], -minima[0]], abs=2e-5)


def test_band_ends_are_the_zeros_of_the_curvature_formula():
    ((low, high),) = bands(rastrigin(BALL, 1), np.linspace(0.01, 1.2, 200))
    for end in (low, high):
        t = 2 * np.pi * end
        assert abs(2 + 40 * np.pi**2 * np.sin(t) / t) < 1e-4
    assert (low, high) == (pytest.approx(0.5025, abs=1e-3), pytest.approx(0.995, abs=1e-3))


def test_gaussian_rastrigin_has_no_band_at_its_minimiser_but_one_in_its_neighbourhood():
    function, levels = rastrigin(GAUSSIAN, 1), np.linspace(0.01, 1.5, 150)
    assert bands(function, levels) == []
    ((_, high),) = bands(function, levels, radius_factor=3.0)
    assert high == pytest.approx(np.sqrt(np.log(20 * np.pi**2) / (2 * np.pi**2)), abs=1e-4)


def test_largest_sigma_is_the_brute_force_minimum():
    levels = check_new_sigma_nice(rastrigin(GAUSSIAN, 1), [0.6, 0.2], sigma=0.0)
    rng = np.random.default_rng(0)
    for level in levels:
        x = rng.uniform(-level.radius, level.radius, 100_000)
        damped = np.exp(-2 * np.pi**2 * level.delta**2) * np.cos(2 * np.pi * x)
        brute = (2 + 40 * np.pi**2 * damped).min()
        assert level.largest_sigma == pytest.approx(brute, abs=0.03 * (1 + abs(brute)))


def test_the_ripple_is_new_sigma_nice_with_its_stated_sigma_though_not_convex():
    problem = Ripple()
    deltas = list(0.2 * (1 - np.arange(20) / 20) ** 0.5)
    levels = check_new_sigma_nice(problem, deltas, problem.sigma(0.2))
    assert all(level.holds for level in levels)
    rises = np.diff(problem.value(np.linspace(-1, 1, 4001)))
    assert ((rises[:-1] < 0) & (rises[1:] > 0)).sum() > 1  # local minima


def test_the_dented_bowl_is_sigma_nice_and_a_wider_dent_is_not():
    deltas = [4.0, 1.0, *np.linspace(0.3, 0.2, 11), 0.1, 0.02]
    for problem, sigma, nice in (
        (Dented(), 0.7, True),
        (Dented(), 0.8, False),
        (Dented(far=1.2), 0.01, False),
    ):
        levels = check_sigma_nice(problem, deltas, sigma)
        assert all(level.holds for level in levels) is nice
