"""SGD from a checkpoint: all seeds of a cell and its five points at once.

The points of a seed share their draws: each update draws 85 samples, and batch size b takes the
first b of them. So differences between points have less spread than points drawn by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from igo.seeds import derive_seed
from lab.exponent.tasks import Task

CENTRE, FASTER, SLOWER, SMALLER, LARGER = range(5)  # the points of a cell
EDGE = 2.0  # of ηλ_max, where a quadratic diverges


@dataclass(frozen=True)
class Cell:
    """Five settings around η = h/λ_max and b = 64 `times`; `h` is ηλ_max."""

    task: str
    h: float
    times: int = 1

    @property
    def factor(self) -> float:
        """By which η moves: 1.2, or less where ηλ_max would come above 2."""
        return min(1.2, math.sqrt(EDGE / self.h))

    def points(self, largest: float) -> list[tuple[float, int]]:
        """(η, b) of the five, for λ_max = `largest`."""
        eta, f = self.h / largest, self.factor
        less, b, more = (size * self.times for size in (48, 64, 85))
        return [(eta, b), (eta * f, b), (eta / f, b), (eta, less), (eta, more)]

    @property
    def name(self) -> str:
        """Of its record."""
        return f"{self.task}_{self.h:g}"


@dataclass(frozen=True)
class Length:
    """Updates of burn-in and as many again, over which `evaluations` are averaged."""

    updates: int
    evaluations: int


def length(cell: Cell, curvatures: np.ndarray, evaluations: int, least: int = 5000) -> Length:
    """max(`least`, 2/(ηλ_min)) at the smallest η of the cell, whole between two evaluations."""
    slowest = cell.h / cell.factor * float(curvatures.min() / curvatures.max())
    each = math.ceil(max(least, 2 / slowest) / evaluations)
    return Length(each * evaluations, evaluations)


@dataclass(frozen=True)
class Found:
    """Mean excess objective of each half of the average, (2, seeds, points), and where runs end."""

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
) -> Found:
    """Run SGD from `start` (d,) at every point (η, b) with every seed.

    Args:
        task: objective and gradients.
        start: the checkpoint, where the excess is 0.
        points: settings.
        seeds: of the draws, which depend on `stream` and seed alone.
        length: how long.
        stream: names the draws, such as the cell.
        advance: is told how many updates were made.
    """
    largest = max(b for _, b in points)
    rates = torch.tensor([eta for eta, _ in points]).to(start)[:, None]
    weights = torch.tensor([[(k < b) / b for k in range(largest)] for _, b in points]).to(start)
    draws = [np.random.default_rng(derive_seed(seed, "exponent", stream)) for seed in seeds]
    at = start.expand(len(seeds), len(points), -1).clone()
    least = task.objective(start.expand(1, 1, -1)).double()
    block = length.updates // length.evaluations
    sums = torch.zeros(2, len(seeds), len(points), dtype=torch.float64)
    for k in range(2 * length.evaluations):
        for rows in _rows(draws, block, largest, task.samples):
            at -= rates * task.gradients(at, rows, weights)
        if k >= length.evaluations:
            half = (k - length.evaluations) * 2 // length.evaluations
            sums[half] += task.objective(at).double() - least
        advance(block)
    return Found((sums / (length.evaluations / 2)).numpy(), at)


def _rows(draws: Sequence[np.random.Generator], updates: int, batch: int, samples: int) -> Tensor:
    """Rows of (updates, seeds, batch): the samples of every update, with replacement."""
    drawn = np.stack([one.integers(samples, size=(updates, batch)) for one in draws], 1)
    return torch.from_numpy(drawn)
