"""Models by name, never pretrained; and whether one takes the images, from shapes alone."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.resnet import BasicBlock

from igo.config import own
from igo.config.schema import DatasetConfig, ModelConfig
from igo.ground.errors import ConfigError, first_line, nearest, require

LANES = 16  # float32 numbers in a vector of AVX512, the longest that an x86 CPU has


def build(model: ModelConfig, dataset: DatasetConfig) -> nn.Module:
    """Build a model that maps (b, C, H, W) images to (b, classes) logits."""
    if model.arguments is not None:
        network: nn.Module = own.made_by("model", model.name, model.arguments, nn.Module)
        return network
    builder = _timm if model.timm else BUILDERS[model.name]
    return builder(model, dataset)


def _resnet8(model: ModelConfig, dataset: DatasetConfig) -> nn.Module:
    """He et al. 2016, section 4.2, n = 1: three stages of one block, widths w, 2w, 4w."""
    width = model.width or 16
    layers: list[nn.Module] = [
        nn.Conv2d(dataset.channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        BasicBlock(width, width),
    ]
    for wide in (width, 2 * width):
        shortcut = nn.Sequential(
            nn.Conv2d(wide, 2 * wide, 1, stride=2, bias=False), nn.BatchNorm2d(2 * wide)
        )
        layers.append(BasicBlock(wide, 2 * wide, stride=2, downsample=shortcut))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, dataset.classes)]
    return _he_initialised(nn.Sequential(*layers))


def _torchvision_resnet(model: ModelConfig, dataset: DatasetConfig) -> nn.Module:
    """torchvision's ResNet; with the CIFAR stem as the authors' script builds ResNet18.

    That script leaves PyTorch's initialisation of convolutions, U(-1/sqrt(fan_in), 1/sqrt(fan_in)),
    as it is: ``reset_parameters`` makes it once more, in place of torchvision's. Their ImageNet
    script takes torchvision's. That these scripts made the published curves is not stated.
    """
    network: nn.Module = getattr(resnet, model.name)(weights=None, num_classes=dataset.classes)
    if model.stem == "cifar":  # 3x3, stride 1, and no max-pool
        network.conv1 = nn.Conv2d(dataset.channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
        return network
    if dataset.channels != 3:
        network.conv1 = nn.Conv2d(dataset.channels, 64, 7, stride=2, padding=3, bias=False)
    return _he_initialised(network)


class _PreactivationBlock(nn.Module):
    """BN-ReLU-conv twice, the block of Wide ResNets (Zagoruyko and Komodakis 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = (
            None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs, H, W) to (b, outputs, H/stride, W/stride)."""
        activated = torch.relu(self.norm1(x))
        residual = x if self.shortcut is None else self.shortcut(activated)
        hidden: Tensor = self.conv2(torch.relu(self.norm2(self.conv1(activated))))
        return hidden + residual


def _wide_resnet28_10(_: ModelConfig, dataset: DatasetConfig) -> nn.Module:
    """WRN-28-10: depth 28 = 3 groups of 4 blocks of 2 layers + 4, of widths 16, 32, 64 times 10.

    Convolutions are initialised as in Zagoruyko and Komodakis's script. That script sets the last
    layer's bias to 0, too; here it is PyTorch's.
    """
    layers: list[nn.Module] = [nn.Conv2d(dataset.channels, 16, 3, padding=1, bias=False)]
    inputs = 16
    for outputs, stride in ((160, 1), (320, 2), (640, 2)):
        for block in range(4):
            layers.append(_PreactivationBlock(inputs, outputs, stride if block == 0 else 1))
            inputs = outputs
    layers += [nn.BatchNorm2d(640), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return _he_initialised(nn.Sequential(*layers, nn.Linear(640, dataset.classes)))


BUILDERS: dict[str, Callable[[ModelConfig, DatasetConfig], nn.Module]] = {
    "resnet8": _resnet8,
    "resnet18": _torchvision_resnet,
    "resnet34": _torchvision_resnet,
    "wide_resnet28_10": _wide_resnet28_10,
}


def _he_initialised(network: nn.Module) -> nn.Module:
    """Convolutions N(0, 2/fan_out), as in torchvision's ResNets; the rest as PyTorch makes it."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _timm(model: ModelConfig, dataset: DatasetConfig) -> nn.Module:
    """A model of timm's, whose name may end in a tag of weights: ``NAME.TAG``."""
    import timm  # Its import takes seconds.

    name = model.name
    if not timm.is_model(name):
        cure = nearest(name, timm.list_models())
        advice = f"timm {timm.__version__} has no such model.{cure}"
        raise ConfigError("model.name", name, advice)
    settings: dict[str, Any] = {"num_classes": dataset.classes, "in_chans": dataset.channels}
    try:
        try:  # Models with a fixed input size need it, the others do not take the argument.
            return timm.create_model(name, img_size=dataset.image_size, **settings)
        except TypeError:
            return timm.create_model(name, **settings)
    except Exception as error:
        advice = f"timm cannot make it for {dataset.name}: {first_line(error)}"
        raise ConfigError("model.name", name, advice) from None


def unstrided(network: nn.Module) -> None:
    """Let 1x1 convolutions of few channels select pixels before, in place of their stride.

    The outputs are the same: without padding, a 1x1 convolution of stride s sees each s-th pixel.
    The network itself changes, for a CPU. With a stride, oneDNN (3.12 in PyTorch 2.13; its issue
    6035) makes the workspace of the weight's gradient too small if the channels do not fill a
    vector, in channels_last memory, of convolutions in one group. Gradients are wrong, or other
    memory is overwritten, until the process dies or hangs.
    """
    for module in network.modules():
        if (
            isinstance(module, nn.Conv2d)
            and set(module.kernel_size) == {1}
            and max(module.stride) > 1
            and module.in_channels < LANES
            and module.groups == 1
            and module.padding in ((0, 0), "valid")
        ):
            module.register_forward_pre_hook(partial(_selected_pixels, module.stride))
            module.stride = (1, 1)


def _selected_pixels(stride: tuple[int, ...], _: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    """A hook before a convolution: each stride-th pixel of its input, down and across."""
    down, across = stride
    return inputs[0][..., ::down, ::across]


def check_model(
    network: nn.Module, model: ModelConfig, dataset: DatasetConfig, smallest: int
) -> bool:
    """Refuse a model that cannot take ``smallest`` images, or has outputs of another shape.

    A copy of the model without content, on PyTorch's device "meta", computes shapes alone.

    Returns:
        Whether a strided convolution has single pixels as input. On a CPU its bf16 gradient is
        wrong (in PyTorch 2.13: 29 of 30 draws, from 10 % off to infinite), so training needs fp32.
    """
    side = dataset.image_size
    images = torch.empty(smallest, dataset.channels, side, side, device="meta")
    batch = f"{smallest} x {dataset.channels} x {side} x {side} images of {dataset.name}"
    # Whether the input is a single pixel, for each convolution that has a stride and is not 1x1:
    # ``unstrided`` takes care of those that are.
    on_single_pixels: list[bool] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and max(module.kernel_size) > 1:
            on_single_pixels.append(inputs[0].shape[-2:] == (1, 1))

    fault = ""
    try:
        shapes = copy.deepcopy(network).to("meta").train()
        for module in shapes.modules():
            module.register_forward_pre_hook(look)
        shape = tuple(shapes(images).shape)
        if shape != (smallest, dataset.classes):
            fault = f"it makes outputs {shape} of {batch}; (b, {dataset.classes}) are needed"
    except Exception as error:  # A model may raise anything for images that it cannot take.
        line_text = own.line_of(error, model.name)
        fault = f"it cannot take a batch of {batch}: {first_line(error)}{line_text}"
    setting = "model.name" if model.arguments is None else "model._target_"
    require(not fault, setting, own.as_call(model.name, model.arguments), fault)
    return any(on_single_pixels)
