import importlib.util
from pathlib import Path

import numpy as np
import pytest
from differences import slopes
from landscapes import single_objective

from lab.theory.functions import FUNCTIONS, get_function

NAMES = sorted(FUNCTIONS)


def opfunu_operators():
    """Load opfunu's formulas alone: the package itself imports the removed pkg_resources."""
    package = Path(importlib.util.find_spec("opfunu").origin).parent
    spec = importlib.util.spec_from_file_location("operators", package / "utils" / "operator.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def points(name, dimension, count=20):
    return FUNCTIONS[name].starts(count, dimension, seed=3)


@pytest.mark.parametrize(
    ("dimension", "name"),
    [
        *((2, name) for name in ("ackley", "drop_wave")),
        *((5, name) for name in ("griewank", "rastrigin", "rosenbrock", "salomon", "schwefel")),
        (5, "sphere"),
    ],
)
def test_value_is_that_of_landscapes(dimension, name):
    x = points(name, dimension)
    offset = 1 if name == "drop_wave" else 0
    expected = [getattr(single_objective, name)(list(p)) + offset for p in x]
    np.testing.assert_allclose(FUNCTIONS[name].value(x), expected, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "library"), [("happycat", "happy_cat_func"), ("hgbat", "hgbat_func")]
)
def test_value_is_that_of_opfunu(name, library):
    x = points(name, 6)
    expected = [getattr(opfunu_operators(), library)(p) for p in x]
    np.testing.assert_allclose(FUNCTIONS[name].value(x), expected, rtol=1e-12)


def by_loops(name, x):
    d = len(x)
    if name == "alpine1":
        return sum(abs(v * np.sin(v) + 0.1 * v) for v in x)
    if name == "ellipsoid":
        return sum((i + 1) * x[i] ** 2 for i in range(d))
    if name == "modified_ridge":
        return abs(x[0]) + 2 * sum(v * v for v in x[1:]) ** 0.1
    if name == "rotated_ellipsoid":
        return sum(x[j] ** 2 for i in range(d) for j in range(i + 1))
    if name == "schwefel221":
        return max(abs(v) for v in x)
    total = 0.0
    for i in range(d - 1):
        s = (x[i] ** 2 + x[i + 1] ** 2) ** 0.5
        total += s**0.5 + s**0.5 * np.sin(50 * s**0.2) ** 2
    return (total / (d - 1)) ** 2


@pytest.mark.parametrize(
    "name",
    ["alpine1", "ellipsoid", "modified_ridge", "rotated_ellipsoid", "schwefel221", "schaffer_f7"],
)
def test_value_is_the_formula_written_as_a_loop(name):
    x = points(name, 5)
    np.testing.assert_allclose(FUNCTIONS[name].value(x), [by_loops(name, p) for p in x])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dimension", [2, 7])
def test_gradient_is_the_finite_difference(name, dimension):
    function, x = FUNCTIONS[name], points(name, dimension)
    numerical = slopes(function.value, x, 1e-5)
    scale = np.abs(numerical).max()
    assert np.abs(function.gradient(x) - numerical).max() < 2e-5 * (1 + scale)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dimension", [2, 10, 50])
def test_minimiser_has_the_minimum_and_nothing_sampled_is_lower(name, dimension):
    function = FUNCTIONS[name]
    star = function.minimiser(dimension)
    assert abs(function.value(star) - function.minimum) < 1e-9
    assert (function.value(points(name, dimension, 2000)) > function.minimum).all()
    near = star + 1e-3 * np.random.default_rng(0).standard_normal((500, dimension))
    assert (function.value(near) >= function.minimum).all()


@pytest.mark.parametrize("name", NAMES)
def test_leading_dimensions_are_a_batch(name):
    function, x = FUNCTIONS[name], points(name, 3, 6).reshape(2, 3, 3)
    single = [[function.value(x[i, j]) for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(function.value(x), single)
    assert function.gradient(x).shape == x.shape


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_finite_at_the_minimiser(name):
    function = FUNCTIONS[name]
    assert np.isfinite(function.gradient(function.minimiser(4)[None])).all()


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'rastrigin'"):
        get_function("rastrigen")


def test_too_few_coordinates_are_refused():
    with pytest.raises(ValueError, match="needs at least 2"):
        FUNCTIONS["rosenbrock"].minimiser(1)
