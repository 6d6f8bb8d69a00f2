"""The configured optimizer of a run, and the η and β that its next update uses."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer

from igo.config.schema import OptimizerConfig
from igo.method.profiles import parameters as arguments


def build(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], learning_rate: float
) -> Optimizer:
    """Build the optimizer with η_1 and β_1; igo.Schedule sets η and β of each update."""
    values = {name: getattr(config, name) for name in arguments(config.function)}
    settings = {name: value for name, value in values.items() if value is not None}
    optimizer: Optimizer = config.function(parameters, learning_rate, **settings)
    return optimizer


def learning_rate(optimizer: Optimizer) -> float:
    """The η of the next step."""
    return float(optimizer.param_groups[0]["lr"])


def momentum(optimizer: Optimizer) -> float | None:
    """The β of the next step; None for an optimizer without ``momentum``."""
    beta = optimizer.param_groups[0].get("momentum")
    return None if beta is None else float(beta)
