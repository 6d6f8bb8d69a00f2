"""How many samples may go through a model at once, counted from its configuration alone.

And how an error says that they were too many all the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from igo.config.schema import Config, DatasetConfig
from igo.train import models

MOST = 1024  # samples; by then, no machine gains from more
# What is said in a RuntimeError: PyTorch's allocator on a CPU, C++'s, cuBLAS and cuDNN, oneDNN
# (which says no more than that).
EXHAUSTED = (
    "can't allocate memory", "Cannot allocate memory", "out of memory", "bad_alloc",
    "STATUS_ALLOC_FAILED", "could not create a memory object", "could not create a primitive",
    "could not execute a primitive",
)  # fmt: skip


def size_for(config: Config, network: nn.Module) -> int:
    """The configured one, or the largest power of two, at most MOST, that engine.memory allows.

    It depends on the configuration alone, never on the machine, as BatchNorm's statistics, and so
    the result, depend on it.
    """
    if config.engine.micro_batch_size is not None:
        return config.engine.micro_batch_size
    try:
        allowed = config.engine.memory * 2**30 / bytes_per_sample(network, config.dataset)
    except models.MISFIT:  # models.check_fits, which comes next, has the words for it
        return MOST
    size = 1
    while 2 * size <= min(allowed, MOST):
        size *= 2
    return size


def bytes_per_sample(network: nn.Module, dataset: DatasetConfig) -> float:
    """Bytes a sample that a forward pass in fp32 keeps for its backward pass.

    Counted on the meta device, where tensors have shapes and no content, as the difference between
    two batch sizes, so that parameters do not count.
    """
    pushed = models.on_meta(network).train()
    small, large = 2, 4
    return (_kept(pushed, dataset, large) - _kept(pushed, dataset, small)) / (large - small)


def _kept(network: nn.Module, dataset: DatasetConfig, samples: int) -> int:
    size = dataset.image_size
    images = torch.empty(samples, dataset.channels, size, size, device="meta")
    kept: dict[int, Tensor] = {}  # by storage, as several operations may keep one tensor

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out, the CPU's or the GPU's."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in EXHAUSTED)
