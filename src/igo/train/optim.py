"""The configured optimizer of a run, and the η and β that its next update uses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
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
    """Keep η_1 and β_1 in each group, where igo.Schedule reads them."""
    for group in optimizer.param_groups:
        group["initial_lr"] = learning_rate
        if isinstance(optimizer, torch.optim.SGD):
            group["initial_momentum"] = config.momentum
            group["initial_dampening"] = config.momentum if config.name == "nshb" else 0.0


def learning_rate(optimizer: Optimizer) -> float:
    """The η of the next step."""
    return float(optimizer.param_groups[0]["lr"])


def momentum(optimizer: Optimizer) -> float | None:
    """The β of the next step; None for an optimizer without ``momentum``."""
    beta = optimizer.param_groups[0].get("momentum")
    return None if beta is None else float(beta)
