"""BatchNorm over several ranks: statistics of the whole batch (synced), or of each rank's share."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from igo.ground.errors import ConfigError
from igo.ground.ranks import ALONE, Ranks


class _Sum(torch.autograd.Function):
    """The sum over ranks, forward and backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.sum_(value.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return cast(Ranks, ctx.ranks).sum_(gradient.clone()), None


class SyncedBatchNorm(_BatchNorm):
    """BatchNorm with the statistics of all ranks' samples, on any device.

    It has BatchNorm's state dict. A rank may have no samples. PyTorch's SyncBatchNorm has no CPU
    version, takes no empty share, and makes the host wait for the GPU in every layer.
    """

    ranks: Ranks = ALONE

    @staticmethod
    def of(norm: _BatchNorm, ranks: Ranks) -> SyncedBatchNorm:
        """Copy a layer's parameters, buffers, settings and (timm) activation."""
        layer = SyncedBatchNorm(norm.num_features)
        layer.__dict__.update(norm.__dict__)
        layer.ranks = ranks
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """(b, C, …) to the same shape; b is this rank's share of the batch."""
        if self.training:
            out = self._by_batch(x)
        else:
            mean, variance = self.running_mean, self.running_var
            out = F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)
        for name in ("drop", "act"):  # of timm's BatchNormAct2d, in its order
            layer = self._modules.get(name)
            out = out if layer is None else layer(out)
        return out

    def _by_batch(self, x: Tensor) -> Tensor:
        """Normalise by Σx, Σx² and the count over ranks, in float64 for a precise variance."""
        values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        axes, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        n = x.numel() // x.shape[1]
        sums = values.sum(axes, dtype=torch.float64)
        centre = (sums.detach() / max(n, 1)).to(values.dtype)  # subtracted, so no digits are lost
        values = values - centre.view(shape)
        centred = values.square().sum(axes, dtype=torch.float64)
        squares = centred + centre.double() * (2 * sums - n * centre.double())
        samples = torch.full((1,), n, dtype=torch.float64, device=x.device)
        apply: Any = _Sum.apply  # typed in some versions of PyTorch, untyped in others
        summed: Tensor = apply(torch.cat((sums, squares, samples)), self.ranks)
        count = summed[-1:].detach()  # a tensor: reading the number would wait for a GPU
        mean, square = (summed[:-1] / count).chunk(2)
        variance = square - mean.square()
        scale = (variance + self.eps).rsqrt()
        offset = (mean - centre.double()).to(values.dtype)
        out = (values - offset.view(shape)) * scale.to(values.dtype).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        self._update_running(mean.detach(), variance.detach() * (count / (count - 1)))
        return out.to(x.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics, as torch does, with the unbiased variance."""
        batches = cast(Tensor, self.num_batches_tracked).add_(1)
        for buffer, value in ((self.running_mean, mean), (self.running_var, variance)):
            running = cast(Tensor, buffer)
            if self.momentum is None:  # the mean of all batches
                running.add_((value - running) / batches)
            else:
                running.mul_(1 - self.momentum).add_(value, alpha=self.momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept every shape: the layer that this one replaces took it."""


def synced(network: nn.Module, ranks: Ranks) -> nn.Module:
    """The network with each BatchNorm synced; unchanged with one rank."""
    if ranks.size == 1:
        return network
    for module in network.modules():
        of_timm = isinstance(module, nn.BatchNorm2d) and {"drop", "act"} <= set(module._modules)
        known = of_timm or type(module).__module__.startswith("torch.nn.")
        if isinstance(module, _BatchNorm) and (not known or module.running_mean is None):
            allowed = f"it has no version of the model's {type(module).__name__} layers; use local"
            raise ConfigError("engine.batchnorm", "synced", allowed)
    return _replaced(network, ranks)


def _replaced(module: nn.Module, ranks: Ranks) -> nn.Module:
    if isinstance(module, _BatchNorm):
        return SyncedBatchNorm.of(module, ranks)
    for name, child in module.named_children():
        setattr(module, name, _replaced(child, ranks))
    return module


def is_synced(network: nn.Module) -> bool:
    """Whether even a rank without samples must call the network, as the others do."""
    layers = network.modules()
    return network.training and any(isinstance(module, SyncedBatchNorm) for module in layers)


def average(network: nn.Module, ranks: Ranks) -> None:
    """Give all ranks the mean of their running statistics, unless these are synced."""
    if ranks.size == 1 or is_synced(network):
        return
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            for running in (module.running_mean, module.running_var):
                if running is not None:
                    ranks.sum_(running).div_(ranks.size)
