"""engine.compile: the model by torch.compile gives what it gives without, to rounding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from igo.config.schema import DatasetConfig, EngineConfig, ModelConfig
from igo.train import engine, models

pytestmark = pytest.mark.filterwarnings("ignore:Guards may run slower")  # of Python 3.13.0
SIZES = (5, 33, 2, 64)


def network() -> nn.Module:
    torch.manual_seed(3)
    digits = DatasetConfig("digits", 10, 1, 8, 1437, [0.5], [0.5])
    return models.build(ModelConfig("resnet8", width=4), digits).double()


def batch(size: int) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(size)
    images = torch.rand((size, 1, 8, 8), generator=drawn, dtype=torch.float64)
    return images, torch.randint(10, (size,), generator=drawn)


def plain() -> engine.Engine:
    return engine.build(EngineConfig(device="cpu", precision="fp32", threads=1))


def assert_same(backend: str, sizes: tuple[int, ...], parts: int) -> None:
    """Losses, gradients and BatchNorm's statistics, in float64."""
    eager = replace(plain(), micro_batch_size=parts)
    compiled = torch.compile(engine._call, backend=backend, dynamic=True)
    ours, theirs = network(), network()
    for size in sizes:
        totals = replace(eager, compiled=compiled).backward(ours, *batch(size))
        wanted = eager.backward(theirs, *batch(size))
        torch.testing.assert_close(totals, wanted, rtol=1e-6, atol=0)  # the loss is in float32
        for (name, parameter), other in zip(
            ours.named_parameters(), theirs.parameters(), strict=True
        ):
            far = (parameter.grad - other.grad).norm() / other.grad.norm()
            assert far < 1e-6, f"{name}: {far} at {size}"
    for (name, value), wanted in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-12, msg=name)


def test_gradients_are_those_of_the_model_as_it_is() -> None:
    assert_same("aot_eager", SIZES, parts=20)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what inductor imports
def test_inductor_gives_the_same_gradients() -> None:
    assert_same("inductor", SIZES, parts=1024)
