"""The model on several ranks: PyTorch's DistributedDataParallel, and BatchNorm's statistics."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from igo.ground.ranks import Ranks
from igo.train.engine import Engine


def distributed(engine: Engine, network: nn.Module) -> tuple[Engine, nn.Module]:
    """The engine and the prepared model for several ranks; all get rank 0's parameters.

    On GPUs BatchNorm becomes SyncBatchNorm. On CPUs, for which PyTorch has none, each rank's
    BatchNorm sees its own share of a batch.
    """
    if engine.ranks.size == 1:
        return engine, network
    if engine.device.type == "cuda":
        import timm.layers  # PyTorch's own leaves out the activation of timm's layers

        network = cast(Any, timm.layers).convert_sync_batchnorm(network)
    with warnings.catch_warnings():  # PyTorch 2.13 has another name for it, others have not
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
        parallel = DistributedDataParallel(network, broadcast_buffers=False)
    return replace(engine, parallel=parallel), network


def average_statistics(network: nn.Module, ranks: Ranks) -> None:
    """Give all ranks the mean of their running statistics of BatchNorm."""
    if ranks.size > 1:
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                for running in (module.running_mean, module.running_var):
                    if running is not None:
                        ranks.sum_(running).div_(ranks.size)
