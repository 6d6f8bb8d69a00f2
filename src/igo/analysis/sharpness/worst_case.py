"""Adaptive worst-case sharpness: how much the loss can rise if each parameter moves a little.

It is max of L(w + δ) − L(w) over ‖δ/|w|‖_p ≤ ρ (Kwon et al. 2021; Andriushchenko et al. 2023), with
δ = |w| u and u in the p-ball of radius ρ. A parameter moves in proportion to its size, so rescaling
the layers of a ReLU network changes nothing. A parameter that is zero stays zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from igo.ground.seeds import generator

Function = Callable[[Tensor], tuple[float, Tensor]]  # a point (d,) to value and gradient (d,)
MOMENTUM = 0.75  # this, the next two and `checkpoints` are from Croce and Hein 2020, Algorithm 1
LEAST_SHARE = 0.75
FIRST_CHECK = 22  # percent of the steps


def worst_rise(
    function: Function, at: Tensor, *, radius: float, norm: str, steps: int, starts: int, seed: int
) -> tuple[float, list[float]]:
    """The largest rise over all starts, and the rise of each start. They are lower bounds.

    Args:
        function: the loss and its gradient.
        at: w, the parameters, (d,).
        radius: ρ.
        norm: p, inf or 2.
        steps: steps of ascent from each start, with one value and gradient each.
        starts: number of starts; the first is w itself, the others are random points of the ball.
        seed: of the random points.

    Returns:
        Rises of the loss, 0 or more; not finite where the loss overflows.
    """
    scale = at.abs()

    def scaled(u: Tensor) -> tuple[float, Tensor]:
        value, gradient = function(at + scale * u)
        return value, scale * gradient

    origin = torch.zeros_like(at)
    before, _ = function(at)
    points = [origin] + [_random(at, radius, norm, seed, i) for i in range(1, starts)]
    best = [ascend(scaled, point, radius=radius, norm=norm, steps=steps) for point in points]
    rises = [max(value - before, 0.0) if math.isfinite(value) else value for value in best]
    return next((r for r in rises if not math.isfinite(r)), max(rises)), rises


def ascend(function: Function, start: Tensor, *, radius: float, norm: str, steps: int) -> float:
    """The largest value on the path of auto-PGD in a ball around 0.

    Algorithm 1 of Croce and Hein 2020: steps along the gradient (its signs for p = ∞) with
    momentum, each projected into the ball. The length of a step is 2ρ at first. At a checkpoint the
    length is halved and the best point is restored, if too few steps since the last checkpoint went
    upwards, or if no step with this length reached a new best value.
    """
    step, checks = 2 * radius, checkpoints(steps)
    point = before = start
    value, gradient = function(point)
    best = (value, point, gradient)
    last_check, last_best, halved, upwards = 0, value, True, 0
    for k in range(steps):
        unit = gradient.sign() if norm == "inf" else gradient / gradient.norm().clamp(min=1e-30)
        moved = project(point + step * unit, radius, norm)
        if k:
            moved = point + MOMENTUM * (moved - point) + (1 - MOMENTUM) * (point - before)
            moved = project(moved, radius, norm)
        before, point, previous = point, moved, value
        value, gradient = function(point)
        if not math.isfinite(value):
            return value
        upwards += value > previous
        best = max(best, (value, point, gradient), key=lambda state: state[0])
        if k + 1 in checks:
            too_few = upwards < LEAST_SHARE * (k + 1 - last_check)
            stalled = not halved and best[0] == last_best
            halved = too_few or stalled
            if halved:
                step /= 2
                value, point, gradient = best
            last_check, last_best, upwards = k + 1, best[0], 0
    return best[0]


def checkpoints(steps: int) -> set[int]:
    """The steps after which the length is checked: ⌈p_j N⌉, closer together towards the end."""
    previous, percent = 0, FIRST_CHECK
    checks = set()
    while percent <= 100:
        checks.add(math.ceil(percent * steps / 100))
        previous, percent = percent, percent + max(percent - previous - 3, 6)
    return checks


def project(u: Tensor, radius: float, norm: str) -> Tensor:
    """The nearest point of the ball."""
    if norm == "inf":
        return u.clamp(-radius, radius)
    return u.div((u.norm() / radius).clamp(min=1))


def _random(like: Tensor, radius: float, norm: str, seed: int, start: int) -> Tensor:
    """A uniformly random point of the ball."""
    random = generator(seed, "worst case", start)
    if norm == "inf":
        return radius * (2 * torch.rand(len(like), generator=random) - 1).to(like)
    gaussian = torch.randn(len(like), generator=random)
    length = radius * float(torch.rand(1, generator=random)) ** (1 / len(like))
    return gaussian.mul(length / float(gaussian.norm())).to(like)
