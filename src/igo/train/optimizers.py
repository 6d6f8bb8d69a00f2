"""Makes the optimizer of a run: one by name, or one of the user's own."""

import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from igo.config import own
from igo.config.schema import OptimizerConfig
from igo.loop.schedule import SAME


def build(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], learning_rate: float
) -> Optimizer:
    """The optimizer of a network's parameters, which all decay alike, with η_1.

    With g the gradient: sgd is x ← x - η g, shb m ← β m + g, x ← x - η m, and nshb (arXiv
    2402.02325) m ← β m + (1 - β) g, x ← x - η m. Their g has weight_decay · x in it. adamw is
    x ← (1 - η weight_decay) x - η m̂/(√v̂ + ε) (Loshchilov and Hutter 2019).

    Raises:
        ConfigError: the user's own optimizer cannot be made.
    """
    all_parameters = list(parameters)
    if config.arguments is not None:
        return _own(config.name, config.arguments, all_parameters, learning_rate)
    settings: dict[str, Any] = {
        "lr": learning_rate,
        "weight_decay": config.weight_decay,
        "fused": True,  # One kernel for all parameters: launches are most of a small update.
    }
    if config.name == "adamw":
        settings |= {"betas": (config.beta1, config.beta2), "eps": config.eps}
        return AdamW(all_parameters, **settings)
    dampening = config.momentum if config.name == "nshb" else 0.0
    optimizer = SGD(all_parameters, momentum=config.momentum, dampening=dampening, **settings)
    if config.momentum:
        # m begins at 0. PyTorch's first m would be g, not (1 - β) g, and unwritten memory if loss
        # scaling skips the first step.
        for parameter in all_parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _own(
    target: str, arguments: dict[str, Any], parameters: list[nn.Parameter], learning_rate: float
) -> Optimizer:
    """The user's own optimizer, which must need no closure and have the learning rate as lr."""
    optimizer: Optimizer = own.made_by(
        "optimizer", target, arguments, Optimizer, parameters, lr=learning_rate
    )
    with own.reported("optimizer", target, arguments):
        inspect.signature(optimizer.step).bind()  # ``bind`` raises if a closure is needed.
        # The schedule multiplies the groups' rates, so at least one must have the setting's, up to
        # rounding. An optimizer that chooses its rate by itself has None.
        rates = [group["lr"] for group in optimizer.param_groups]
        if None in rates or not any(math.isclose(r, learning_rate, rel_tol=SAME) for r in rates):
            texts = ", ".join(map(str, rates[:3]))
            raise ValueError(f"its groups have lr {texts}; pass the argument lr={learning_rate} on")
    return optimizer
