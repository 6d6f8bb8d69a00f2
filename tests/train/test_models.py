"""Models: the published sizes, what they take, and what is said of those that do not fit."""

import math
from itertools import product
from typing import Any

import pytest
import rounding
import torch
from conftest import configure
from torch import nn
from trained import dataset

from igo.config.schema import DatasetConfig, ModelConfig
from igo.ground.errors import ConfigError
from igo.train import models

DATASETS = ("digits", "fashion_mnist", "cifar10", "cifar100", "imagenet")


def meta(model: ModelConfig, facts: DatasetConfig) -> nn.Module:
    """The model without its numbers."""
    with torch.device("meta"):
        return models.build(model, facts)


def test_models_have_the_published_number_of_parameters() -> None:
    for model, classes, published in (
        (ModelConfig("resnet18", stem="cifar"), 100, 11_220_132),
        (ModelConfig("resnet34", stem="imagenet"), 1000, 21_797_672),
        (ModelConfig("resnet8", width=16), 10, 78_042),
        (ModelConfig("resnet8", width=4), 10, 5_214),  # 116 + 304 + 944 + 3,680 + 170, by hand
        (ModelConfig("wide_resnet28_10"), 100, 36_536_884),
        (ModelConfig("wide_resnet28_10"), 10, 36_479_194),
    ):
        network = meta(model, dataset(classes))
        assert sum(p.numel() for p in network.parameters() if p.requires_grad) == published


def test_stems_are_the_first_layers() -> None:
    for stem, name, channels in product(("cifar", "imagenet"), ("resnet18", "resnet34"), (1, 3)):
        network: Any = meta(ModelConfig(name, stem=stem), dataset(10, channels, 64))
        kernel, stride = {"cifar": ((3, 3), (1, 1)), "imagenet": ((7, 7), (2, 2))}[stem]
        assert network.conv1.weight.shape == (64, channels, *kernel)
        assert network.conv1.stride == stride
        assert isinstance(network.maxpool, nn.Identity) == (stem == "cifar")


def test_each_model_takes_each_data_set() -> None:
    names = "resnet8", "resnet18", "resnet34", "wide_resnet28_10", "timm"
    for name, data in product(names, DATASETS):
        small = name == "resnet34" and data in ("digits", "fashion_mnist")
        config = configure(f"model={name}", f"dataset={data}", *["model.stem=cifar"] * small)
        network = meta(config.model, config.dataset)
        models.check_model(network, config.model, config.dataset, smallest=2)


def test_the_wide_resnets_block_is_batchnorm_relu_convolution_twice() -> None:
    """Written out with functions; the widening block's shortcut leaves after the first ReLU."""
    torch.manual_seed(0)
    for inputs, outputs, stride in ((4, 4, 1), (4, 6, 2)):
        block: Any = models._PreactivationBlock(inputs, outputs, stride)
        x = torch.randn(2, inputs, 8, 8)

        def normed(t: torch.Tensor) -> torch.Tensor:
            return nn.functional.batch_norm(t, None, None, training=True).relu()

        activation = normed(x)
        hidden = nn.functional.conv2d(activation, block.conv1.weight, stride=stride, padding=1)
        hidden = nn.functional.conv2d(normed(hidden), block.conv2.weight, padding=1)
        shortcut = x
        if inputs != outputs:
            shortcut = nn.functional.conv2d(activation, block.shortcut.weight, stride=stride)
        terms = rounding.terms(block, x, backward=False)
        rounding.assert_close(block(x).detach(), (hidden + shortcut).detach(), terms)


def test_a_model_that_does_not_fit_is_named() -> None:
    for features, fault in ((64, r"\(2, 9\).*\(b, 10\)"), (65, "cannot take a batch of 2 x 1 x 8")):
        network = nn.Sequential(nn.Flatten(), nn.Linear(features, 9))
        with pytest.raises(ConfigError, match=rf"model\.name=mine .*{fault}"):
            models.check_model(network, ModelConfig("mine"), dataset(10, 1, 8), smallest=2)


def test_convolutions_start_as_he_et_al_or_as_pytorch() -> None:
    """N(0, 2/fan_out), or U(-a, a) with a = 1/sqrt(fan_in), whose variance is a^2/3."""
    for model, law in (
        (ModelConfig("resnet8", width=16), "He"),
        (ModelConfig("resnet18", stem="imagenet"), "He"),
        (ModelConfig("resnet18", stem="cifar"), "PyTorch"),
        (ModelConfig("resnet34", stem="cifar"), "PyTorch"),
    ):
        for module in models.build(model, dataset()).modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > 1700:
                samples, kernel = module.weight.numel(), math.prod(module.kernel_size)
                a = 1 / math.sqrt(module.in_channels * kernel)
                deviation = math.sqrt(
                    2 / (module.out_channels * kernel) if law == "He" else a**2 / 3
                )
                assert module.weight.std().item() == pytest.approx(
                    deviation, rel=4 / math.sqrt(samples)
                )
