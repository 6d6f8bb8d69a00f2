"""SGD, stochastic heavy ball and normalised heavy ball, all as torch.optim.SGD."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from igo.config.schema import OptimizerConfig


def build(optimizer: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.SGD:
    """Build the optimizer; its learning rate is set by the loop before each stage.

    sgd: x ← x - η g. shb: m ← β m + g, x ← x - η m. nshb: m ← β m + (1 - β) g, x ← x - η m,
    with m = 0 before the first step (science: momentum of arXiv 2402.02325).
    """
    beta = optimizer.momentum
    made = torch.optim.SGD(
        list(parameters),
        lr=0.0,
        momentum=beta,
        dampening=beta if optimizer.name == "nshb" else 0.0,
        weight_decay=optimizer.weight_decay,
        fused=True,
    )
    if beta:  # m = 0 must be there: PyTorch's first m would be g, not (1 - β) g, and unwritten
        # memory where loss scaling skips the first step
        for group in made.param_groups:
            for parameter in group["params"]:
                made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return made


def apply(
    made: torch.optim.Optimizer, learning_rate: float, momentum: float, optimizer: OptimizerConfig
) -> None:
    """Change η and β at a stage boundary; the optimizer's state lives on.

    On a GPU η is a float32 tensor there, changed in place: a CUDA graph reads it at each replay,
    where it would have a number for fixed. A checkpoint brings either kind to either device.
    """
    for group in made.param_groups:
        device = group["params"][0].device
        if not _on_gpu(device):
            group["lr"] = learning_rate
        elif isinstance(group["lr"], Tensor) and group["lr"].device == device:
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = torch.tensor(learning_rate, device=device)
        group["momentum"] = momentum
        group["dampening"] = momentum if optimizer.name == "nshb" else 0.0


def learning_rate(made: torch.optim.Optimizer) -> float:
    """The η that the next step will use; waits for a GPU."""
    return float(made.param_groups[0]["lr"])


def momentum(made: torch.optim.Optimizer) -> float:
    """The β that the next step will use."""
    return float(made.param_groups[0]["momentum"])


def _on_gpu(device: torch.device) -> bool:
    return device.type != "cpu"
