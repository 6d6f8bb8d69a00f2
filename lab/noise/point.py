"""Gradients of a run at the point where it is: their C², and their squared norms."""

from typing import Any

import torch
from torch import Tensor

from igo.noise.measure import Spread, untouched
from igo.train.training import Training


def variance_at_point(run: Training, order: Tensor, batch_size: int, seed: int) -> float:
    """C² from batches of training images in this order; the run is left as it was.

    ``seed`` is that of the augmentation.
    """
    parameters = [*run.network.parameters()]
    with untouched(run.network):
        spread = Spread(parameters)
        for batch in run.data.train_batches(order.split(batch_size), seed):
            run.engine.backward(run.network, [batch], batch_size)
            spread.add([parameter.grad for parameter in parameters])
    return spread.noise(batch_size=batch_size, n=run.data.n).variance


def squared_norm(tensors: Any) -> float:
    """‖·‖² over all tensors, in their own precision."""
    return float(torch.stack(torch._foreach_norm(tensors)).detach().square().sum())
