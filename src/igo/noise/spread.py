"""The scatter of gradients about their mean, from one gradient at a time: none of them is kept.

Welford's update holds the mean. The increments u_k = (k-1)/k · ‖g_k - ḡ_{k-1}‖² are squares of
orthogonal contrasts, so their sum is Σ‖g_k - ḡ‖² exactly, without cancellation. The interval needs
each gradient's share of the sum. It comes from a random projection of each gradient (Johnson and
Lindenstrauss 1984): exact up to ``WIDTH`` parameters; for more, the error is about 4 % of a share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from torch import Tensor

from igo.noise import noise
from igo.noise.noise import Noise

WIDTH = 1024  # numbers of a gradient's projection


class Spread:
    """Σ‖g_k - ḡ‖² and ḡ of gradients that are added one by one.

    It holds ḡ in float32 (float64 for float64 parameters) and ``WIDTH`` numbers of each gradient.
    Squares are summed in float64. Nothing is read from the device before ``noise``.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._like = list(parameters)
        kind = reduce(torch.promote_types, (p.dtype for p in self._like), torch.float32)
        d, device = sum(p.numel() for p in self._like), self._like[0].device
        self._mean = torch.zeros(d, dtype=kind, device=device)
        self.missed = [True] * len(self._like)  # whether a parameter has had no gradient
        random_bits = torch.Generator().manual_seed(0)
        bits = torch.randint(0, 2, (d,), generator=random_bits, dtype=torch.int8)
        self._signs = bits.mul_(2).sub_(1).to(device)
        self._contrasts: list[Tensor] = []
        self._projections: list[Tensor] = []

    @property
    def count(self) -> int:
        """K, the number of gradients so far."""
        return len(self._contrasts)

    def add(self, gradient: Sequence[Tensor | None]) -> None:
        """Add the gradient of one more mini-batch, by parameter; None stands for zeros."""
        k = self.count + 1
        self.missed = [
            missed and grad is None for missed, grad in zip(self.missed, gradient, strict=True)
        ]
        parts = [
            (torch.zeros_like(p) if grad is None else grad.detach()).reshape(-1)
            for p, grad in zip(self._like, gradient, strict=True)
        ]
        g = torch.cat(parts).to(self._mean.dtype)
        difference = g - self._mean
        self._contrasts.append(_square(difference) * ((k - 1) / k))
        self._mean += difference.div_(k)
        padded = torch.nn.functional.pad(g.mul_(self._signs), (0, -len(g) % WIDTH))
        self._projections.append(padded.view(-1, WIDTH).sum(dim=0, dtype=torch.float64))

    def noise(self, *, batch_size: int, n: int, sampling: str = "disjoint") -> Noise:
        """Unbiased C² and ‖∇f‖², with the interval of C².

        C² = b · Σ_k ‖g_k - ḡ‖²/(K - 1) · F. F follows from how the K mini-batches of b samples were
        drawn from n, see ``noise.from_spreads``.

        Raises:
            ValueError: fewer than two gradients, or disjoint batches of more than n samples.
        """
        sums = torch.stack([*self._contrasts, _square(self._mean)])
        numbers = torch.cat([sums, *self._projections]).cpu()  # one copy from the device
        k = self.count
        *contrasts, mean_square = numbers[: k + 1].tolist()
        projected = numbers[k + 1 :].view(k, WIDTH)
        shares = (projected - projected.mean(dim=0)).square().sum(dim=1)
        scale = sum(contrasts) / max(float(shares.sum()), 1e-300)
        return noise.from_spreads(
            (shares * scale).tolist(),
            mean_square,
            batch_size=batch_size,
            n=n,
            sampling=sampling,
        )


def estimate(gradients: Tensor, *, batch_size: int, n: int, sampling: str = "disjoint") -> Noise:
    """C² and ‖∇f‖² of gradients (K, d), see ``Spread.noise``."""
    spread = Spread([torch.empty(gradients.shape[1], dtype=torch.float64)])
    for row in gradients:
        spread.add([row.cpu()])
    return spread.noise(batch_size=batch_size, n=n, sampling=sampling)


def _square(vector: Tensor) -> Tensor:
    """‖vector‖², summed in float64."""
    norm: Tensor = torch.linalg.vector_norm(vector, dtype=torch.float64)
    return norm.square()
