"""The scatter of gradients about their mean, from one gradient at a time: none of them is kept.

Welford's update holds the mean. The increments u_k = (k-1)/k · ‖g_k - ḡ_{k-1}‖² are squares of
orthogonal contrasts, so their sum is Σ‖g_k - ḡ‖² exactly, without cancellation. The interval needs
each gradient's share of the sum. It comes from a random projection of each gradient (Johnson and
Lindenstrauss 1984): exact up to ``WIDTH`` parameters; for more, the error is about 4 % of a share.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from igo.noise import noise
from igo.noise.noise import Noise

WIDTH = 1024  # numbers of a gradient's projection
CHUNK = 256 * WIDTH  # elements that are converted to float64 at a time


class Spread:
    """Σ‖g_k - ḡ‖² and ḡ of gradients that are added one by one.

    It holds ḡ in float32 (float64 for float64 parameters) and ``WIDTH`` numbers of each gradient.
    Squares are summed in float64. Nothing is read from the device before ``noise``.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._mean = [
            torch.zeros(p.numel(), dtype=torch.promote_types(p.dtype, torch.float32),
                        device=p.device)
            for p in parameters
        ]  # fmt: skip
        self.missed = [True] * len(self._mean)  # whether a parameter has had no gradient
        random_bits = torch.Generator().manual_seed(0)
        bits = torch.randint(0, 2, (CHUNK,), generator=random_bits, dtype=torch.int8)
        self._signs = bits.mul_(2).sub_(1).to(self._mean[0].device)
        self._contrasts: list[Tensor] = []
        self._projections: list[Tensor] = []

    @property
    def count(self) -> int:
        """K, the number of gradients so far."""
        return len(self._contrasts)

    def add(self, gradient: Sequence[Tensor | None]) -> None:
        """Add the gradient of one more mini-batch, by parameter; None stands for zeros."""
        k = self.count + 1
        squares, projections, start = [], [], 0
        shifts = random.Random(0)  # so that each chunk has other signs
        for i, (mean, grad) in enumerate(zip(self._mean, gradient, strict=True)):
            self.missed[i] &= grad is None
            g = mean.new_zeros(1).expand(len(mean)) if grad is None else grad.reshape(-1)
            square = torch.zeros((), dtype=torch.float64, device=mean.device)
            projection = torch.zeros(WIDTH, dtype=torch.float64, device=mean.device)
            for g_part, mean_part in zip(g.detach().split(CHUNK), mean.split(CHUNK), strict=True):
                exact = g_part.double()
                difference = exact - mean_part
                square += difference.square().sum()
                mean_part.add_(difference.div_(k))
                signed = exact * self._signs.roll(shifts.randrange(CHUNK))[: len(exact)]
                padded = torch.nn.functional.pad(signed, (0, -len(exact) % WIDTH))
                projection += padded.view(-1, WIDTH).sum(dim=0)  # each group's sum
            squares.append(square)
            projections.append(projection.roll(start % WIDTH))
            start += len(mean)
        self._contrasts.append(_total(squares) * ((k - 1) / k))
        self._projections.append(_total(projections))

    def noise(self, *, batch_size: int, n: int, sampling: str = "disjoint") -> Noise:
        """Unbiased C² and ‖∇f‖², with the interval of C².

        C² = b · Σ_k ‖g_k - ḡ‖²/(K - 1) · F. F follows from how the K mini-batches of b samples were
        drawn from n, see ``noise.from_spreads``.

        Raises:
            ValueError: fewer than two gradients, or disjoint batches of more than n samples.
        """
        means = [
            torch.stack([part.double().square().sum() for part in mean.split(CHUNK)]).sum()
            for mean in self._mean
        ]
        sums = torch.stack([*self._contrasts, _total(means)])
        numbers = torch.cat([sums, *self._projections]).cpu()  # one copy from the device
        k = self.count
        *contrasts, mean_square = numbers[: k + 1].tolist()
        projected = numbers[k + 1 :].view(k, WIDTH)
        centred = projected - projected.mean(dim=0)
        products = centred @ centred.T
        shares = products.diagonal()
        scale = sum(contrasts) / max(float(shares.sum()), 1e-300)
        crossed = (products.square().sum() - shares.square().sum()) / max(k * (k - 1), 1)
        return noise.from_spreads(
            (shares * scale).tolist(),
            mean_square,
            batch_size=batch_size,
            n=n,
            sampling=sampling,
            crossed=float(crossed) * scale**2,
        )


def estimate(gradients: Tensor, *, batch_size: int, n: int, sampling: str = "disjoint") -> Noise:
    """C² and ‖∇f‖² of gradients (K, d), see ``Spread.noise``."""
    spread = Spread([torch.empty(gradients.shape[1], dtype=torch.float64)])
    for row in gradients:
        spread.add([row.cpu()])
    return spread.noise(batch_size=batch_size, n=n, sampling=sampling)


def _total(values: Sequence[Tensor]) -> Tensor:
    """The sum over parameters, one after the other."""
    return sum(values[1:], values[0])
