"""How far apart results may be that sum the same numbers in another order: a bound, not a guess.

A sum of n terms, in whatever order and however cut into blocks, lies within γ̃_n Σ|x_i| of the exact
one, γ̃_n ≈ λ √n u, u half a unit in the last place, where rounding errors are of mean zero and none
tells of the next: but with probability 2n exp(-λ²/2) (Higham and Mary 2019, "A new approach to
probabilistic rounding error analysis", theorem 3.1). Sums of sums, as layers are, add their terms.
So the CPU's instruction set, its threads and the kernels that it has chosen do not matter.
"""

import copy
import math

import torch
from torch import Tensor, nn

LAMBDA = 6.0  # 3e-8 of all sums would be further off
UNIT = 2.0**-24  # half a unit in the last place of float32


def bound(*terms: int) -> float:
    """How far two results in float32 may be apart, as a part of Σ|x_i|.

    Args:
        terms: of each sum that stands between the input and the result, one feeding the next.
    """
    return 2 * LAMBDA * math.sqrt(sum(terms)) * UNIT


def terms(network: nn.Module, images: Tensor, *, backward: bool = True) -> int:
    """Of all sums between these images and the logits, or the gradient of their mean loss.

    In each layer: over what a unit sees, and over what sees it; over samples and places, for the
    gradient of its weights, and in BatchNorm for two moments and their two slopes.
    """
    sum_lengths = [len(images)]

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        weight, places = layer.get_parameter("weight"), output.numel() // output.shape[1]
        if weight.dim() == 1:
            sums = [2 * places if layer.training else 1, 2 * places]
        else:
            outputs, inputs = weight.shape[:2]
            sums = [weight.numel() // outputs, weight.numel() // inputs + places]
        sum_lengths.extend(sums if backward else sums[:1])

    network_copy = copy.deepcopy(network)
    for layer in network_copy.modules():
        if isinstance(getattr(layer, "weight", None), Tensor):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network_copy(images)
    return sum(sum_lengths)


def assert_close(actual: Tensor, expected: Tensor, *terms: int, magnitude: float = 0.0) -> None:
    """Two tensors are one result, but for the rounding of float32.

    Args:
        actual: made in float32.
        wanted: made in float32, or finer.
        terms: of each sum, one feeding the next.
        magnitude: Σ|x_i|, where the sums cancel; else the largest entry that is wanted.
    """
    slack = bound(*terms) * (magnitude or float(expected.detach().abs().max()))
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=slack)
