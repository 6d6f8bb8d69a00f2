"""SGD, stochastic heavy ball and normalised heavy ball, all as torch.optim.SGD."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from igo.config.schema import OptimizerConfig


def build(
    optimizer: OptimizerConfig, parameters: Iterable[nn.Parameter], learning_rate: float
) -> torch.optim.SGD:
    """Build the optimizer with η_1 and β_1; igo.Schedule sets those of each update.

    sgd: x ← x - η g. shb: m ← β m + g, x ← x - η m. nshb: m ← β m + (1 - β) g, x ← x - η m,
    with m = 0 before the first step (science: momentum of arXiv 2402.02325).
    """
    beta = optimizer.momentum
    made = torch.optim.SGD(
        list(parameters),
        lr=learning_rate,
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
    _keep_initial(made, optimizer, learning_rate)
    return made


def load(
    made: torch.optim.SGD, state: dict[str, Any], optimizer: OptimizerConfig, learning_rate: float
) -> None:
    """Bring a checkpoint's state to the optimizer; old ones lack η_1 and β_1."""
    made.load_state_dict(state)
    _keep_initial(made, optimizer, learning_rate)


def _keep_initial(made: torch.optim.SGD, optimizer: OptimizerConfig, learning_rate: float) -> None:
    """Keep η_1 and β_1 in each group, where igo.Schedule reads them.

    On a GPU η is a float32 tensor there, changed in place: a CUDA graph reads it at each replay,
    where it would have a number for fixed. A checkpoint brings either kind to either device.
    """
    for group in made.param_groups:
        group["initial_lr"], group["initial_momentum"] = learning_rate, optimizer.momentum
        group["initial_dampening"] = optimizer.momentum if optimizer.name == "nshb" else 0.0
        device, rate = group["params"][0].device, group["lr"]
        if not _on_gpu(device):
            group["lr"] = float(rate)
        elif not (isinstance(rate, Tensor) and rate.device == device):
            group["lr"] = torch.tensor(float(rate), device=device)


def learning_rate(made: torch.optim.Optimizer) -> float:
    """The η that the next step will use; waits for a GPU."""
    return float(made.param_groups[0]["lr"])


def momentum(made: torch.optim.Optimizer) -> float:
    """The β that the next step will use."""
    return float(made.param_groups[0]["momentum"])


def _on_gpu(device: torch.device) -> bool:
    return device.type != "cpu"
