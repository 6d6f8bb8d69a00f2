"""Two test functions of the published explicit experiments, batched.

Formulas and domains are those of the paper's companion script (Sato and Iiduka, arXiv 2311.08745).
Both have their minimum 0 at x = 0. A formula takes a NumPy array or a tensor; PyTorch
differentiates it with tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TestFunction:
    """A function R^d → R: `value` maps (..., d) to (...), `domain` is that of every coordinate."""

    __test__ = False  # for pytest: a function to test with, not a test

    value: Callable[[Any], Any]
    domain: tuple[float, float]

    def gradient(self, x: Array) -> Array:
        """Return ∇f, (..., d) to (..., d); 0 at a kink where PyTorch has no number."""
        point = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        # points do not mix, so the gradient of the sum has the gradient of each point
        (slope,) = torch.autograd.grad(self.value(point).sum(), point)
        return np.asarray(torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0).numpy())


def _of(x: Any) -> Any:
    """Return torch or NumPy, the library of x. Both have these functions under the same names."""
    return torch if isinstance(x, torch.Tensor) else np


def _drop_wave(x: Any) -> Any:
    r = _of(x).sqrt((x**2).sum(-1))
    return 1 - (1 + _of(x).cos(12 * r)) / (0.5 * r**2 + 2)


def _rastrigin(x: Any) -> Any:
    return (x**2 - 10 * _of(x).cos(2 * np.pi * x) + 10).sum(-1)


DROP_WAVE = TestFunction(_drop_wave, (-5.12, 5.12))
RASTRIGIN = TestFunction(_rastrigin, (-5.12, 5.12))
