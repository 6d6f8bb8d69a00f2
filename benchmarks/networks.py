"""The models of the cells, without igo: each contender calls one of these functions."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.resnet import BasicBlock

CONTEXT, VOCABULARY = 128, 256  # bytes


def resnet8() -> nn.Module:
    """He et al. 2016 with one of torchvision's blocks a stage, of width 16, for grey images."""
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1, bias=False)]
    layers += [nn.BatchNorm2d(16), nn.ReLU(inplace=True), BasicBlock(16, 16)]
    for inputs, outputs in ((16, 32), (32, 64)):
        shortcut = nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs)
        layers.append(BasicBlock(inputs, outputs, 2, nn.Sequential(*shortcut)))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def resnet18() -> nn.Module:
    """With the stem for CIFAR, as in the authors' script."""
    network: nn.Module = resnet.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def convnext_atto() -> nn.Module:
    """A model of timm."""
    import timm

    return timm.create_model("convnext_atto", num_classes=10)


def wide_resnet28_10() -> nn.Module:
    """Zagoruyko and Komodakis 2016: twelve blocks, four of each width."""
    widths = (16, *(width for width in (160, 320, 640) for _ in range(4)))
    # The first block of 320 and the first of 640 halve the image.
    blocks = [
        Preactivation(inputs, outputs, stride=2 if outputs > max(inputs, 160) else 1)
        for inputs, outputs in pairwise(widths)
    ]
    stem, head = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.Linear(640, 10)
    pooling = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(stem, *blocks, nn.BatchNorm2d(640), nn.ReLU(), *pooling, head)


class Preactivation(nn.Module):
    """A residual block of two 3×3 convolutions, each after a norm and ReLU; (n, C, H, W)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)])
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norms[0](x))
        change: Tensor = self.second(F.relu(self.norms[1](self.first(active))))
        return change + (self.shortcut(active) if self.shortcut else x)


class Transformer(nn.Module):
    """A language model of bytes: 4 layers, 128 wide."""

    def __init__(self) -> None:
        super().__init__()
        width, layers = 128, 4
        self.bytes, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(CONTEXT, width)
        options: Any = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, activation="gelu", **options)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY)
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, text: Tensor) -> Tensor:
        hidden = self.bytes(text) + self.places.weight
        logits: Tensor = self.head(self.layers(hidden, self.mask, is_causal=True))
        return logits


@torch.no_grad()
def accuracy(network: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """The share of right answers; BatchNorm takes each batch's statistics, as in training."""
    network.train()
    parts = zip(inputs.split(250), targets.split(250), strict=True)
    with torch.autocast(inputs.device.type, torch.bfloat16):
        right = [(network(x).argmax(dim=-1) == y).float().mean() for x, y in parts]
    return float(torch.stack(right).mean())
