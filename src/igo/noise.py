"""C², the variance of a one-sample stochastic gradient, and the noise level δ that it makes.

δ = η √(C²/b) is how strongly SGD smooths the loss (slides, "SGD's smoothing property"). C² is
measured from mini-batch gradients, as SGD really uses them, never assumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from igo.data import Batch, Data
from igo.engine import Engine
from igo.seeds import derive_seed, generator


@dataclass(frozen=True)
class Noise:
    """A measurement at fixed parameters.

    ``variance`` is C², (loss per parameter)²; ``gradient_norm`` is ‖∇f‖, loss per parameter,
    0 where the unbiased estimate of its square is negative.
    """

    variance: float
    gradient_norm: float


def noise_level(
    learning_rate: float,
    batch_size: int,
    variance: float,
    *,
    optimizer: str = "sgd",
    momentum: float = 0.0,
    gradient_norm: float = 0.0,
) -> float:
    """δ, in units of the parameter norm; without a finite-sample factor, as published.

    SGD: η √(C²/b) (slides). Heavy ball: η √((1 + β̂) C²/b + β̂ K²), β̂ = β(β² - β + 1)/(1 - β)².
    Normalised heavy ball: η √(C²/b + 4β²(C²/b + K²)) (arXiv 2402.02325, 2412.11501). K = ‖∇f‖.

    Raises:
        ValueError: an unknown optimizer.
    """
    per_batch, k_squared = variance / batch_size, gradient_norm**2
    if optimizer == "sgd":
        return learning_rate * math.sqrt(per_batch)
    if optimizer == "shb":
        beta_hat = momentum * (momentum**2 - momentum + 1) / (1 - momentum) ** 2
        return learning_rate * math.sqrt((1 + beta_hat) * per_batch + beta_hat * k_squared)
    if optimizer == "nshb":
        return learning_rate * math.sqrt(per_batch + 4 * momentum**2 * (per_batch + k_squared))
    raise ValueError(f"optimizer={optimizer!r}: it must be sgd, shb or nshb")


def estimate(gradients: Tensor, batch_size: int, n: int) -> Noise:
    """C² and ‖∇f‖ from gradients of disjoint mini-batches of one epoch.

    Args:
        gradients: (K, d), K ≥ 2 mini-batch gradients at the same parameters.
        batch_size: b, samples in each.
        n: training samples that the batches are pieces of.

    C² = b · Σ‖g_k - ḡ‖²/(K - 1) · (n - 1)/n, unbiased for such pieces; ‖∇f‖² = ‖ḡ‖² less the
    variance that ḡ itself has, (C²/bK)·(n - bK)/(n - 1), unbiased too.
    """
    k = len(gradients)
    mean = gradients.mean(dim=0, dtype=torch.float64)
    spread = sum(float((g.double() - mean).square().sum()) for g in gradients)
    variance = batch_size * spread / (k - 1) * (n - 1) / n
    used = batch_size * k
    left = max(n - used, 0) / (n - 1)
    norm_squared = float(mean.square().sum()) - variance / used * left
    return Noise(variance, math.sqrt(max(norm_squared, 0.0)))


def measure(
    engine: Engine, network: nn.Module, data: Data, *, batches: int, batch_size: int, seed: int
) -> Noise:
    """Measure C² and ‖∇f‖ at the network's present parameters, and leave no trace in it.

    K disjoint mini-batches of at most ``batch_size`` samples, augmented as in training, with
    BatchNorm on the statistics of each mini-batch, as in training.
    """
    b = min(batch_size, data.n // batches)
    order = torch.randperm(data.n, generator=generator(seed, "pieces"))
    pieces = order[: b * batches].split(b)
    buffers = [buffer.clone() for buffer in network.buffers()]
    with torch.random.fork_rng(devices=[engine.device] if engine.device.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, "dropout"))
        drawn = data.train_batches(pieces, derive_seed(seed, "augmentation"))
        gradients = torch.stack(list(_gradients(engine, network, drawn)))
    for buffer, before in zip(network.buffers(), buffers, strict=True):
        buffer.copy_(before)
    return estimate(gradients, b, data.n)


def _gradients(engine: Engine, network: nn.Module, batches: Iterable[Batch]) -> Iterable[Tensor]:
    """The gradient of each batch's mean loss, (d,) float32."""
    scale = engine.scaler.get_scale()
    for images, labels in batches:
        engine.backward(network, images, labels)
        found = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        yield torch.cat(found).float() / scale
    for parameter in network.parameters():
        parameter.grad = None
