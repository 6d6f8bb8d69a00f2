"""Strided 1x1 convolutions of few channels, in a form that PyTorch gets right on a CPU."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

LANES = 16  # float32 numbers in a vector of AVX512, the longest that an x86 CPU has


def unstrided(network: nn.Module) -> None:
    """Replace the stride of these convolutions by a selection of pixels: the same function.

    With a stride, oneDNN (3.12 in PyTorch 2.13; its issue 6035) makes the workspace of the weight's
    gradient too small if the channels do not fill a vector, in channels_last memory. Gradients are
    wrong, or other memory is overwritten, until the process dies or hangs.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _overruns(module):
            module.register_forward_pre_hook(partial(_selected, module.stride))
            module.stride = (1, 1)


def _overruns(convolution: nn.Conv2d) -> bool:
    return (
        set(convolution.kernel_size) == {1}
        and max(convolution.stride) > 1
        and convolution.in_channels < LANES
        and convolution.groups == 1
        and convolution.padding in ((0, 0), "valid")
    )


def _selected(stride: tuple[int, ...], _: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    down, across = stride
    return inputs[0][..., ::down, ::across]
