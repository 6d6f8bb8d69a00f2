"""The sixteen test functions of the published explicit experiments, batched, with gradients.

Formulas and search domains are those of the paper's companion script (Sato and Iiduka,
arXiv 2311.08745). Every function is shifted so that its minimum is 0. NumPy, because the
gradients are short enough to write down and importing torch takes seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SCHWEFEL_MINIMISER = 420.9687462275036
SCHWEFEL_MINIMUM = 418.9828872724337  # per coordinate, what the published script adds


@dataclass(frozen=True)
class TestFunction:
    """A function R^d → R with all that an experiment needs to know about it.

    `value` maps (..., d) to (...); `gradient` maps (..., d) to (..., d), and is a subgradient
    (0 on a kink) where the function is not differentiable. `domain` is the interval of every
    coordinate, `coordinate` every coordinate of a minimiser (Alpine 1 has others too), and the
    minimum is `minimum`.
    """

    __test__ = False  # for pytest: a function to test with, not a test

    name: str
    value: Callable[[Array], Array]
    gradient: Callable[[Array], Array]
    domain: tuple[float, float]
    coordinate: float = 0.0
    minimum: float = 0.0
    min_dimension: int = 1

    def minimiser(self, dimension: int) -> Array:
        """Return x*, shape (dimension,); ValueError if the function needs more coordinates."""
        if dimension < self.min_dimension:
            raise ValueError(
                f"dimension={dimension}: {self.name} needs at least {self.min_dimension}"
            )
        return np.full(dimension, self.coordinate)

    def starts(self, count: int, dimension: int, seed: int) -> Array:
        """Return `count` points uniform in the domain, shape (count, dimension)."""
        self.minimiser(dimension)
        return np.random.default_rng(seed).uniform(*self.domain, (count, dimension))


def _norm(x: Array) -> Array:
    return np.asarray(np.sqrt((x**2).sum(-1)))


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Divide, with 0 where the denominator is 0: the subgradient at a kink."""
    zero = denominator == 0
    return np.where(zero, 0.0, numerator / np.where(zero, 1.0, denominator))


def _radial(x: Array, slope: Callable[[Array], Array]) -> Array:
    r = _norm(x)
    return _ratio(slope(r), r)[..., None] * x


def _ackley(x: Array) -> Array:
    rms = np.sqrt((x**2).mean(-1))
    waves = np.exp(np.cos(2 * np.pi * x).mean(-1))
    return np.asarray(20 - 20 * np.exp(-0.2 * rms) + np.e - waves)


def _ackley_gradient(x: Array) -> Array:
    d = x.shape[-1]
    rms = np.sqrt((x**2).mean(-1, keepdims=True))
    waves = np.exp(np.cos(2 * np.pi * x).mean(-1, keepdims=True))
    bowl = _ratio(4 * np.exp(-0.2 * rms), rms) * x / d
    return np.asarray(bowl + waves * np.sin(2 * np.pi * x) * 2 * np.pi / d)


def _alpine1(x: Array) -> Array:
    return np.asarray(np.abs(x * np.sin(x) + 0.1 * x).sum(-1))


def _alpine1_gradient(x: Array) -> Array:
    return np.asarray(np.sign(x * np.sin(x) + 0.1 * x) * (np.sin(x) + x * np.cos(x) + 0.1))


def _drop_wave(x: Array) -> Array:
    r = _norm(x)
    return np.asarray(1 - (1 + np.cos(12 * r)) / (0.5 * r**2 + 2))


def _drop_wave_slope(r: Array) -> Array:
    denominator = 0.5 * r**2 + 2
    waves = 12 * np.sin(12 * r) * denominator + (1 + np.cos(12 * r)) * r
    return np.asarray(waves / denominator**2)


def _ellipsoid(x: Array) -> Array:
    return np.asarray((np.arange(1, x.shape[-1] + 1) * x**2).sum(-1))


def _ellipsoid_gradient(x: Array) -> Array:
    return np.asarray(2 * np.arange(1, x.shape[-1] + 1) * x)


def _griewank(x: Array) -> Array:
    waves = np.cos(x / np.sqrt(np.arange(1, x.shape[-1] + 1))).prod(-1)
    return np.asarray((x**2).sum(-1) / 4000 - waves + 1)


def _griewank_gradient(x: Array) -> Array:
    root = np.sqrt(np.arange(1, x.shape[-1] + 1))
    cosines = np.cos(x / root)
    ones = np.ones_like(cosines[..., :1])
    before = np.cumprod(np.concatenate([ones, cosines[..., :-1]], -1), -1)
    after = np.cumprod(np.concatenate([ones, cosines[..., :0:-1]], -1), -1)[..., ::-1]
    return np.asarray(x / 2000 + before * after * np.sin(x / root) / root)


def _tail(x: Array) -> Array:
    """Return the last two terms that HappyCat and HGBat share."""
    return np.asarray((0.5 * (x**2).sum(-1) + x.sum(-1)) / x.shape[-1] + 0.5)


def _happycat(x: Array) -> Array:
    return np.asarray(np.abs((x**2).sum(-1) - x.shape[-1]) ** 0.25 + _tail(x))


def _happycat_gradient(x: Array) -> Array:
    gap = (x**2).sum(-1, keepdims=True) - x.shape[-1]
    slope = _ratio(np.sign(gap), 2 * np.abs(gap) ** 0.75)
    return np.asarray(slope * x + (x + 1) / x.shape[-1])


def _hgbat(x: Array) -> Array:
    return np.asarray(np.sqrt(np.abs((x**2).sum(-1) ** 2 - x.sum(-1) ** 2)) + _tail(x))


def _hgbat_gradient(x: Array) -> Array:
    squares, total = (x**2).sum(-1, keepdims=True), x.sum(-1, keepdims=True)
    gap = squares**2 - total**2
    slope = _ratio(np.sign(gap), np.sqrt(np.abs(gap)))
    return np.asarray(slope * (2 * squares * x - total) + (x + 1) / x.shape[-1])


def _modified_ridge(x: Array) -> Array:
    return np.asarray(np.abs(x[..., 0]) + 2 * (x[..., 1:] ** 2).sum(-1) ** 0.1)


def _modified_ridge_gradient(x: Array) -> Array:
    squares = (x[..., 1:] ** 2).sum(-1, keepdims=True)
    rest = _ratio(0.4 * x[..., 1:], np.broadcast_to(squares**0.9, x[..., 1:].shape))
    return np.concatenate([np.sign(x[..., :1]), rest], -1)


def _rastrigin(x: Array) -> Array:
    return np.asarray((x**2 - 10 * np.cos(2 * np.pi * x) + 10).sum(-1))


def _rastrigin_gradient(x: Array) -> Array:
    return np.asarray(2 * x + 20 * np.pi * np.sin(2 * np.pi * x))


def _rosenbrock(x: Array) -> Array:
    head, tail = x[..., :-1], x[..., 1:]
    return np.asarray((100 * (tail - head**2) ** 2 + (head - 1) ** 2).sum(-1))


def _rosenbrock_gradient(x: Array) -> Array:
    head, tail = x[..., :-1], x[..., 1:]
    gap = tail - head**2
    gradient = np.zeros_like(x)
    gradient[..., :-1] += -400 * head * gap + 2 * (head - 1)
    gradient[..., 1:] += 200 * gap
    return gradient


def _rotated_ellipsoid(x: Array) -> Array:
    return np.asarray((np.arange(x.shape[-1], 0, -1) * x**2).sum(-1))


def _rotated_ellipsoid_gradient(x: Array) -> Array:
    return np.asarray(2 * np.arange(x.shape[-1], 0, -1) * x)


def _salomon(x: Array) -> Array:
    r = _norm(x)
    return np.asarray(1 - np.cos(2 * np.pi * r) + 0.1 * r)


def _salomon_slope(r: Array) -> Array:
    return np.asarray(2 * np.pi * np.sin(2 * np.pi * r) + 0.1)


def _schaffer_f7(x: Array) -> Array:
    s = np.hypot(x[..., :-1], x[..., 1:])
    return np.asarray((np.sqrt(s) * (1 + np.sin(50 * s**0.2) ** 2)).mean(-1) ** 2)


def _schaffer_f7_gradient(x: Array) -> Array:
    head, tail = x[..., :-1], x[..., 1:]
    s = np.hypot(head, tail)
    mean = (np.sqrt(s) * (1 + np.sin(50 * s**0.2) ** 2)).mean(-1, keepdims=True)
    slope = _ratio(1 + np.sin(50 * s**0.2) ** 2, 2 * np.sqrt(s))
    slope = slope + _ratio(10 * np.sin(100 * s**0.2), s**0.3)
    pull = _ratio(2 * mean * slope / (x.shape[-1] - 1), s)
    gradient = np.zeros_like(x)
    gradient[..., :-1] += pull * head
    gradient[..., 1:] += pull * tail
    return gradient


def _schwefel(x: Array) -> Array:
    return np.asarray((SCHWEFEL_MINIMUM - x * np.sin(np.sqrt(np.abs(x)))).sum(-1))


def _schwefel_gradient(x: Array) -> Array:
    root = np.sqrt(np.abs(x))
    return np.asarray(-(np.sin(root) + 0.5 * root * np.cos(root)))


def _schwefel221(x: Array) -> Array:
    return np.asarray(np.abs(x).max(-1))


def _schwefel221_gradient(x: Array) -> Array:
    largest = np.abs(x).argmax(-1)[..., None]
    return np.where(np.arange(x.shape[-1]) == largest, np.sign(x), 0.0)


def _sphere(x: Array) -> Array:
    return np.asarray((x**2).sum(-1))


FUNCTIONS = {
    function.name: function
    for function in [
        TestFunction("ackley", _ackley, _ackley_gradient, (-32.768, 32.768)),
        TestFunction("alpine1", _alpine1, _alpine1_gradient, (-10, 10)),
        TestFunction(
            "drop_wave", _drop_wave, lambda x: _radial(x, _drop_wave_slope), (-5.12, 5.12)
        ),
        TestFunction("ellipsoid", _ellipsoid, _ellipsoid_gradient, (-100, 100)),
        TestFunction("griewank", _griewank, _griewank_gradient, (-100, 100)),
        TestFunction("happycat", _happycat, _happycat_gradient, (-20, 20), coordinate=-1),
        TestFunction("hgbat", _hgbat, _hgbat_gradient, (-15, 15), coordinate=-1),
        TestFunction("modified_ridge", _modified_ridge, _modified_ridge_gradient, (-100, 100)),
        TestFunction("rastrigin", _rastrigin, _rastrigin_gradient, (-5.12, 5.12)),
        TestFunction(
            "rosenbrock", _rosenbrock, _rosenbrock_gradient, (-10, 10), 1, min_dimension=2
        ),
        TestFunction(
            "rotated_ellipsoid", _rotated_ellipsoid, _rotated_ellipsoid_gradient, (-100, 100)
        ),
        TestFunction("salomon", _salomon, lambda x: _radial(x, _salomon_slope), (-20, 20)),
        TestFunction(
            "schaffer_f7", _schaffer_f7, _schaffer_f7_gradient, (-100, 100), min_dimension=2
        ),
        TestFunction("schwefel", _schwefel, _schwefel_gradient, (-500, 500), SCHWEFEL_MINIMISER),
        TestFunction("schwefel221", _schwefel221, _schwefel221_gradient, (-100, 100)),
        TestFunction("sphere", _sphere, lambda x: 2 * x, (-100, 100)),
    ]
}


def get_function(name: str) -> TestFunction:
    """Return the test function called `name`; ValueError names the nearest one."""
    if name not in FUNCTIONS:
        near = get_close_matches(name, FUNCTIONS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(FUNCTIONS)}"
        raise ValueError(f"function={name!r} is unknown: {hint}")
    return FUNCTIONS[name]
