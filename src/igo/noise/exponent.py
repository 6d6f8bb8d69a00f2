"""The exponent ρ of δ = η C b^(−ρ) that curvature predicts at a model's parameters.

Near a minimum whose Hessian has eigenvalues λ_i, SGD with momentum β has the stationary excess loss
Σ_i η C_i²(1 + β)/(2b(1 − β)(e − ηλ_i)), e = 2(1 + β), C_i² the noise of one-sample gradients in
mode i. Settings (η, b) of equal loss then have ρ = 1/Σ_i w_i e/(e − ηλ_i), w_i the share of mode i
in the loss. docs/exponent.md says where this does not hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from igo.noise import curvature
from igo.noise.measure import Loss, untouched
from igo.noise.noise import LEAST_FOR_INTERVAL
from igo.noise.surface import Surface


@dataclass(frozen=True)
class NoiseExponent:
    """A prediction of ρ, its ``value``.

    ``interval`` is its 95 % confidence interval over the mini-batches, made wider as only leading
    modes were computed. ``steps`` are the ηλ_i of these modes, the largest first; ``shares`` are
    their w_i. ``rest`` is the share of all other modes; ``rest_step`` is their mean ηλ, weighted by
    noise.
    """

    value: float
    interval: tuple[float, float]
    steps: tuple[float, ...]
    shares: tuple[float, ...]
    rest: float
    rest_step: float
    learning_rate: float
    momentum: float


def noise_exponent(
    network: nn.Module,
    loss: Loss,
    loader: Iterable[Any],
    *,
    learning_rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    batches: int = 32,
    modes: int = 10,
    tolerance: float = 1e-2,
    seed: int = 0,
) -> NoiseExponent:
    """Predict ρ at a model's parameters, from the Hessian and the noise of ``batches``.

    The prediction is for the stationary training loss near a minimum, not for training in general.

    >>> x = torch.randn(64, 3, generator=torch.manual_seed(0))
    >>> data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True) + x[:, :1] ** 2)
    >>> loader = torch.utils.data.DataLoader(data, batch_size=8)
    >>> mse, network = torch.nn.functional.mse_loss, torch.nn.Linear(3, 1)
    >>> rho = igo.noise_exponent(network, mse, loader, learning_rate=0.01, batches=8)
    >>> rho.interval[0] <= rho.value <= rho.interval[1] < 1
    True

    Args:
        network: in the mode that it is trained in; it is left unchanged.
        loss: mean loss of a batch, of outputs and targets, twice differentiable.
        loader: shuffled batches (inputs, targets) of one size; those used are kept in memory.
        learning_rate: η.
        momentum: β of heavy ball, m ← βm + g. With g scaled by 1 - β, give η(1 - β) for η.
        weight_decay: of an L2 penalty, added to every eigenvalue.
        batches: K, the batches for the noise; the Hessian is of their mean loss.
        modes: how many leading modes to compute, by Lanczos; the others are taken together.
        tolerance: relative, of the eigenvalues.
        seed: of Lanczos's start.

    Raises:
        ValueError: too few batches, a gradient that is not finite, or ηλ_max ≥ 2(1 + β), where
            SGD has no stationary loss.
        UserError: eigenvalues are not found to ``tolerance``.
    """
    used = list(itertools.islice(loader, batches))
    least = max(batches, LEAST_FOR_INTERVAL)
    if len(used) < least:
        raise ValueError(f"batches={batches}: {least} are needed, the loader gave {len(used)}")
    surface = Surface(network, loss, used)
    parameters = surface.here

    def product(vector: Tensor) -> Tensor:
        return surface.curvature(parameters, vector) + weight_decay * vector

    with untouched(network):
        start, count = curvature.random_direction(parameters, seed), min(modes, len(parameters) - 1)
        top = curvature.largest(product, start, count=count, tolerance=tolerance)
        gradients = [Surface(network, loss, [b]).value_and_gradient(parameters)[1] for b in used]
        noise = torch.stack(gradients)
        noise -= noise.mean(0)
        in_modes = noise @ top.vectors.T
        rest = noise - in_modes @ top.vectors
        curved = torch.stack([torch.dot(r, product(r)) for r in rest])
    squares = torch.cat([in_modes.square(), rest.square().sum(1, keepdim=True), curved[:, None]], 1)
    if not bool(torch.isfinite(squares).all()):
        raise ValueError("a gradient is not finite")
    return _exponent(squares.double(), top.values * learning_rate, learning_rate, momentum)


def _exponent(squares: Tensor, steps: Tensor, eta: float, beta: float) -> NoiseExponent:
    """ρ from each batch's squared noise (K, modes + 2).

    The columns are the leading modes, the rest, and the rest times its λ.
    """
    edge = 2 * (1 + beta)
    largest = float(steps[0])
    if largest >= edge:
        raise ValueError(
            f"learning_rate={eta:g}: ηλ_max = {largest:.3g} is not below 2(1 + β) = {edge:g}, so"
            f" SGD has no stationary loss here; take η below {eta * edge / largest:.3g}"
        )
    k, total = len(squares), squares.sum(0)
    without_batch = (total - squares) / (k - 1)
    reach, values = 0.0, []
    for spread in (False, True):
        values.append(float(_rho(total, steps, eta, edge, spread)[0]))
        jackknife = torch.stack([_rho(row, steps, eta, edge, spread)[0] for row in without_batch])
        variance = (k - 1) ** 2 / k * jackknife.var()
        reach = max(reach, float(variance.sqrt()) * float(stdtrit(k - 1, 0.975)))
    interval = min(values) - reach, max(values) + reach
    value, weights, rest_step = _rho(total, steps, eta, edge, False)
    *shares, rest = (weights / weights.sum()).tolist()
    return NoiseExponent(
        float(value), interval, tuple(steps.tolist()), tuple(shares), rest, float(rest_step),
        eta, beta,
    )  # fmt: skip


def _rho(
    squares: Tensor, steps: Tensor, eta: float, edge: float, spread: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """ρ; the excess loss of each leading mode and, last, of the rest; and the rest's mean ηλ.

    The rest is one mode with its mean ηλ or, with ``spread``, two modes with that mean: ηλ = 0 and
    the smallest leading ηλ. For ρ ≥ 1/3 the true ρ is between the two results, as S − ρT is then
    concave in ηλ (S is the loss, T the loss weighted by e/(e − ηλ)).
    """
    noise, rest, curved = squares[:-2], squares[-2], squares[-1]
    most = steps[-1].clamp(min=0)
    step = (eta * curved / rest.clamp(min=1e-300)).clamp(min=torch.zeros(()), max=most)
    share = step / most if spread and most > 0 else torch.zeros(())
    rest_noise = torch.stack([rest * (1 - share), rest * share]) if spread else rest[None]
    rest_steps = torch.stack([torch.zeros_like(most), most]) if spread else step[None]
    losses = torch.cat([noise / (edge - steps), rest_noise / (edge - rest_steps)])
    weighted = losses * edge / (edge - torch.cat([steps, rest_steps]))
    weights = torch.cat([losses[: len(noise)], losses[len(noise) :].sum()[None]])
    return losses.sum() / weighted.sum(), weights, step
