"""Functions in closed form: against quadrature, differences, loops and brute force."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from lab.theory.functions import Dented, Ripple, rastrigin, tilted_wave
from lab.theory.smoothing import BALL, GAUSSIAN
from lab.theory.studies import escape

LAWS = {"ball": stats.uniform(-1, 2), "gaussian": stats.norm()}
KINKS = [-1.02, -0.98, 0.0, 0.98, 1.02]


def mean(function, x, level, law):
    """E[function(x − δu)] by adaptive quadrature, for a function of numbers."""
    low, high = law.ppf(1e-14), law.ppf(1 - 1e-14)
    kinks_inside = [k for k in ((x - kink) / level for kink in KINKS) if low < k < high]
    value, _ = integrate.quad(
        lambda u: law.pdf(u) * function(x - level * u),
        low,
        high,
        points=kinks_inside or None,
        limit=400,
        epsabs=1e-12,
    )
    return value


def numbers(method, *arguments):
    """A method of arrays (n, 1) as a function of one number."""
    return lambda x: float(np.ravel(method(np.array([[x]]), *arguments))[0])


CASES = {
    "rastrigin, ball": (rastrigin(BALL, 1), "ball"),
    "rastrigin, gaussian": (rastrigin(GAUSSIAN, 1), "gaussian"),
    "tilted wave, ball": (tilted_wave(0.7, 0.4, 5.0, BALL), "ball"),
    "tilted wave, gaussian": (tilted_wave(0.7, 0.4, 5.0, GAUSSIAN), "gaussian"),
    "ripple": (Ripple(), "ball"),
    "bowl": (Ripple(bowl=1.0, wave_slope=0.0, left=1.0), "ball"),
    "dented": (Dented(), "ball"),
}


@pytest.mark.parametrize("level", [0.05, 0.24, 1.7])
@pytest.mark.parametrize("name", CASES)
def test_smoothed_forms_are_the_integrals(name, level):
    function, law = CASES[name][0], LAWS[CASES[name][1]]
    for x in (-1.01, 0.03, 0.4):
        value = mean(numbers(function.value, 0.0), x, level, law)
        assert numbers(function.value, level)(x) == pytest.approx(value, abs=1e-8)
        slope = mean(numbers(function.gradient, 0.0), x, level, law)
        assert numbers(function.gradient, level)(x) == pytest.approx(slope, abs=1e-8)
        up, down = (numbers(function.gradient, level)(x + s) for s in (1e-6, -1e-6))
        second = numbers(function.second_derivative, level)(x)
        assert second == pytest.approx((up - down) / 2e-6, abs=2e-4 * (1 + abs(second)))


def test_rastrigin_is_its_formula_by_loops():
    for dimension in (1, 2, 7):
        function = rastrigin(BALL, dimension)
        x = np.random.default_rng(3).uniform(*function.domain, (20, dimension))
        loops = [sum(v * v - 10 * math.cos(2 * math.pi * v) + 10 for v in point) for point in x]
        np.testing.assert_allclose(function.value(x, 0.0).sum(-1), loops, rtol=1e-12)
        moves = 1e-5 * np.eye(dimension)
        rises = [function.value(x + e, 0.6) - function.value(x - e, 0.6) for e in moves]
        slopes = np.stack(rises).sum(-1).T / 2e-5
        np.testing.assert_allclose(function.gradient(x, 0.6), slopes, atol=1e-5)


def test_ripple_constants_hold_by_brute_force():
    problem = Ripple()
    x = np.linspace(-1, 1, 20_001)
    slopes = np.abs(np.diff(problem.value(x)) / np.diff(x))
    assert slopes.max() <= problem.lipschitz
    assert problem.value(x).min() == problem.value(np.zeros(1))[0] == 0


def test_the_ripple_of_the_escapes_has_other_minima_and_its_basin_ends_at_a_maximum():
    x = np.linspace(0, 1, 100_001)
    up = np.diff(escape.PROBLEM.value(x)) > 0
    minima = np.flatnonzero(~up[:-1] & up[1:])
    maxima = np.flatnonzero(up[:-1] & ~up[1:])
    assert len(minima) == 2  # the global one at 0 is not among them
    assert x[maxima[0]] == pytest.approx(escape.BASIN, abs=1e-4)
