"""The checkpoint of a task, a minimum, with its Hessian and the noise in the Hessian's modes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from scipy.optimize import minimize
from torch import Tensor

from lab.exponent.tasks import Network
from lab.theory.functions import Array

LARGEST_CONDITION = 1000.0
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # of L2
TOLERANCE = 1e-6  # norm of the gradient at the end over its norm at the start


@dataclass(frozen=True)
class Checkpoint:
    """A minimum `at` (d,), and in each Hessian mode the eigenvalue and the one-sample noise.

    The modes are in descending order of eigenvalue.
    """

    task: Network
    at: Tensor
    curvatures: Array
    noise: Array


def full(task: Network) -> Callable[[Tensor], tuple[float, Tensor]]:
    """The function from parameters (d,) to the objective of all samples and its gradient."""

    def value_and_gradient(at: Tensor) -> tuple[float, Tensor]:
        point = at.detach().requires_grad_()
        value = task.objective(point)
        (gradient,) = torch.autograd.grad(value, point)
        return float(value.detach()), gradient

    return value_and_gradient


def descend(task: Network, start: Tensor, norm: float | None = None) -> Tensor:
    """L-BFGS from `start` until the gradient's norm is below `norm`; None is 1e-6 of the first."""
    objective, norms = full(task), [math.inf]

    def function(x: Array) -> tuple[float, Array]:
        value, gradient = objective(torch.from_numpy(x).to(task.x))
        norms.append(float(gradient.norm()))
        return value, gradient.double().numpy()

    begin = start.double().numpy()
    target = norm or TOLERANCE * float(objective(start.to(task.x))[1].norm())

    def done(_: Array) -> None:
        if norms[-1] < target:
            raise StopIteration

    result = minimize(
        function, begin, jac=True, method="L-BFGS-B", callback=done,
        options={"maxiter": 5000, "maxfun": 20_000, "gtol": 0.0, "ftol": 0.0, "maxcor": 30},
    )  # fmt: skip
    return torch.from_numpy(result.x).to(task.x)


def hessian(task: Network, at: Tensor) -> Tensor:
    """The Hessian (d, d) of the objective."""
    d, rows = task.size, 1000
    total = task.l2 * torch.eye(d, dtype=at.dtype)
    for x, y in zip(task.x.split(rows), task.y.split(rows), strict=True):

        def summed(point: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
            return task.sample_losses(task.outputs_of(point, x)[1], y).sum() / task.samples

        total = total + torch.func.jacrev(torch.func.grad(summed), chunk_size=200)(at)
    return (total + total.T) / 2


def sample_noise(task: Network, at: Tensor, vectors: Tensor) -> Tensor:
    """Variances (k,) of one-sample gradients along the columns of `vectors` (d, k)."""
    first, second = torch.zeros(vectors.shape[1]).to(at), torch.zeros(vectors.shape[1]).to(at)
    weight = torch.ones(1, 1).to(at)
    for rows in torch.arange(task.samples).split(2000):
        copies = at.expand(len(rows), 1, -1)
        along = task.gradients(copies, rows[:, None], weight)[:, 0] @ vectors
        first, second = first + along.sum(0), second + along.square().sum(0)
    return second / task.samples - (first / task.samples).square()


def make(task: Network, seed: int = 0) -> Checkpoint:
    """The checkpoint of the smallest L2 strength with all λ above 0 and λ_max/λ_min ≤ 1,000.

    Raises:
        ValueError: no strength of the list has such a minimum.
    """
    for strength in STRENGTHS:
        regular = replace(task, l2=strength)
        at = descend(regular, regular.initial(seed))
        values, vectors = torch.linalg.eigh(hessian(regular, at))
        if 0 < float(values[-1]) <= LARGEST_CONDITION * float(values[0]):
            noise = sample_noise(regular, at, vectors)
            return Checkpoint(regular, at, values.flip(0).numpy(), noise.flip(0).numpy())
    raise ValueError(f"no L2 strength up to {STRENGTHS[-1]:g} has λ_max/λ_min ≤ 1,000")
