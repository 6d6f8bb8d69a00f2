"""SGD from a checkpoint: all seeds of a cell and its five points at once.

The points of a seed share their draws: each update draws samples for the largest batch, and batch
size b takes the first b of them. Separate draws would give differences between points more spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from igo.ground.seeds import derive_seed
from lab.exponent.tasks import Task

CENTRE, FASTER, SLOWER, SMALLER, LARGER = range(5)  # the points of a cell
POINTS = ("centre", "faster", "slower", "smaller batch", "larger batch")
EDGE = 2.0  # SGD on a quadratic diverges where ηλ_max is larger


@dataclass(frozen=True)
class Cell:
    """Five settings (η, b) around η = h/λ_max and b = 64 `times`; `h` is ηλ_max."""

    task: str
    h: float
    times: int = 1

    @property
    def factor(self) -> float:
        """The ratio of a neighbour's η to the central one: 1.2, or less so that ηλ_max ≤ 2."""
        return min(1.2, math.sqrt(EDGE / self.h))

    def points(self, largest: float) -> list[tuple[float, int]]:
        """(η, b) of the five settings, for λ_max = `largest`."""
        eta, factor = self.h / largest, self.factor
        smaller, b, larger = (size * self.times for size in (48, 64, 85))
        return [(eta, b), (eta * factor, b), (eta / factor, b), (eta, smaller), (eta, larger)]

    @property
    def name(self) -> str:
        """The name of the cell's record."""
        return f"{self.task}_{self.h:g}"


@dataclass(frozen=True)
class Length:
    """The updates of burn-in, and of the average over `evaluations` that follows it."""

    updates: int
    evaluations: int


def length(cell: Cell, curvatures: np.ndarray, evaluations: int, least: int = 5000) -> Length:
    """At least max(`least`, 2/(ηλ_min)) updates, a multiple of `evaluations`.

    η is the smallest of the cell.
    """
    slowest = cell.h / cell.factor * float(curvatures.min() / curvatures.max())
    block = math.ceil(max(least, 2 / slowest) / evaluations)
    return Length(block * evaluations, evaluations)


@dataclass(frozen=True)
class Averages:
    """Mean excess objective in each half of the average, (2, seeds, points); last parameters."""

    halves: np.ndarray
    ends: Tensor


def run(
    task: Task,
    start: Tensor,
    points: Sequence[tuple[float, int]],
    seeds: Sequence[int],
    length: Length,
    stream: str,
    advance: Callable[[int], None] = lambda _: None,
) -> Averages:
    """Run SGD from `start` (d,) at every point (η, b) with every seed.

    Args:
        task: objective and gradients.
        start: the checkpoint, where the excess is 0.
        points: settings.
        seeds: of the draws, which depend on `stream` and the seed alone.
        length: numbers of updates and evaluations.
        stream: the name of the draws, such as the cell's name.
        advance: called with the number of new updates.
    """
    largest = max(b for _, b in points)
    rates = torch.tensor([eta for eta, _ in points]).to(start)[:, None]
    weights = torch.tensor([[(k < b) / b for k in range(largest)] for _, b in points]).to(start)
    draws = [np.random.default_rng(derive_seed(seed, "exponent", stream)) for seed in seeds]
    parameters = start.expand(len(seeds), len(points), -1).clone()
    minimum = task.objective(start.expand(1, 1, -1)).double()
    block = length.updates // length.evaluations
    sums = torch.zeros(2, len(seeds), len(points), dtype=torch.float64)
    for k in range(2 * length.evaluations):
        for rows in _rows(draws, block, largest, task.samples):
            parameters -= rates * task.gradients(parameters, rows, weights)
        if k >= length.evaluations:
            half = (k - length.evaluations) * 2 // length.evaluations
            sums[half] += task.objective(parameters).double() - minimum
        advance(block)
    return Averages((sums / (length.evaluations / 2)).numpy(), parameters)


def _rows(draws: Sequence[np.random.Generator], updates: int, batch: int, samples: int) -> Tensor:
    """The samples of every update, (updates, seeds, batch), drawn with replacement."""
    rows = np.stack([random.integers(samples, size=(updates, batch)) for random in draws], 1)
    return torch.from_numpy(rows)
