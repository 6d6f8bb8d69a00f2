"""Strided 1x1 convolutions of few channels on a CPU: PyTorch's own form corrupts memory there.

It does so with a CPU's kernels without AVX512, with which CI runs these tests, too.
"""

import copy
from itertools import product

import torch
from torch import nn
from trained import dataset

from igo.config.schema import EngineConfig, ModelConfig
from igo.ground.seeds import generator
from igo.train import machine, models


def test_ordinary_models_are_left_as_they_are() -> None:
    """Nothing to pay, and the same bits."""
    for model in (ModelConfig("resnet8"), ModelConfig("resnet18", stem="cifar")):
        with torch.device("meta"):
            network = models.build(model, dataset())
        description = repr(network)
        models.unstrided(network)
        assert repr(network) == description
        assert not any(module._forward_pre_hooks for module in network.modules())


def test_gradients_are_those_of_pytorchs_convolution_in_float64() -> None:
    """For float64 it has other kernels. Few channels are convolved without a stride."""
    strides = (2, 2), (3, 3), (2, 1)
    for channels, (down, across) in product((1, 2, 4, 7, 8, 12, 15, 16), strides):
        # three images for two threads: one of them is shared
        run = machine.choose(EngineConfig(device="cpu", precision="fp32"))
        torch.set_num_threads(2)
        draw = generator(0, "pointwise", channels, down, across)
        convolution = nn.Conv2d(channels, 8, 1, stride=(down, across))
        images = torch.randn(3, channels, 24, 24, generator=draw)
        outward = torch.randn(3, 8, 24 // down, 24 // across, generator=draw)
        exact, exact_inputs = copy.deepcopy(convolution).double(), images.double().requires_grad_()
        exact(exact_inputs).backward(outward.double())
        inputs = images.to(memory_format=torch.channels_last).requires_grad_()
        run.prepare(convolution)(inputs).backward(outward.to(memory_format=torch.channels_last))
        assert (convolution.stride == (1, 1)) == (channels < 16)
        for tensor, exact_tensor in ((convolution.weight, exact.weight), (inputs, exact_inputs)):
            off = (tensor.grad.double() - exact_tensor.grad).norm() / exact_tensor.grad.norm()
            assert off < 1e-5
