"""The optimizer of a run, as configured, and what the next update will use."""

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
    """Build the optimizer with η_1 and β_1; igo.Schedule sets those of each update."""
    function = optimizers.function(config.name, of_timm=config.timm)
    values = {name: getattr(config, name) for name in arguments(function)}
    settings = {name: value for name, value in values.items() if value is not None}
    made: Optimizer = function(parameters, learning_rate, **settings)
    _keep_initial(made, config, learning_rate)
    return made


def load(
    made: Optimizer, state: dict[str, Any], config: OptimizerConfig, learning_rate: float
) -> None:
    """Bring a checkpoint's state to the optimizer; old ones lack η_1 and β_1."""
    made.load_state_dict(state)
    _keep_initial(made, config, learning_rate)


def _keep_initial(made: Optimizer, config: OptimizerConfig, learning_rate: float) -> None:
    """Keep η_1 and β_1 in each group, where igo.Schedule reads them.

    On a GPU a fused optimizer has η as a float32 tensor, changed in place: a CUDA graph reads it at
    each replay, where it would have a number for fixed. A checkpoint brings either kind to either
    device.
    """
    for group in made.param_groups:
        group["initial_lr"] = learning_rate
        if isinstance(made, torch.optim.SGD):
            group["initial_momentum"] = config.momentum
            group["initial_dampening"] = config.momentum if config.name == "nshb" else 0.0
        device, rate = group["params"][0].device, group["lr"]
        on_gpu = _on_gpu(device) and takes_flag(made)
        if "capturable" in group and takes_flag(made):
            group["capturable"] = on_gpu
        if not on_gpu:
            group["lr"] = float(rate)
        elif not (isinstance(rate, Tensor) and rate.device == device):
            group["lr"] = torch.tensor(float(rate), device=device)


def _on_gpu(device: torch.device) -> bool:
    return device.type != "cpu"


def takes_flag(made: Optimizer) -> bool:
    """Whether it is fused, and skips an update by itself where ``found_inf`` tells it to."""
    return bool(getattr(made, "_step_supports_amp_scaling", False))


def learning_rate(made: Optimizer) -> float:
    """The η that the next step will use; waits for a GPU."""
    return float(made.param_groups[0]["lr"])


def momentum(made: Optimizer) -> float | None:
    """The β that the next step will use, None of an optimizer that has no ``momentum``."""
    beta = made.param_groups[0].get("momentum")
    return None if beta is None else float(beta)
