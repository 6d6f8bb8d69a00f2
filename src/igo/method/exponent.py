"""The exponent ρ of δ = η C b^(−ρ) that curvature predicts where a model stands.

Near a minimum whose Hessian has eigenvalues λ_i, SGD with momentum β has the stationary excess loss
Σ_i η C_i²(1 + β)/(2b(1 − β)(e − ηλ_i)), e = 2(1 + β), C_i² the noise of one-sample gradients in
mode i. Settings (η, b) of equal loss then have ρ = 1/Σ_i w_i e/(e − ηλ_i), w_i the share of mode i
(docs/exponent.md, with what it does not hold for).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from igo.method import curvature
from igo.method.measure import Loss, untouched
from igo.method.noise import LEAST_FOR_INTERVAL
from igo.method.surface import Surface


@dataclass(frozen=True)
class NoiseExponent:
    """A prediction of ρ.

    ``interval`` is its 95 % one over the mini-batches, widened by what is not known of the modes
    that were not computed. ``steps`` are ηλ_i of the leading modes, the largest first, ``shares``
    their w_i, and ``rest`` the share of all other modes together, whose mean ηλ, weighted by noise,
    is ``rest_step``.
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

    It is a prediction: of the stationary training loss near a minimum, not of training in general.

    >>> x = torch.randn(64, 3, generator=torch.manual_seed(0))
    >>> data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True) + x[:, :1] ** 2)
    >>> loader = torch.utils.data.DataLoader(data, batch_size=8)
    >>> mse, network = torch.nn.functional.mse_loss, torch.nn.Linear(3, 1)
    >>> found = igo.noise_exponent(network, mse, loader, learning_rate=0.01, batches=8)
    >>> found.interval[0] <= found.value <= found.interval[1] < 1
    True

    Args:
        network: in the mode that it is trained in; it is left as it was.
        loss: mean loss of a batch, of outputs and targets, twice differentiable.
        loader: shuffled batches (inputs, targets) of one size; those used are kept in memory.
        learning_rate: η.
        momentum: β of heavy ball, m ← βm + g; with g scaled by 1 - β give η(1 - β) for η.
        weight_decay: of an L2 penalty, added to every eigenvalue.
        batches: K, for the noise, and together for the Hessian.
        modes: leading ones to compute, by Lanczos; the others are taken together.
        tolerance: of their eigenvalues, relative.
        seed: of Lanczos's start.

    Raises:
        ValueError: too few batches, a gradient that is not finite, or ηλ_max ≥ 2(1 + β), where
            SGD has no stationary loss.
        UserError: eigenvalues are not found to ``tolerance``.
    """
    used = list(itertools.islice(loader, batches))
    if len(used) < max(batches, LEAST_FOR_INTERVAL):
        raise ValueError(f"batches={batches}: {LEAST_FOR_INTERVAL} or more, and so many are needed")
    surface = Surface(network, loss, used)
    at = surface.here

    def product(vector: Tensor) -> Tensor:
        return surface.curvature(at, vector) + weight_decay * vector

    with untouched(network):
        top = curvature.largest(
            product, curvature.random_direction(at, seed),
            count=min(modes, len(at) - 1), tolerance=tolerance,
        )  # fmt: skip
        noise = torch.stack([Surface(network, loss, [b]).value_and_gradient(at)[1] for b in used])
        noise -= noise.mean(0)
        within = noise @ top.vectors.T
        rest = noise - within @ top.vectors
        bent = torch.stack([torch.dot(r, product(r)) for r in rest])
    parts = torch.cat([within.square(), rest.square().sum(1, keepdim=True), bent[:, None]], 1)
    if not bool(torch.isfinite(parts).all()):
        raise ValueError("a gradient is not finite")
    return _exponent(parts.double(), top.values * learning_rate, learning_rate, momentum)


def _exponent(parts: Tensor, steps: Tensor, eta: float, beta: float) -> NoiseExponent:
    """ρ of noise in modes, (K, modes), in the rest and times λ there, the last two columns."""
    edge = 2 * (1 + beta)
    largest = float(steps[0])
    if largest >= edge:
        raise ValueError(
            f"learning_rate={eta:g}: ηλ_max = {largest:.3g} is not below 2(1 + β) = {edge:g}, so"
            f" SGD has no stationary loss here; take η below {eta * edge / largest:.3g}"
        )
    total = parts.sum(0)
    each = (total - parts) / (len(parts) - 1)  # one batch left out
    kinds = [_of(total, steps, eta, edge, spread) for spread in (False, True)]
    reach = 0.0
    for spread in (False, True):
        without = torch.stack([_of(one, steps, eta, edge, spread)[0] for one in each])
        variance = (len(parts) - 1) ** 2 / len(parts) * without.var()
        error = float(variance.sqrt()) * float(stdtrit(len(parts) - 1, 0.975))
        reach = max(reach, error)
    low = min(float(found[0]) for found in kinds) - reach
    high = max(float(found[0]) for found in kinds) + reach
    value, weights, rest_step = kinds[0]
    shares = (weights / weights.sum()).tolist()
    return NoiseExponent(
        float(value), (low, high), tuple(steps.tolist()), tuple(shares[:-1]), shares[-1],
        float(rest_step), eta, beta,
    )  # fmt: skip


def _of(
    parts: Tensor, steps: Tensor, eta: float, edge: float, spread: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """ρ, the modes' excess losses with the rest's as the last, and the mean ηλ of the rest.

    The rest is one mode of its mean ηλ, or, with ``spread``, modes of 0 and of the least leading
    ηλ with that mean: between these ρ lies, from ρ = 1/3 on, since S − ρT is concave in ηλ there
    (S the loss, T the one weighted by e/(e − ηλ)).
    """
    noise, rest, bent = parts[:-2], parts[-2], parts[-1]
    most = steps[-1].clamp(min=0)
    step = (eta * bent / rest.clamp(min=1e-300)).clamp(min=torch.zeros(()), max=most)
    share = step / most if spread and most > 0 else torch.zeros(())
    inner = torch.stack([rest * (1 - share), rest * share]) if spread else rest[None]
    at = torch.stack([torch.zeros_like(most), most]) if spread else step[None]
    losses = torch.cat([noise / (edge - steps), inner / (edge - at)])
    weighted = losses * edge / (edge - torch.cat([steps, at]))
    weights = torch.cat([losses[: len(noise)], losses[len(noise) :].sum()[None]])
    return losses.sum() / weighted.sum(), weights, step
