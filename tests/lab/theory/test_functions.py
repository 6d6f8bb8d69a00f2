import math

import numpy as np
import pytest
from differences import slopes

from lab.theory.functions import DROP_WAVE, RASTRIGIN

FUNCTIONS = {"rastrigin": RASTRIGIN, "drop_wave": DROP_WAVE}


def by_loops(name, x):
    if name == "rastrigin":
        return sum(v * v - 10 * math.cos(2 * math.pi * v) + 10 for v in x)
    r = math.hypot(*x)
    return 1 - (1 + math.cos(12 * r)) / (0.5 * r * r + 2)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dimension", [1, 2, 7])
def test_value_and_gradient_are_the_formula_and_its_difference(name, dimension):
    function = FUNCTIONS[name]
    x = np.random.default_rng(3).uniform(*function.domain, (20, dimension))
    np.testing.assert_allclose(function.value(x), [by_loops(name, p) for p in x], rtol=1e-12)
    numerical = slopes(function.value, x, 1e-5)
    assert np.abs(function.gradient(x) - numerical).max() < 2e-5 * (1 + np.abs(numerical).max())
    assert function.value(np.zeros(dimension)) == pytest.approx(0, abs=1e-12)
    assert np.isfinite(function.gradient(np.zeros((1, dimension)))).all()
