"""Running out of memory: the error names the size that fits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, configure, status
from forked import forge
from torch import nn
from trained import prepared, train

from igo.ground.errors import Outside
from igo.train import optimizers
from igo.train.record import Progress


class Small(nn.Module):
    """A model whose forward pass fails beyond so many samples."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error = most, error
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.most:
            raise self.error
        output: torch.Tensor = self.body(images)
        return output


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
]


def trained(most: int, error: Exception, *overrides: str) -> Progress:
    """Train a model of one's own."""
    config, network = configure(*TINY, *overrides), Small(most, error)
    optimizer = optimizers.build(config.optimizer, network.parameters(), config.learning_rate)
    return train(replace(prepared(config), network=network, optimizer=optimizer))


@pytest.mark.parametrize("error", ERRORS, ids=["torch", "Python", "PyTorch on a CPU"])
def test_out_of_memory_names_the_size_that_fits(error: Exception) -> None:
    """Evaluation alone fails, of 360 images at once; half as many fit."""
    with pytest.raises(Outside, match=r"epoch 1 .* set engine.micro_batch_size=250 "):
        trained(300, error)
    assert trained(300, error, "engine.micro_batch_size=250").epoch == 3


# oneDNN's convolutions do not look whether their own small allocations succeed, and some fail with
# a segmentation fault: PyTorch's do.
BOUNDED: dict[str, Any] = {"room": 150, "settings": {"torch.backends.mkldnn.enabled": False}}
FULL = (
    "epochs=2", "schedule.stages=1", "batch_size=1024", "dataset.samples=1024",
    "noise.batches=2",
    "model.width=32", "tracking=none", "engine.precision=fp32",
)  # fmt: skip


@pytest.mark.faults
def test_really_out_of_memory_it_says_so_and_the_run_is_interrupted(tmp_path: Path) -> None:
    """Address space is bounded by the kernel."""
    ended = forge.run(tmp_path, *FULL, **BOUNDED)
    assert "engine.micro_batch_size=512" in ended.error()
    assert status(tmp_path)["state"] == "interrupted"
    forge.run(tmp_path, *FULL, settings=BOUNDED["settings"]).good()
