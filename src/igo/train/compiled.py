"""The model compiled by torch.compile, for batches of any size (engine.compile)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from igo.ground.errors import ConfigError

MOST = 32  # times that a model is compiled: for train and eval mode, and for ranges of sizes


@dataclass
class Compiled:
    """Calls a model: compiled if gradients are needed, otherwise not.

    The model's state, hooks and parameter names do not change.
    """

    backend: str = "inductor"
    most: int = MOST
    given_up: bool = field(default=False, init=False)

    @cached_property
    def _call(self) -> Any:
        import torch._dynamo  # here, as its import takes long

        torch._dynamo.reset()  # earlier runs of this process do not count
        torch._dynamo.config.recompile_limit = self.most
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        return torch.compile(_apply, backend=self.backend)

    def __call__(self, network: nn.Module, images: Tensor) -> Tensor:
        """The model's outputs for images (b, C, H, W).

        Raises:
            ConfigError: the model cannot be compiled on this machine.
        """
        if self.given_up or len(images) < 2 or not torch.is_grad_enabled():
            return cast(Tensor, network(images))  # sizes 0 and 1 would be compiled separately
        call = self._call
        from torch._dynamo import exc, maybe_mark_dynamic

        maybe_mark_dynamic(images, 0)
        try:
            with warnings.catch_warnings():  # advice on a version is no reason to stop
                warnings.filterwarnings("ignore", "Guards may run slower", RuntimeWarning)
                return cast(Tensor, call(network, images))
        except exc.FailOnRecompileLimitHit:
            self.given_up = True
            reason = f"the model was compiled {self.most} times, for other sizes each time"
            warnings.warn(f"training goes on without torch.compile: {reason}", stacklevel=2)
            return cast(Tensor, network(images))
        except exc.TorchDynamoException as error:
            reason = " ".join(str(error).splitlines()[:2])  # which backend, and what it says
            allowed = f"the model cannot be compiled here ({reason}); use false"
            raise ConfigError("engine.compile", True, allowed) from None


def _apply(network: nn.Module, images: Tensor) -> Tensor:
    return cast(Tensor, network(images))
