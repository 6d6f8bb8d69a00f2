"""The configured optimizer of a run, and the η and β that its next update uses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from igo.config import optimizers
from igo.config.schema import OptimizerConfig
from igo.method.profiles import parameters as arguments


def build(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], learning_rate: float
) -> Optimizer:
    """Build the optimizer with η_1 and β_1; igo.Schedule sets η and β of each update."""
    function = optimizers.function(config.name, of_timm=config.timm)
    values = {name: getattr(config, name) for name in arguments(function)}
    settings = {name: value for name, value in values.items() if value is not None}
    optimizer: Optimizer = function(parameters, learning_rate, **settings)
    _keep_initial(optimizer, config, learning_rate)
    return optimizer


def load(
    optimizer: Optimizer, state: dict[str, Any], config: OptimizerConfig, learning_rate: float
) -> None:
    """Load a checkpoint's state into the optimizer, and η_1 and β_1, which old ones lack."""
    optimizer.load_state_dict(state)
    _keep_initial(optimizer, config, learning_rate)


def _keep_initial(optimizer: Optimizer, config: OptimizerConfig, learning_rate: float) -> None:
    """Keep η_1 and β_1 in each group, where igo.Schedule reads them.

    On a GPU a fused optimizer has η as a float32 tensor that changes in place: a CUDA graph reads a
    tensor at each replay, and would fix a number. A checkpoint may be of either kind of device.
    """
    for group in optimizer.param_groups:
        group["initial_lr"] = learning_rate
        if isinstance(optimizer, torch.optim.SGD):
            group["initial_momentum"] = config.momentum
            group["initial_dampening"] = config.momentum if config.name == "nshb" else 0.0
        device, rate = group["params"][0].device, group["lr"]
        on_gpu = _on_gpu(device) and takes_flag(optimizer)
        if "capturable" in group and takes_flag(optimizer):
            group["capturable"] = on_gpu
        if not on_gpu:
            group["lr"] = float(rate)
        elif not (isinstance(rate, Tensor) and rate.device == device):
            group["lr"] = torch.tensor(float(rate), device=device)


def _on_gpu(device: torch.device) -> bool:
    return device.type != "cpu"


def takes_flag(optimizer: Optimizer) -> bool:
    """Whether the optimizer is fused, and itself skips an update if ``found_inf`` says so."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def learning_rate(optimizer: Optimizer) -> float:
    """The η of the next step; waits for a GPU."""
    return float(optimizer.param_groups[0]["lr"])


def momentum(optimizer: Optimizer) -> float | None:
    """The β of the next step; None for an optimizer without ``momentum``."""
    beta = optimizer.param_groups[0].get("momentum")
    return None if beta is None else float(beta)
