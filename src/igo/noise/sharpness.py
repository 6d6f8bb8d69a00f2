"""Worst-case sharpness: how much a loss can rise near a network's parameters.

It is max L(w + δ) − L(w) over ‖u‖_p ≤ ρ. Adaptive, δ = |w| u (Kwon et al. 2021; Andriushchenko et
al. 2023): a parameter moves in proportion to its size, so rescaling the layers of a ReLU network
changes nothing. Else δ = u.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

MOMENTUM = LEAST_SHARE = 0.75  # as in Croce and Hein 2020, Algorithm 1

Function = Callable[[Tensor], tuple[float, Tensor]]  # a point (d,) to value and gradient (d,)


def surface(
    network: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]
) -> tuple[Function, Tensor]:
    """The mean cross-entropy of images and labels as a function of the parameters, and where it is.

    The parameters are one vector (d,). The network keeps its mode: in eval mode BatchNorm uses its
    running statistics, which do not change with the parameters. Parameters that need no gradient
    are constants.
    """
    parameters_by_name = {name: p for name, p in network.named_parameters() if p.requires_grad}
    sizes = [p.numel() for p in parameters_by_name.values()]
    n = sum(len(labels) for _, labels in batches)

    def value_and_gradient(parameters: Tensor) -> tuple[float, Tensor]:
        value, gradient = 0.0, torch.zeros_like(parameters)
        for images, labels in batches:
            point = parameters.detach().requires_grad_()
            pieces = zip(parameters_by_name.items(), point.split(sizes), strict=True)
            values = {name: piece.view_as(p) for (name, p), piece in pieces}
            loss = cross_entropy(functional_call(network, values, (images,)), labels)
            # The last batch may be smaller.
            share = len(labels) / n
            gradient += share * torch.autograd.grad(loss, point)[0]
            value += share * float(loss.detach())
        return value, gradient

    weights = [p.detach().flatten() for p in parameters_by_name.values()]
    return value_and_gradient, torch.cat(weights)


def worst_rise(
    function: Function, weights: Tensor, radius: float, norm: str, steps: int, adaptive: bool
) -> float:
    """The largest rise of the loss around w = ``weights``, (d,), on the path of auto-PGD from w.

    It is a lower bound, 0 or more, and not finite where the loss overflows. If ``adaptive``, a
    parameter that is zero stays zero.

    Algorithm 1 of Croce and Hein 2020: steps along the gradient (its signs for p = ∞) with
    momentum, each projected into the ball. The length of a step is 2ρ at first. At a checkpoint the
    length is halved and the best point is restored, if too few steps since the last checkpoint went
    upwards, or if no step with this length reached a new best value.
    """
    scale = weights.abs() if adaptive else torch.ones_like(weights)

    def scaled(u: Tensor) -> tuple[float, Tensor]:
        value, gradient = function(weights + scale * u)
        return value, scale * gradient

    checkpoints, shares = set(), [0, 22]  # percent of the steps, closer together towards the end
    while shares[-1] <= 100:
        checkpoints.add(math.ceil(shares[-1] * steps / 100))
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 3, 6))
    step = 2 * radius
    point = previous = torch.zeros_like(weights)
    first_value, gradient = scaled(point)
    value, best = first_value, (first_value, point, gradient)
    last_check, last_best, is_halved, rises = 0, value, True, 0
    for k in range(steps):
        unit = gradient.sign() if norm == "inf" else gradient / gradient.norm().clamp(min=1e-30)
        next_point = project(point + step * unit, radius, norm)
        if k:
            way = MOMENTUM * (next_point - point) + (1 - MOMENTUM) * (point - previous)
            next_point = project(point + way, radius, norm)
        previous, point, last_value = point, next_point, value
        value, gradient = scaled(point)
        if not math.isfinite(value):
            return value
        rises += value > last_value
        best = max(best, (value, point, gradient), key=lambda state: state[0])
        if k + 1 in checkpoints:
            rises_too_seldom = rises < LEAST_SHARE * (k + 1 - last_check)
            is_stalled = not is_halved and best[0] == last_best
            is_halved = rises_too_seldom or is_stalled
            if is_halved:
                step /= 2
                value, point, gradient = best
            last_check, last_best, rises = k + 1, best[0], 0
    return best[0] - first_value


def project(u: Tensor, radius: float, norm: str) -> Tensor:
    """The nearest point of the ball."""
    if norm == "inf":
        return u.clamp(-radius, radius)
    return u.div((u.norm() / radius).clamp(min=1))
