"""The automatic micro-batch size: counted tensors against a closed form and against real ones."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, run_folder
from torch import nn

from igo import memory, models
from igo.config import Config

MakeConfig = Callable[..., Config]
Program = Callable[..., subprocess.CompletedProcess[str]]


def test_a_chain_keeps_the_inputs_of_its_layers(make_config: MakeConfig) -> None:
    """A linear layer keeps its input; ReLU its output, which is the next layer's input."""
    pixels, hidden = 64, 100
    chain = nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 10), nn.Sigmoid()
    )
    dataset = make_config().dataset
    assert memory.bytes_per_sample(chain, dataset) == 4 * (pixels + hidden + 10)


@pytest.mark.parametrize("model", ["resnet8", "resnet18"])
def test_the_count_is_that_of_real_tensors(model: str, make_config: MakeConfig) -> None:
    config = make_config(f"model={model}")
    network = models.build(config.model, config.dataset)
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    b = 16
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(torch.randn(b, 1, 8, 8))
    real = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own)
    del logits
    counted = memory.bytes_per_sample(network, config.dataset)
    assert real / b == pytest.approx(counted, rel=0.03)  # BatchNorm's statistics are in it


@pytest.mark.parametrize("model", ["resnet8", "resnet18"])
@pytest.mark.parametrize("gib", [1e-9, 0.001, 0.01, 8, 1e6])
def test_it_is_the_largest_power_of_two_that_fits(
    gib: float, model: str, make_config: MakeConfig
) -> None:
    config = make_config(f"model={model}", f"engine.memory={gib}")
    network = models.build(config.model, config.dataset)
    size = memory.micro_batch_size(config, network)
    each, allowed = memory.bytes_per_sample(network, config.dataset), gib * 2**30
    assert size in [2**k for k in range(11)]
    assert size * each <= allowed or size == 1
    assert 2 * size * each > allowed or size == memory.MOST


def test_the_published_experiments_go_through_whole(make_config: MakeConfig) -> None:
    config = make_config("experiment=cifar100_method3")
    network = models.build(config.model, config.dataset)
    assert memory.micro_batch_size(config, network) >= 512


def test_a_set_size_is_taken(make_config: MakeConfig) -> None:
    config = make_config("engine.micro_batch_size=3")
    assert memory.micro_batch_size(config, nn.Identity()) == 3


def test_a_run_says_and_records_it(program: Program, tmp_path: Path) -> None:
    sizes = ("batch_size=40", "tracking=none", "epochs=1", "schedule.stages=1")
    done = program(*TINY, *sizes, "engine.memory=0.0005")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((run_folder(tmp_path) / "status.json").read_text())
    size = found["hardware"]["micro_batch_size"]
    assert size < 40
    assert f"in parts of at most {size}" in done.stdout
    again = program(*TINY, *sizes, f"engine.micro_batch_size={size}")
    assert again.returncode == 0
    first, second = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(tmp_path.glob("runs/*/metrics.jsonl"))
    )
    for ours, theirs in zip(first, second, strict=True):
        for name in ours.keys() - {"seconds", "images_per_second"}:
            assert ours[name] == theirs[name], name


def test_a_budget_beside_a_size_is_an_error(program: Program) -> None:
    done = program("engine.memory=4", "engine.micro_batch_size=8")
    assert done.returncode == 2
    assert "engine.memory=4" in done.stderr
    assert "leave one out" in done.stderr
