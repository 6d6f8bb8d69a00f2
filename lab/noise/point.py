"""Gradients of a run at the point where it is: as one vector, their C², their squared norms."""

from typing import Any

import torch
from torch import Tensor, nn

from igo.noise.measure import Spread, untouched
from igo.train.training import Training


def variance_at_point(run: Training, order: Tensor, batch_size: int, seed: int) -> float:
    """C² from batches of augmented training images in this order; the run is left as it was.

    ``order`` has different indices, so that the batches are disjoint. ``seed`` is that of the
    augmentation.
    """
    parameters = [*run.network.parameters()]
    with untouched(run.network):
        spread = Spread(parameters)
        for batch in run.data.train_batches(order.split(batch_size), seed):
            run.engine.backward(run.network, [batch], batch_size)
            spread.add([parameter.grad for parameter in parameters])
    return spread.noise(batch_size=batch_size, n=run.data.n).variance


def flat_gradient(network: nn.Module) -> Tensor:
    """The gradients that a backward pass has left, of all parameters in order, (d,)."""
    gradients = (p.grad for p in network.parameters())
    return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


def squared_norm(tensors: Any) -> float:
    """‖·‖² of a list of tensors as one vector, each in its own precision."""
    return float(torch.stack(torch._foreach_norm(tensors)).detach().square().sum())
