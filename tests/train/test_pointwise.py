"""Strided 1x1 convolutions of few channels on a CPU: PyTorch's own form corrupts memory there.

It runs in a process of its own, which a signal may end, and with a CPU's kernels without AVX512.
"""

import copy
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import ROOT, python
from torch import nn
from trained import dataset, in_parts

from igo.config.schema import EngineConfig, ModelConfig, OptimizerConfig
from igo.ground.seeds import generator
from igo.train import machine, models, optimizers

SIDE = 56


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "kernels"),
    [(200, {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}), (50, {})],
    ids=["AVX2", "this machine's"],  # AVX512 never crashed.
)
def test_narrow_models_train_to_the_end_by_right_gradients(
    steps: int, kernels: dict[str, str], tmp_path: Path
) -> None:
    code = (
        "import conftest, test_pointwise as t\n"
        f"conftest.seed(); t.compare_gradients(); t.train_narrow_models({steps})"
    )
    environment = kernels | {
        "PYTHONPATH": f"{Path(__file__).parent}:{ROOT / 'tests'}:{ROOT / 'src'}",
        "OMP_WAIT_POLICY": "passive",  # other tests want the cores
    }
    process = python(tmp_path, "-X", "faulthandler", "-c", code, **environment).good()
    assert (process.stdout, process.stderr) == ("trained\n", "")


@pytest.mark.parametrize("model", [ModelConfig("resnet8"), ModelConfig("resnet18", stem="cifar")])
def test_ordinary_models_are_left_as_they_are(model: ModelConfig) -> None:
    """Nothing to pay, and the same bits."""
    with torch.device("meta"):
        network = models.build(model, dataset())
    description = repr(network)
    models.unstrided(network)
    assert repr(network) == description
    assert not any(module._forward_pre_hooks for module in network.modules())


def train_narrow_models(steps: int) -> None:
    """In fp32, and in bf16 where ``auto`` takes it."""
    facts = dataset(channels=1, size=SIDE)
    narrow = [models.build(ModelConfig("resnet8", width=width), facts) for width in (4, 6, 8)]
    users = nn.Sequential(  # widths that fill no vector
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
    for precision, network in product(("fp32", "auto"), [*narrow, users]):
        run = machine.choose(EngineConfig(device="cpu", precision=precision))
        prepared = run.prepare(network)
        optimizer = optimizers.build(OptimizerConfig("sgd"), prepared.parameters(), 0.01)
        for _ in range(steps):
            images = torch.randn(2, 1, SIDE, SIDE).to(memory_format=torch.channels_last)
            loss, *_ = run.backward(prepared, *in_parts(run, images, torch.randint(10, (2,))))
            run.update(optimizer)
            assert loss.isfinite(), f"{network} in {precision}"
    print("trained")


def compare_gradients() -> None:
    """Against PyTorch's convolution in float64, for which it has other kernels."""
    # three images for two threads: one of them is shared
    run = machine.choose(EngineConfig(device="cpu", precision="fp32"))
    torch.set_num_threads(2)
    for channels, (down, across) in product((1, 2, 4, 7, 8, 12, 15, 16), ((2, 2), (3, 3), (2, 1))):
        draw = generator(0, "pointwise", channels, down, across)
        convolution = nn.Conv2d(channels, 8, 1, stride=(down, across))
        images = torch.randn(3, channels, 24, 24, generator=draw)
        outward = torch.randn(3, 8, 24 // down, 24 // across, generator=draw)
        exact, exact_inputs = copy.deepcopy(convolution).double(), images.double().requires_grad_()
        exact(exact_inputs).backward(outward.double())
        inputs = images.to(memory_format=torch.channels_last).requires_grad_()
        run.prepare(convolution)(inputs).backward(outward.to(memory_format=torch.channels_last))
        for tensor, exact_tensor in ((convolution.weight, exact.weight), (inputs, exact_inputs)):
            gradient, exact_gradient = tensor.grad, exact_tensor.grad
            assert gradient is not None
            assert exact_gradient is not None
            off = (gradient.double() - exact_gradient).norm() / exact_gradient.norm()
            assert off < 1e-5, f"{channels} channels, strides {down}, {across}: {off:.1%}"
