"""BatchNorm over several ranks: statistics of the whole batch (synced), or of each rank's share."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from igo.errors import ConfigError
from igo.ranks import ALONE, Ranks


class _Sum(torch.autograd.Function):
    """The sum over ranks. A loss that is summed over ranks has summed slopes, too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.sum_(value.clone())

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return cast(Ranks, ctx.ranks).sum_(slope.clone()), None


class SyncedBatchNorm(_BatchNorm):
    """BatchNorm with the statistics of all ranks' samples, on any device.

    State dict as BatchNorm's. A rank may hold any number of samples, also none. PyTorch's own has
    no CPU version, takes no empty share, and makes the host wait for the GPU in every layer.
    """

    ranks: Ranks = ALONE

    @staticmethod
    def of(norm: _BatchNorm, ranks: Ranks) -> SyncedBatchNorm:
        """Take over a layer's parameters, buffers, settings and (timm) activation."""
        made = SyncedBatchNorm(norm.num_features)
        made.__dict__.update(norm.__dict__)
        made.ranks = ranks
        return made

    def forward(self, x: Tensor) -> Tensor:
        """(b, C, …) to the same; b is this rank's share of the batch."""
        made: Tensor = self._by_batch(x) if self.training else self._by_running(x)
        for name in ("drop", "act"):  # of timm's BatchNormAct2d, in its order
            after = self._modules.get(name)
            made = made if after is None else after(made)
        return made

    def _by_running(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        return F.batch_norm(x, self.running_mean, self.running_var, weight, bias, eps=self.eps)

    def _by_batch(self, x: Tensor) -> Tensor:
        """One sum over ranks: Σx, Σx² and the count, in float64 so that Σx² - (Σx)²/count keeps."""
        values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        over, across = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        n = x.numel() // x.shape[1]
        sums = values.sum(over, dtype=torch.float64)
        centre = (sums.detach() / max(n, 1)).to(values.dtype)  # what is near it loses no digits
        values = values - centre.view(across)
        around = values.square().sum(over, dtype=torch.float64)
        squares = around + centre.double() * (2 * sums - n * centre.double())
        counted = torch.full((1,), n, dtype=torch.float64, device=x.device)
        summed = cast(Tensor, _Sum.apply(torch.cat((sums, squares, counted)), self.ranks))  # type: ignore[no-untyped-call]
        count = summed[-1:].detach()  # a tensor: its number would have to be waited for on a GPU
        mean, square = (summed[:-1] / count).chunk(2)
        variance = square - mean.square()
        scale = (variance + self.eps).rsqrt()
        offset = (mean - centre.double()).to(values.dtype)
        made = (values - offset.view(across)) * scale.to(values.dtype).view(across)
        if self.affine:
            made = made * self.weight.view(across) + self.bias.view(across)
        self._follow(mean.detach(), variance.detach() * (count / (count - 1)))
        return made.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics; the variance is the unbiased one, as in torch."""
        seen = cast(Tensor, self.num_batches_tracked).add_(1)
        for running, now in ((self.running_mean, mean), (self.running_var, variance)):
            old = cast(Tensor, running)
            if self.momentum is None:  # the mean of all batches
                old.add_((now - old) / seen)
            else:
                old.mul_(1 - self.momentum).add_(now, alpha=self.momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        """Whatever the layer before made is of the right shape: the unsynced model took it."""


def synced(network: nn.Module, ranks: Ranks) -> nn.Module:
    """The network with each BatchNorm synced; as it is where there is one rank."""
    if ranks.size == 1:
        return network
    for module in network.modules():
        plain = type(module).__module__.startswith("torch.nn.") or _has_activation(module)
        if isinstance(module, _BatchNorm) and (not plain or module.running_mean is None):
            allowed = f"the model has {type(module).__name__} layers, which cannot be; use local"
            raise ConfigError("engine.batchnorm", "synced", allowed)
    return _replaced(network, ranks)


def _has_activation(module: nn.Module) -> bool:
    """timm's BatchNormAct2d."""
    return isinstance(module, nn.BatchNorm2d) and {"drop", "act"} <= set(module._modules)


def _replaced(module: nn.Module, ranks: Ranks) -> nn.Module:
    if isinstance(module, _BatchNorm):
        return SyncedBatchNorm.of(module, ranks)
    for name, child in module.named_children():
        setattr(module, name, _replaced(child, ranks))
    return module


def is_synced(network: nn.Module) -> bool:
    """Whether a rank without samples must go through the network with the others."""
    layers = network.modules()
    return network.training and any(isinstance(module, SyncedBatchNorm) for module in layers)


def average(network: nn.Module, ranks: Ranks) -> None:
    """Give all ranks the mean of their running statistics; synced ones are the same already."""
    if ranks.size == 1 or is_synced(network):
        return
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            for running in (module.running_mean, module.running_var):
                if running is not None:
                    ranks.sum_(running).div_(ranks.size)
