"""What is set for NVIDIA's libraries, one GPU a process, and what a record says of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import configure
from forked import forge
from torch import Tensor, nn

from igo.ground import gpus
from igo.ground.errors import ConfigError
from igo.ground.ranks import Ranks, _as_in_memory
from igo.train import models


@pytest.mark.parametrize(("precision", "rounded"), [("fp32", False), ("bf16", True)])
def test_fp32_is_32_bits_and_no_algorithm_is_tried(precision: str, rounded: bool) -> None:
    torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = not rounded
    gpus.configure(precision)
    assert torch.backends.cudnn.allow_tf32 == rounded
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.benchmark


def test_the_users_bound_of_plans_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT"
    monkeypatch.delenv(name, raising=False)
    gpus.configure("bf16")
    assert os.environ[name] == gpus.PLANS
    monkeypatch.setenv(name, "77")
    gpus.configure("bf16")
    assert os.environ[name] == "77"


def test_two_processes_on_one_gpu_are_an_error_that_says_so() -> None:
    gpus.check_apart(["a 1", "a 2", "b 1"], 2)  # another machine's first is another one
    with pytest.raises(ConfigError, match=r"2 processes on a would share one GPU; .*GPUs \(1\)"):
        gpus.check_apart(["b 1", "a 1", "a 1"], 1)


@pytest.mark.parametrize(("visible", "chosen"), [(2, 1), (1, 0)])  # srun shows each its own
def test_a_process_takes_a_gpu(visible: int, chosen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    properties = type("Properties", (), {"uuid": "mine"})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: taken[-1])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(Ranks, "gather", lambda self, key, text: ["host other", text])
    gpus.take_own(Ranks(1, 2, 1))
    assert taken == [chosen]
    monkeypatch.setattr(Ranks, "gather", lambda self, key, text: [text, text])
    with pytest.raises(ConfigError, match="would share one GPU"):
        gpus.take_own(Ranks(1, 2, 1))


def gathered() -> Any:
    """On each rank, what everyone says."""
    with Ranks.of_environment().joined() as ranks:
        return ranks.gather("name", f"rank {ranks.rank}")


def test_each_process_hears_all(tmp_path: Path) -> None:
    assert Ranks().gather("name", "me") == ["me"]
    heard = forge.results(tmp_path, 2, "test_gpus.gathered")
    assert heard == [["rank 0", "rank 1"]] * 2


def test_a_record_names_driver_cuda_cudnn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024"
    (tmp_path / "version").write_text(line + "\nGCC version:  gcc version 12.2.0\n")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "version")
    wanted = {"gpu": "NVIDIA H100", "driver": "550.54.15", "cuda": "12.8", "cudnn": 91002}
    assert gpus.facts() == wanted
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "none")
    assert "driver" not in gpus.facts()


def test_shapes_are_tried_without_memory_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after running out of it: no tensor is copied, not even to be thrown away."""
    config = configure("model=resnet18")
    network = models.build(config.model, config.dataset)

    def refuse(*_: object) -> Tensor:
        raise MemoryError

    for kind in (Tensor, nn.Parameter):
        monkeypatch.setattr(kind, "__deepcopy__", refuse)
    pushed = models.on_meta(network)
    tensors = [*pushed.parameters(), *pushed.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert [tensor.shape for tensor in tensors] == [
        tensor.shape for tensor in (*network.parameters(), *network.buffers())
    ]
    assert not {*map(id, pushed.modules())} & {*map(id, network.modules())}


def test_a_gradient_is_sent_as_it_lies_in_memory() -> None:
    for shape in ((8, 4, 3, 3), (8, 4, 1, 1), (8, 1, 3, 3), (10, 8), (8,), ()):
        parameter = torch.randn(shape)
        if len(shape) == 4:
            parameter = parameter.to(memory_format=torch.channels_last)
        lying = _as_in_memory(parameter, parameter)
        assert lying.flatten().data_ptr() == parameter.data_ptr(), shape  # no copy
        other = _as_in_memory(parameter.contiguous(), parameter)
        assert torch.equal(other.flatten(), lying.flatten())
