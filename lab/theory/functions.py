"""The sixteen test functions of the published explicit experiments, batched.

Formulas and search domains are those of the paper's companion script (Sato and Iiduka,
arXiv 2311.08745). Every function is shifted so that its minimum is 0. A formula takes a NumPy array
or a tensor; PyTorch differentiates it with tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

SCHWEFEL_MINIMISER = 420.9687462275036
SCHWEFEL_MINIMUM = 418.9828872724337  # the published script adds it for each coordinate


@dataclass(frozen=True)
class TestFunction:
    """A function R^d → R with its domain and its minimum.

    `value` maps (..., d) to (...). `domain` is the interval of every coordinate. `coordinate` is
    the value of every coordinate of a minimiser (Alpine 1 also has other minimisers).
    """

    __test__ = False  # for pytest: a function to test with, not a test

    name: str
    value: Callable[[Any], Any]
    domain: tuple[float, float]
    coordinate: float = 0.0
    minimum: float = 0.0
    min_dimension: int = 1

    def gradient(self, x: Array) -> Array:
        """Return ∇f, (..., d) to (..., d); 0 at a kink where PyTorch has no number."""
        point = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        # points do not mix, so the gradient of the sum has the gradient of each point
        (slope,) = torch.autograd.grad(self.value(point).sum(), point)
        return np.asarray(torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0).numpy())

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


def _of(x: Any) -> Any:
    """Return torch or NumPy, the library of x. Both have these functions under the same names."""
    return torch if isinstance(x, torch.Tensor) else np


def _index(x: Any) -> Any:
    """Return 1, 2, …, d in float64, an array or a tensor as x."""
    index = np.arange(1.0, x.shape[-1] + 1)
    return torch.from_numpy(index) if isinstance(x, torch.Tensor) else index


def _norm(x: Any) -> Any:
    return _of(x).sqrt((x**2).sum(-1))


def _ackley(x: Any) -> Any:
    lib = _of(x)
    rms = lib.sqrt((x**2).mean(-1))
    return 20 - 20 * lib.exp(-0.2 * rms) + np.e - lib.exp(lib.cos(2 * np.pi * x).mean(-1))


def _alpine1(x: Any) -> Any:
    return _of(x).abs(x * _of(x).sin(x) + 0.1 * x).sum(-1)


def _drop_wave(x: Any) -> Any:
    r = _norm(x)
    return 1 - (1 + _of(x).cos(12 * r)) / (0.5 * r**2 + 2)


def _ellipsoid(x: Any) -> Any:
    return (_index(x) * x**2).sum(-1)


def _griewank(x: Any) -> Any:
    waves = _of(x).cos(x / _index(x) ** 0.5).prod(-1)
    return (x**2).sum(-1) / 4000 - waves + 1


def _tail(x: Any) -> Any:
    """Return the last two terms that HappyCat and HGBat share."""
    return (0.5 * (x**2).sum(-1) + x.sum(-1)) / x.shape[-1] + 0.5


def _happycat(x: Any) -> Any:
    return _of(x).abs((x**2).sum(-1) - x.shape[-1]) ** 0.25 + _tail(x)


def _hgbat(x: Any) -> Any:
    lib = _of(x)
    return lib.sqrt(lib.abs((x**2).sum(-1) ** 2 - x.sum(-1) ** 2)) + _tail(x)


def _modified_ridge(x: Any) -> Any:
    return _of(x).abs(x[..., 0]) + 2 * (x[..., 1:] ** 2).sum(-1) ** 0.1


def _rastrigin(x: Any) -> Any:
    return (x**2 - 10 * _of(x).cos(2 * np.pi * x) + 10).sum(-1)


def _rosenbrock(x: Any) -> Any:
    head, tail = x[..., :-1], x[..., 1:]
    return (100 * (tail - head**2) ** 2 + (head - 1) ** 2).sum(-1)


def _rotated_ellipsoid(x: Any) -> Any:
    return ((x.shape[-1] + 1 - _index(x)) * x**2).sum(-1)


def _salomon(x: Any) -> Any:
    r = _norm(x)
    return 1 - _of(x).cos(2 * np.pi * r) + 0.1 * r


def _schaffer_f7(x: Any) -> Any:
    lib = _of(x)
    s = lib.hypot(x[..., :-1], x[..., 1:])
    return (lib.sqrt(s) * (1 + lib.sin(50 * s**0.2) ** 2)).mean(-1) ** 2


def _schwefel(x: Any) -> Any:
    lib = _of(x)
    return (SCHWEFEL_MINIMUM - x * lib.sin(lib.sqrt(lib.abs(x)))).sum(-1)


def _schwefel221(x: Any) -> Any:
    return _of(x).amax(_of(x).abs(x), -1)


def _sphere(x: Any) -> Any:
    return (x**2).sum(-1)


FUNCTIONS = {
    function.name: function
    for function in [
        TestFunction("ackley", _ackley, (-32.768, 32.768)),
        TestFunction("alpine1", _alpine1, (-10, 10)),
        TestFunction("drop_wave", _drop_wave, (-5.12, 5.12)),
        TestFunction("ellipsoid", _ellipsoid, (-100, 100)),
        TestFunction("griewank", _griewank, (-100, 100)),
        TestFunction("happycat", _happycat, (-20, 20), coordinate=-1),
        TestFunction("hgbat", _hgbat, (-15, 15), coordinate=-1),
        TestFunction("modified_ridge", _modified_ridge, (-100, 100)),
        TestFunction("rastrigin", _rastrigin, (-5.12, 5.12)),
        TestFunction("rosenbrock", _rosenbrock, (-10, 10), 1, min_dimension=2),
        TestFunction("rotated_ellipsoid", _rotated_ellipsoid, (-100, 100)),
        TestFunction("salomon", _salomon, (-20, 20)),
        TestFunction("schaffer_f7", _schaffer_f7, (-100, 100), min_dimension=2),
        TestFunction("schwefel", _schwefel, (-500, 500), SCHWEFEL_MINIMISER),
        TestFunction("schwefel221", _schwefel221, (-100, 100)),
        TestFunction("sphere", _sphere, (-100, 100)),
    ]
}


def get_function(name: str) -> TestFunction:
    """Return the test function called `name`; ValueError names the nearest one."""
    if name not in FUNCTIONS:
        near = get_close_matches(name, FUNCTIONS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(FUNCTIONS)}"
        raise ValueError(f"function={name!r} is unknown: {hint}")
    return FUNCTIONS[name]
