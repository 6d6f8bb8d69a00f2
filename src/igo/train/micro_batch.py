"""How many samples may go through a model at once, from its configuration alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from igo.config.schema import Config, DatasetConfig
from igo.train import models

MOST = 1024  # samples; no machine gains from more
# Parts of a RuntimeError's message when memory runs out: PyTorch's CPU allocator, C++, cuBLAS and
# cuDNN, and oneDNN, which says no more.
EXHAUSTED = (
    "can't allocate memory", "Cannot allocate memory", "out of memory", "bad_alloc",
    "STATUS_ALLOC_FAILED", "could not create a memory object", "could not create a primitive",
    "could not execute a primitive",
)  # fmt: skip


def size_for(config: Config, network: nn.Module) -> int:
    """The configured size, or the largest power of two up to MOST that engine.memory allows.

    It depends on the configuration alone, not on the machine: BatchNorm's statistics, and so the
    result, depend on it.
    """
    if config.engine.micro_batch_size is not None:
        return config.engine.micro_batch_size
    try:
        allowed = config.engine.memory * 2**30 / bytes_per_sample(network, config.dataset)
    except models.MISFIT:  # models.check_fits is called next, and raises the error
        return MOST
    size = 1
    while 2 * size <= min(allowed, MOST):
        size *= 2
    return size


def bytes_per_sample(network: nn.Module, dataset: DatasetConfig) -> float:
    """Bytes for each sample that a forward pass in fp32 saves for its backward pass.

    Counted on the meta device, where tensors have shapes and no content. It is the difference
    between two batch sizes, so parameters do not count.
    """
    on_meta = models.on_meta(network).train()
    small, large = 2, 4
    difference = _saved_bytes(on_meta, dataset, large) - _saved_bytes(on_meta, dataset, small)
    return difference / (large - small)


def _saved_bytes(network: nn.Module, dataset: DatasetConfig, samples: int) -> int:
    size = dataset.image_size
    images = torch.empty(samples, dataset.channels, size, size, device="meta")
    saved: dict[int, Tensor] = {}  # by storage, as several operations may save the same tensor

    def save(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        network(images)
        return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out, the CPU's or the GPU's."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in EXHAUSTED)
