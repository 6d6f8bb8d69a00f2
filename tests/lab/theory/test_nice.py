import numpy as np
import pytest

from lab.theory import smoothed
from lab.theory.functions import DROP_WAVE
from lab.theory.kernels import Kernel
from lab.theory.nice import bands, check_new_sigma_nice, check_sigma_nice, minimisers
from lab.theory.ripple import Ripple
from lab.theory.smoothed import Smoothed

BALL, GAUSSIAN = Kernel("ball"), Kernel("gaussian")


def quadratic(curvature):
    """Return a function that smoothing only lifts: f̂_δ = c x²/2 + const."""
    return Smoothed(
        lambda x, _: curvature * (x**2).sum(-1) / 2,
        lambda x, _: curvature * x,
        lambda x, _: np.broadcast_to(curvature * np.eye(1), (len(x), 1, 1)),
        (-5.0, 5.0),
        1,
    )


def drifting(speed):
    """Return f̂_δ = (x − speed·δ)²/2, whose minimiser moves by exactly speed·(δ_m − δ_{m+1})."""
    return Smoothed(
        lambda x, d: ((x - speed * d) ** 2).sum(-1) / 2,
        lambda x, d: x - speed * d,
        lambda x, _: np.ones((len(x), 1, 1)),
        (-5.0, 5.0),
        1,
    )


def test_a_quadratic_is_nice_with_its_own_curvature_and_no_more():
    report = check_sigma_nice(quadratic(3.0), [1.0, 0.5], sigma=3.0)
    assert report.holds
    assert report.largest_sigma == pytest.approx(3.0)
    assert check_sigma_nice(quadratic(3.0), [1.0, 0.5], sigma=3.1).failures_of_convexity == [1, 0.5]


@pytest.mark.parametrize(("speed", "holds"), [(0.99, True), (1.01, False)])
def test_condition_one_is_a_speed_limit_on_the_minimiser(speed, holds):
    new = check_new_sigma_nice(drifting(speed), [1.0, 0.7, 0.2], [1.0, 1.0, 1.0], sigma=0.5)
    old = check_sigma_nice(drifting(speed), [1.0, 0.5], sigma=0.5)
    assert new.holds is holds
    assert old.holds is holds
    assert new.failures_of_distance == ([] if holds else [1.0, 0.7])


def test_ball_smoothed_rastrigin_fails_at_zero_inside_the_band_and_has_two_minimisers():
    function = smoothed.rastrigin(BALL, 1)
    report = check_new_sigma_nice(function, [1.2, 0.75, 0.3], [0.1, 0.1, 0.1], sigma=1.0)
    assert report.failures_of_convexity == [0.75]
    minima = np.sort(minimisers(function, 0.75)[:, 0])
    x = np.linspace(-2, 2, 400_001)[:, None]
    values = function.value(x, 0.75)
    assert minima == pytest.approx([x[values[:200_000].argmin(), 0], -minima[0]], abs=2e-5)


def test_band_ends_are_the_zeros_of_the_curvature_formula():
    intervals = bands(smoothed.rastrigin(BALL, 1), np.linspace(0.01, 1.2, 200), np.zeros(1))
    ((low, high),) = intervals
    for end in (low, high):
        t = 2 * np.pi * end
        assert abs(2 + 40 * np.pi**2 * np.sin(t) / t) < 1e-4
    assert (low, high) == (pytest.approx(0.5025, abs=1e-3), pytest.approx(0.995, abs=1e-3))


def test_gaussian_rastrigin_has_no_band_at_its_minimiser_but_one_in_its_neighbourhood():
    function = smoothed.rastrigin(GAUSSIAN, 1)
    levels = np.linspace(0.01, 1.5, 150)
    assert bands(function, levels, np.zeros(1)) == []
    ((_, high),) = bands(function, levels, np.zeros(1), radius_factor=3.0)
    assert high == pytest.approx(np.sqrt(np.log(20 * np.pi**2) / (2 * np.pi**2)), abs=1e-4)


def test_drop_wave_in_two_dimensions_needs_a_large_gaussian():
    function = smoothed.radial(DROP_WAVE, GAUSSIAN, 2)
    assert check_new_sigma_nice(function, [1.0], [1.0], sigma=1e-3).holds
    assert not check_new_sigma_nice(function, [0.2], [1.0], sigma=1e-3).holds


def test_largest_sigma_is_the_brute_force_minimum():
    function = smoothed.rastrigin(GAUSSIAN, 2)
    report = check_new_sigma_nice(function, [0.6, 0.2], [1.0, 1.0], sigma=0.0)
    rng = np.random.default_rng(0)
    for stage in report.stages:
        x = rng.uniform(-1, 1, (100_000, 2))
        x = x[np.linalg.norm(x, axis=1) <= 1] * stage.radius
        damped = np.exp(-2 * np.pi**2 * stage.noise_level**2) * np.cos(2 * np.pi * x)
        brute = (2 + 40 * np.pi**2 * damped).min()
        assert stage.largest_sigma == pytest.approx(brute, abs=0.03 * (1 + abs(brute)))


def test_the_ripple_is_new_sigma_nice_with_its_stated_sigma_though_not_convex():
    problem = Ripple()
    levels = list(0.2 * (1 - np.arange(20) / 20) ** 0.5)
    assert check_new_sigma_nice(problem.smoothed(), levels, [1.0] * 20, problem.sigma(0.2)).holds
    x = np.linspace(-1, 1, 4001)
    assert (np.diff(problem.value(x), 2) < -1e-9).any()
    local = np.flatnonzero(
        (np.diff(problem.value(x))[:-1] < 0) & (np.diff(problem.value(x))[1:] > 0)
    )
    assert len(local) > 1


@pytest.mark.parametrize("levels", [[], [0.5, 1.0], [1.0, 0.0], [1.0, 1.0]])
def test_levels_must_decrease_and_be_positive(levels):
    with pytest.raises(ValueError, match="positive and decreasing"):
        check_sigma_nice(quadratic(1.0), levels, 1.0)


def test_every_level_needs_its_width():
    with pytest.raises(ValueError, match="1 values for 2"):
        check_new_sigma_nice(quadratic(1.0), [1.0, 0.5], [1.0], 1.0)
