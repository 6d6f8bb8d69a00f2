"""What test_fake_gpu does with the fake GPU, each call in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import fake_gpu
import in_double
import torch
import torch.nn.functional as F
from conftest import Quiet, configure
from fake_gpu import OnGpu
from torch import Tensor
from trained import timeless

from igo.analysis.sharpness import measure as sharpness
from igo.config.plan import make_plan
from igo.noise import measure as noise_of
from igo.noise.surface import Surface
from igo.runs import assemble
from igo.train import engine, loop, models, on_device, pointwise
from igo.train.engine import Engine
from igo.train.state import Progress, Training


def prepare(device: torch.device, *overrides: str) -> Training:
    """A run on a device."""
    config = configure(*overrides)
    build = engine.build
    with mock.patch.object(engine, "build", lambda *a: replace(build(*a), device=device)):
        training = assemble.prepare(config, make_plan(config))
    pointwise.unstrided(training.network)  # the arithmetic is a CPU's
    return training


def train(where: str, *overrides: str) -> dict[str, Any]:
    """Records, state and traffic of a run on "cpu" or "gpu"."""
    with fake_gpu.device() as (device, traffic):
        training = prepare(device if where == "gpu" else torch.device("cpu"), *overrides)
        progress = Progress()
        loop.train(training, progress, Quiet(), lambda _: None, lambda: None)
        state = {name: held(value) for name, value in training.network.state_dict().items()}
        return {
            "records": timeless(progress.records),
            "state": state,
            "reads": traffic.reads,
            "copies": traffic.copies,
        }


def measure(where: str, *overrides: str) -> dict[str, Any]:
    """Sharpness, and C² of single samples, of a network that has not been trained."""
    with fake_gpu.device() as (device, traffic):
        training = prepare(device if where == "gpu" else torch.device("cpu"), *overrides)
        settings = sharpness.Settings(samples=40, steps=2, eigenvalues=1, probes=2, batch_size=20)
        network = training.network.eval()
        batches = sharpness._images(training, settings)
        surface = Surface(network, F.cross_entropy, batches)
        numbers = sharpness._numbers(surface, settings, lambda _: None)
        parts = list(torch.arange(16).split(8))
        single = noise_of.per_sample(
            network, F.cross_entropy, lambda: training.data.plain_batches(parts), n=16
        )
        return {
            "sharpness": {k: v for k, v in numbers.items() if isinstance(v, float)},
            "variance": single.variance,
            "reads": traffic.reads,
            "copies": traffic.copies,
        }


def mutated(mutant: str, *overrides: str) -> dict[str, Any]:
    """As ``train``, with code that is wrong on a GPU; "wrong" says so where it fails."""
    try:
        with MUTANTS[mutant]():
            return train("gpu", *overrides)
    except fake_gpu.WrongDevice as error:
        return {"wrong": str(error)}


def train_in_double(where: str, *overrides: str) -> dict[str, Any]:
    """As ``train``, with the network in float64."""
    with mock.patch.object(models, "build", in_double.doubled(models.build)):
        return train(where, *overrides)


def held(value: Tensor) -> Tensor:
    """The numbers of a tensor of either device."""
    return value.held if isinstance(value, OnGpu) else value


def _offset_on_the_host() -> Any:
    original = on_device.Normalise.__init__

    def init(self: on_device.Normalise, *arguments: Any) -> None:
        original(self, *arguments)
        self._offset = held(self._offset)

    return mock.patch.object(on_device.Normalise, "__init__", init)


def _before_each_step(what: Callable[[Tensor], object]) -> Any:
    original = Engine.backward

    def backward(self: Engine, network: Any, images: Tensor, *more: Any) -> Tensor:
        what(images)
        return original(self, network, images, *more)

    return mock.patch.object(Engine, "backward", backward)


MUTANTS: dict[str, Callable[[], Any]] = {
    "offset": _offset_on_the_host,
    "item": lambda: _before_each_step(lambda images: images.sum().item()),
    "mask": lambda: _before_each_step(lambda images: images[images > 0]),
    "copy": lambda: _before_each_step(
        lambda images: images * torch.tensor([1.0], device=images.device)
    ),
}
