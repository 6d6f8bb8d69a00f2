"""The loss of fixed samples as a function of the parameters: value, gradient, Hessian products.

Torch differentiates twice, and scipy has the eigenvalue solver. Libraries for both are not used:
curvlinops needs seven packages and the deprecated torch.jit, hessian-eigenthings is an alpha
version and gives a short last batch the weight of a whole one, and PyHessian is from 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from igo.noise.measure import Batch, Loss


@dataclass(frozen=True)
class Surface:
    """The mean loss of all samples in ``batches``, at parameters given as one vector (d,).

    The network keeps its mode: in eval mode BatchNorm uses its running statistics, which do not
    change with the parameters. Parameters that need no gradient are constants. ``work`` is called
    after each pass over the samples.
    """

    network: nn.Module
    loss: Loss
    batches: Sequence[Batch]
    work: Callable[[], None] = field(default=lambda: None)

    @property
    def here(self) -> Tensor:
        """The network's present parameters, (d,)."""
        return torch.cat([p.detach().flatten() for p in self._parameters().values()])

    def value_and_gradient(self, parameters: Tensor) -> tuple[float, Tensor]:
        """The loss and its gradient (d,)."""
        value, gradient = 0.0, torch.zeros_like(parameters)
        for batch, share in self._shares():
            point = parameters.detach().requires_grad_()
            loss = self._loss(point, batch)
            gradient += share * torch.autograd.grad(loss, point)[0]
            value += share * float(loss.detach())
        self.work()
        return value, gradient

    def curvature(self, parameters: Tensor, direction: Tensor) -> Tensor:
        """The Hessian times a direction, (d,), by differentiating twice."""
        product = torch.zeros_like(parameters)
        for batch, share in self._shares():
            point = parameters.detach().requires_grad_()
            with sdpa_kernel(SDPBackend.MATH):  # the other kernels have no second derivative
                loss = self._loss(point, batch)
                (gradient,) = torch.autograd.grad(loss, point, create_graph=True)
                (of_batch,) = torch.autograd.grad(gradient, point, direction)
            product += share * of_batch
        self.work()
        return product

    def _parameters(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def _shares(self) -> list[tuple[Batch, float]]:
        n = sum(len(labels) for _, labels in self.batches)
        return [(batch, len(batch[1]) / n) for batch in self.batches]

    def _loss(self, parameters: Tensor, batch: Batch) -> Tensor:
        named = self._parameters()
        pieces = parameters.split([p.numel() for p in named.values()])
        values = {
            name: piece.view_as(p) for (name, p), piece in zip(named.items(), pieces, strict=True)
        }
        inputs, targets = batch
        return self.loss(functional_call(self.network, values, (inputs,)), targets)
