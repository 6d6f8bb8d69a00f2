"""Whether a model takes the images, and how many at once: from shapes alone, on the meta device."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from igo.config.own import is_call
from igo.config.schema import Config, DatasetConfig
from igo.ground.errors import ConfigError, first_line

MOST = 1024  # samples; no machine gains from more
# What models raise for images that they cannot take.
MISFIT = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError,
          ArithmeticError)  # fmt: skip


def check_model(network: nn.Module, name: str, dataset: DatasetConfig, smallest: int) -> bool:
    """Run the smallest batch of the plan through a copy of the model.

    Returns:
        Whether a strided convolution has single pixels as input. On a CPU its bf16 gradient is
        wrong (in PyTorch 2.13: 29 of 30 draws, from 10 % off to infinite), so training needs fp32.
    """
    size = dataset.image_size
    images = torch.empty(smallest, dataset.channels, size, size, device="meta")
    batch = f"{smallest} x {dataset.channels} x {size} x {size} images of {dataset.name}"
    single_pixels: list[bool] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and max(module.kernel_size) > 1:
            single_pixels.append(inputs[0].shape[-2:] == (1, 1))

    setting = "model._target_" if is_call(name) else "model.name"
    try:
        copied = _on_meta(network)
        for module in copied.modules():
            module.register_forward_pre_hook(look)
        shape = copied(images).shape
    except MISFIT as error:
        allowed = f"it cannot take a batch of {batch}: {first_line(error)}"
        raise ConfigError(setting, name, allowed) from None
    if tuple(shape) != (smallest, dataset.classes):
        allowed = f"it makes outputs {tuple(shape)} of {batch}; (b, {dataset.classes}) are needed"
        raise ConfigError(setting, name, allowed)
    return any(single_pixels)


def micro_batch_size(config: Config, network: nn.Module) -> int:
    """The configured size, or the largest power of two up to MOST that engine.memory allows.

    It depends on the configuration alone, not on the machine: BatchNorm's statistics, and so the
    result, depend on it.
    """
    if config.engine.micro_batch_size is not None:
        return config.engine.micro_batch_size
    try:
        allowed = config.engine.memory * 2**30 / bytes_per_sample(network, config.dataset)
    except MISFIT:  # check_model is called next, and raises the error
        return MOST
    whole = int(max(1, min(allowed, MOST)))
    return 1 << (whole.bit_length() - 1)


def bytes_per_sample(network: nn.Module, dataset: DatasetConfig) -> float:
    """Bytes for each sample that a forward pass in fp32 saves for its backward pass.

    It is the difference between batches of two and of four, so parameters do not count.
    """
    copied, size = _on_meta(network), dataset.image_size
    saved: dict[int, Tensor] = {}  # by storage, as several operations may save the same tensor

    def save(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    sums = []
    for samples in (2, 4):
        images = torch.empty(samples, dataset.channels, size, size, device="meta")
        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            copied(images)
        sums.append(sum(tensor.untyped_storage().nbytes() for tensor in saved.values()))
        saved.clear()
    return (sums[1] - sums[0]) / 2


def _on_meta(network: nn.Module) -> nn.Module:
    """A copy in train mode, whose tensors have shapes and no content."""
    return copy.deepcopy(network).to("meta").train()
