"""Strided 1x1 convolutions of few channels on a CPU: PyTorch's own form corrupts memory there.

Everything runs in a process of its own, which a signal may end, and with the kernels of a CPU
without AVX512 too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import ROOT, python
from torch import Tensor, nn

from igo.config.schema import DatasetConfig, EngineConfig, ModelConfig, OptimizerConfig
from igo.ground.seeds import generator
from igo.train import engine, models
from igo.train.engine import Engine

KERNELS = {
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "this machine's": {},
}
STEPS, SIDE = {"AVX2": 200, "this machine's": 50}, 56  # with AVX512 nothing ever crashed


@pytest.mark.slow
@pytest.mark.parametrize("kernels", KERNELS)
def test_narrow_models_train_to_the_end_by_right_gradients(kernels: str, tmp_path: Path) -> None:
    steps = STEPS[kernels]
    code = f"import test_pointwise as t; t.compare_gradients(); t.train_narrow_models({steps})"
    environment = KERNELS[kernels] | {
        "PYTHONPATH": f"{Path(__file__).parent}:{ROOT / 'tests'}:{ROOT / 'src'}",
        "OMP_WAIT_POLICY": "passive",  # other tests want the cores
    }
    ended = python(tmp_path, "-X", "faulthandler", "-c", code, **environment).good()
    assert (ended.stdout, ended.stderr) == (f"{steps} steps of each model\n", "")


@pytest.mark.parametrize("model", [ModelConfig("resnet8"), ModelConfig("resnet18", stem="cifar")])
def test_ordinary_models_are_left_as_they_are(model: ModelConfig) -> None:
    """Nothing to pay, and the same bits."""
    with torch.device("meta"):
        network = models.build(model, DatasetConfig("made", 10, 3, 32, 100, [0.5] * 3, [0.5] * 3))
    before = repr(network)
    models.unstrided(network)
    assert repr(network) == before
    assert not any(module._forward_pre_hooks for module in network.modules())


def _engine(precision: str, threads: int) -> Engine:
    return engine.build(
        EngineConfig(device="cpu", precision=precision, micro_batch_size=1024, threads=threads)
    )


def _narrow_models() -> Iterator[nn.Module]:
    facts = DatasetConfig("made", 10, 1, SIDE, 100, [0.5], [0.5])
    for width in (4, 6, 8):
        yield models.build(ModelConfig("resnet8", width=width), facts)
    yield nn.Sequential(  # a user's own: widths that fill no vector
        nn.Conv2d(1, 5, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(5, 12, 1, stride=2),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 12, 1, stride=2, groups=4),
        nn.Conv2d(12, 20, 1, stride=(2, 1), bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(20, 10),
    )


def train_narrow_models(steps: int) -> None:
    """In fp32, and in bf16 where ``auto`` takes it."""
    torch.manual_seed(0)
    fast = _engine("auto", threads=1).autocast is not None
    for precision, network in product(("fp32", "auto") if fast else ("fp32",), _narrow_models()):
        run = _engine(precision, threads=1)
        prepared = run.prepare(network)
        optimizer = OptimizerConfig("sgd").build(prepared.parameters(), 0.01)
        for _ in range(steps):
            images = torch.randn(2, 1, SIDE, SIDE).to(memory_format=torch.channels_last)
            totals = run.step(prepared, optimizer, (images, torch.randint(10, (2,))))
            if not totals.isfinite().all():
                raise ArithmeticError(f"{network} in {precision}: {totals}")
    print(f"{steps} steps of each model")


def compare_gradients() -> None:
    """Σ over images and pixels of (output's gradient) × (input), written out in float64."""
    run = _engine("fp32", threads=2)  # three images: one of them is shared
    for channels, (down, across) in product((1, 2, 4, 7, 8, 12, 15, 16), ((2, 2), (3, 3), (2, 1))):
        draw = generator(0, "pointwise", channels, down, across)
        convolution = nn.Conv2d(channels, 8, 1, stride=(down, across))
        images = torch.randn(3, channels, 24, 24, generator=draw)
        outward = torch.randn(3, 8, 24 // down, 24 // across, generator=draw)
        weight = convolution.weight.detach().double().flatten(1)
        seen = images[:, :, ::down, ::across].double()

        prepared = run.prepare(convolution)
        inputs = images.to(memory_format=torch.channels_last).requires_grad_()
        prepared(inputs).backward(outward.to(memory_format=torch.channels_last))

        inward = torch.zeros(3, channels, 24, 24, dtype=torch.float64)
        inward[:, :, ::down, ::across] = torch.einsum("bohw,oc->bchw", outward.double(), weight)
        where = f"{channels} channels, strides {down, across}"
        wanted = torch.einsum("bohw,bchw->oc", outward.double(), seen)
        _near(convolution.weight.grad.flatten(1), wanted, f"{where}: weight")
        _near(inputs.grad, inward, f"{where}: input")


def _near(ours: Tensor, wanted: Tensor, what: str) -> None:
    off = float((ours.double() - wanted).norm() / wanted.norm())
    if not off < 1e-5:
        print(f"{what} gradient is off by {off:.1%}")
