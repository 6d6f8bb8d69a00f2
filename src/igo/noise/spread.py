"""The scatter of gradients about their mean, from one gradient at a time: none of them is kept.

Welford's update holds the mean. The increments u_k = (k-1)/k · ‖g_k - ḡ_{k-1}‖² are squares of
orthogonal contrasts, so their sum is Σ‖g_k - ḡ‖² exactly, without cancellation. The interval needs
each gradient's share of the sum. It comes from a random projection of each gradient (Johnson and
Lindenstrauss 1984): exact up to ``WIDTH`` parameters; for more, the error is about 4 % of a share.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from igo.noise import noise
from igo.noise.noise import Noise

WIDTH = 1024  # numbers of a gradient's projection
CHUNK = 256 * WIDTH  # elements that are converted to float64 at a time


class Spread:
    """Σ‖g_k - ḡ‖² and ḡ of gradients that are added one by one.

    It holds ḡ in float32 (float64 for float64 parameters) and ``WIDTH`` numbers of each gradient.
    Squares are summed in float64. Each rank adds its shard of a DTensor parameter, and sums go over
    the ranks: each rank must add each gradient. Nothing is read from the device before ``noise``.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parameters = list(parameters)
        self.missed = [True] * len(self.parameters)  # whether a parameter has had no gradient
        self._mean = [_zeros(parameter) for parameter in self.parameters]
        self._signs = _signs(self.parameters, self._mean[0].device)
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
            g = mean.new_zeros(1).expand(len(mean)) if grad is None else local(grad).reshape(-1)
            square = torch.zeros((), dtype=torch.float64, device=mean.device)
            projection = torch.zeros(WIDTH, dtype=torch.float64, device=mean.device)
            for g_part, mean_part in zip(g.detach().split(CHUNK), mean.split(CHUNK), strict=True):
                exact = g_part.double()
                difference = exact - mean_part
                square += difference.square().sum()
                mean_part.add_(difference.div_(k))
                projection += _projected(exact, self._signs.roll(shifts.randrange(CHUNK)))
            squares.append(square)
            projections.append(projection.roll(start % WIDTH))
            start += len(mean)
        self._contrasts.append(over_shards(self.parameters, squares) * ((k - 1) / k))
        self._projections.append(over_shards(self.parameters, projections))

    def noise(self, *, batch_size: int, n: int, sampling: str = "disjoint") -> Noise:
        """Unbiased C² and ‖∇f‖², with the interval of C².

        C² = b · Σ_k ‖g_k - ḡ‖²/(K - 1) · F. F follows from how the K mini-batches of b samples were
        drawn from n, see ``noise.sampling_factor``.

        Raises:
            ValueError: fewer than two gradients, or disjoint batches of more than n samples.
        """
        if not self.count:
            raise ValueError("batches=0: a variance needs 2 or more")
        means = [
            torch.stack([part.double().square().sum() for part in mean.split(CHUNK)]).sum()
            for mean in self._mean
        ]
        sums = torch.stack([*self._contrasts, over_shards(self.parameters, means)])
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


def product(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """a · b over parameters, in float64."""
    products = [(x.double() * y.double()).sum() for x, y in zip(a, b, strict=True)]
    return torch.stack([product.to(products[0].device) for product in products]).sum()


def local(tensor: Any) -> Tensor:
    """The tensor, or this rank's shard of a DTensor."""
    shard: Tensor = tensor.to_local() if hasattr(tensor, "device_mesh") else tensor
    return shard


def over_shards(parameters: Sequence[Any], values: Sequence[Tensor]) -> Tensor:
    """Sum the parameters' values over parameters, and over the ranks that hold their shards."""
    sums: dict[Any, Tensor] = {}
    for parameter, value in zip(parameters, values, strict=True):
        layout = None
        if hasattr(parameter, "device_mesh"):
            layout = parameter.device_mesh, tuple(parameter.placements)
        sums[layout] = sums[layout] + value if layout in sums else value
    return torch.stack([_whole(layout, value) for layout, value in sums.items()]).sum(dim=0)


def _whole(layout: Any, value: Tensor) -> Tensor:
    if layout is None:
        return value
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mesh, placements = layout
    partials = [Partial() if placement.is_shard() else Replicate() for placement in placements]
    whole: Tensor = DTensor.from_local(value, mesh, partials, run_check=False).full_tensor()
    return whole


def _zeros(parameter: Tensor) -> Tensor:
    shard = local(parameter)
    dtype = torch.promote_types(shard.dtype, torch.float32)
    return torch.zeros(shard.numel(), dtype=dtype, device=shard.device)


def _signs(parameters: Sequence[Tensor], device: torch.device) -> Tensor:
    """CHUNK random signs; if ranks hold shards, other signs on each rank."""
    sharded = any(hasattr(parameter, "device_mesh") for parameter in parameters)
    generator = torch.Generator().manual_seed(dist.get_rank() if sharded else 0)
    bits = torch.randint(0, 2, (CHUNK,), generator=generator, dtype=torch.int8)
    return bits.mul_(2).sub_(1).to(device)


def _projected(values: Tensor, signs: Tensor) -> Tensor:
    """The sums of ``WIDTH`` groups of the values, each value with its sign."""
    padded = torch.nn.functional.pad(values * signs[: len(values)], (0, -len(values) % WIDTH))
    return padded.view(-1, WIDTH).sum(dim=0)
