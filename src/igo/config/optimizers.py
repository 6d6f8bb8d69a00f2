"""Optimizers by name, each a function whose keyword arguments are its settings.

The annotation of an argument gives its range; its default is used if nothing is set. A file in
conf/optimizer/ shows the settings to a person. PyTorch is imported when an optimizer is made: a
plan is printed without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Annotated, Any

from igo.config import own
from igo.ground.errors import ConfigError, first_line
from igo.method.ranges import NOT_NEGATIVE, POSITIVE, Rule

Parameters = Iterable[Any]  # of a network: all of them decay alike
BELOW_ONE: Rule = (lambda b: 0 <= b < 1, "β must be in [0, 1)")
Beta = Annotated[float, BELOW_ONE]
Decay = Annotated[float, NOT_NEGATIVE]


def sgd(parameters: Parameters, learning_rate: float, *, weight_decay: Decay = 0.0) -> Any:
    """x ← x - η g, where g has weight_decay · x in it."""
    return _sgd(parameters, learning_rate, weight_decay)


def shb(
    parameters: Parameters, learning_rate: float, *, momentum: Beta = 0.0, weight_decay: Decay = 0.0
) -> Any:
    """m ← β m + g, x ← x - η m."""
    return _sgd(parameters, learning_rate, weight_decay, momentum)


def nshb(
    parameters: Parameters, learning_rate: float, *, momentum: Beta = 0.0, weight_decay: Decay = 0.0
) -> Any:
    """m ← β m + (1 - β) g, x ← x - η m, with m = 0 before the first step (arXiv 2402.02325)."""
    return _sgd(parameters, learning_rate, weight_decay, momentum, dampening=momentum)


def _sgd(
    parameters: Parameters, rate: float, decay: float, momentum: float = 0.0, dampening: float = 0.0
) -> Any:
    import torch

    optimizer = torch.optim.SGD(
        list(parameters), lr=rate, momentum=momentum, dampening=dampening, weight_decay=decay,
        fused=True,
    )  # fmt: skip
    if momentum:  # begin with m = 0: PyTorch's first m would be g, not (1 - β) g, and unwritten
        # memory if loss scaling skips the first step
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def adamw(
    parameters: Parameters,
    learning_rate: float,
    *,
    beta1: Beta = 0.9,
    beta2: Beta = 0.999,
    eps: Annotated[float, POSITIVE] = 1e-8,
    weight_decay: Decay = 0.01,
) -> Any:
    """x ← (1 - η weight_decay) x - η m̂/(√v̂ + ε) (Loshchilov and Hutter 2019)."""
    from torch.optim import AdamW

    return AdamW(
        list(parameters), lr=learning_rate, betas=(beta1, beta2), eps=eps,
        weight_decay=weight_decay, fused=True,
    )  # fmt: skip


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": sgd,
    "shb": shb,
    "nshb": nshb,
    "adamw": adamw,
}


def own_optimizer(call: str, parameters: Parameters, learning_rate: float) -> Any:
    """The optimizer that the user's own call makes of the parameters and lr = η_1."""
    from torch.optim import Optimizer

    made = own.made_by("optimizer", call, Optimizer, list(parameters), lr=learning_rate)
    with own.reported("optimizer", call):
        inspect.signature(made.step).bind()  # without a closure
    return made


def timm(
    parameters: Parameters,
    learning_rate: float,
    *,
    name: str,
    beta1: Annotated[float | None, BELOW_ONE] = None,
    beta2: Annotated[float | None, BELOW_ONE] = None,
    eps: Annotated[float | None, POSITIVE] = None,
    weight_decay: Decay = 0.0,
) -> Any:
    """Any optimizer that timm's factory knows; timm chooses the arguments that are None."""
    factory: Any = import_module("timm.optim")
    betas = tuple(beta for beta in (beta1, beta2) if beta is not None)
    options = {name: value for name, value in (("betas", betas), ("eps", eps)) if value}
    try:
        info = factory.get_optimizer_info(name)
        if info.second_order:
            raise ValueError("it needs second derivatives, which training does not compute")
        if betas and not (info.has_betas and info.num_betas == len(betas)):
            raise ValueError("beta1 and beta2 go together, and it may have neither")
        if eps is not None and not info.has_eps:
            raise ValueError("it has no eps")
        return factory.create_optimizer_v2(
            list(parameters), opt=name, lr=learning_rate, weight_decay=weight_decay, **options
        )
    except (AssertionError, ImportError, TypeError, ValueError) as error:
        allowed = f"timm cannot make it: {first_line(error)}"
        raise ConfigError("optimizer.name", name, allowed) from None
