"""CUDA graphs on a GPU: the same training, dropout that goes on, bounded memory, ways out."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from dataclasses import replace
from typing import cast

import pytest
import rates
import torch
from conftest import TINY, configure
from test_graphs import same_state, train
from torch import Tensor, nn

from igo.config.plan import make_plan
from igo.config.schema import EngineConfig, OptimizerConfig
from igo.runs import assemble
from igo.train import cudagraphs, engine, optim
from igo.train.engine import Engine

pytestmark = pytest.mark.gpu
SGD = OptimizerConfig("sgd")


def build(setting: bool | str = True) -> Engine:
    return engine.build(EngineConfig(device="cuda", precision="fp32", graphs=setting))


def samples(b: int, size: int = 8) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(b)
    images = torch.randn(b, 1, size, size, generator=draw).to("cuda")
    return images, torch.randint(10, (b,), generator=draw).to("cuda")


def steps(run: Engine, network: nn.Module, eta: float, count: int, b: int = 16) -> list[float]:
    """The losses of steps on one batch, after the generators were seeded."""
    network = run.prepare(network)
    optimizer = optim.build(SGD, network.parameters(), 0.1)
    rates.put(optimizer, eta, 0.0)
    run.begin_epoch({b: 999}, network, optimizer)
    torch.manual_seed(1)
    return [run.step(network, optimizer, samples(b))[0].item() for _ in range(count)]


def dropping() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10)
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "overrides",
    [("split=0.5", "p=0.2"), ("split=1",), ("optimizer=nshb", "optimizer.decay_momentum=true")],
)
def test_training_with_graphs_is_training_without_to_the_bit(
    overrides: tuple[str, ...], precision: str
) -> None:
    """Stages of two epochs of six batches of 10 and four of 9, C² measured in between."""
    runs = []
    for setting in ("true", "false"):
        config = configure(
            *TINY, "engine=gpu", f"engine.precision={precision}", f"engine.graphs={setting}",
            "batch_size=10", "epochs=6", "schedule.stages=3", "learning_rate=0.02", *overrides,
        )  # fmt: skip
        training = assemble.prepare(config, make_plan(config))
        runs.append((train(training), training))
    (ours, graphed), (theirs, eager) = runs
    assert ours == theirs
    assert same_state(graphed, eager)
    assert {*graphed.engine.graphs.outcome.values()} == {"graph"}


def test_dropout_draws_in_replays_what_it_draws_without() -> None:
    """η = 0: the losses differ by their masks alone, and by how the generator stands."""
    replayed = steps(build(True), dropping(), 0.0, 12)
    eager = steps(build(False), dropping(), 0.0, 12)
    assert len(set(replayed)) == 12
    assert replayed == eager


def test_thirty_batch_sizes_take_no_more_memory_than_the_largest() -> None:
    def reserved(sizes: list[int]) -> int:
        gc.collect()
        torch.cuda.empty_cache()
        run, most = build(True), 0
        torch.manual_seed(0)
        layers = (nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))
        network = run.prepare(nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 32 * 32, 10)))
        optimizer = optim.build(SGD, network.parameters(), 0.1)
        rates.put(optimizer, 0.01, 0.0)
        for b in sizes:
            run.begin_epoch({b: 999}, network, optimizer)
            batch = samples(b, size=32)
            for _ in range(cudagraphs.REHEARSALS + 2):
                run.step(network, optimizer, batch)
            most = max(most, torch.cuda.memory_reserved())
        return most

    sizes = list(range(16, 496, 16))
    assert len(sizes) == 30
    reserved([16])  # what libraries take once
    alone = reserved([sizes[-1]])
    assert reserved(sizes) <= 1.25 * alone
    assert reserved(sizes[::-1]) <= 1.25 * alone


class Reads(nn.Module):
    """Waits for the GPU, or draws on the CPU."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.inner, self.what = dropping(), what

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "draws":
            return self.inner(x) * (1 + 0 * torch.rand(1).item())
        if self.what == "item":
            return self.inner(x) * float(x.abs().max() > 0)
        torch.cuda.synchronize()
        return cast(Tensor, self.inner(x))


@pytest.mark.parametrize("what", ["item", "draws", "synchronize"])
def test_a_model_that_cannot_be_captured_trains_on_without(what: str) -> None:
    """In a process of its own: a failed capture may leave PyTorch's allocator unusable."""
    done = subprocess.run(
        [sys.executable, __file__, what], capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    reason = "on the CPU" if what == "draws" else "without CUDA graphs"
    assert reason in done.stderr


def train_without_a_graph(what: str) -> None:
    """The losses are those of a run without graphs, and memory can be given back and taken."""
    losses = steps(build("auto"), Reads(what), 0.1, 12)
    torch.cuda.empty_cache()
    torch.empty(2**28, dtype=torch.uint8, device="cuda").fill_(1)
    torch.cuda.synchronize()
    assert losses == steps(build(False), Reads(what), 0.1, 12)


@pytest.mark.parametrize("setting", [True, False])
def test_an_update_that_is_not_finite_is_skipped_in_a_graph_too(setting: bool) -> None:
    """The flag is the graph's own: each replay sets it anew."""
    torch.manual_seed(0)
    network: nn.Module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)
    )
    run = replace(build(setting), skip=True)
    network = run.prepare(network)
    optimizer = optim.build(SGD, network.parameters(), 0.1)
    rates.put(optimizer, 0.1, 0.0)
    run.begin_epoch({16: 999}, network, optimizer)
    images, labels = samples(16)
    for step in range(12):
        before = [value.clone() for value in network.state_dict().values()]
        bad = step in (5, 10)  # replays, with the graph: it is made after three steps
        loss = run.step(network, optimizer, (images * (float("nan") if bad else 1), labels))[0]
        after = network.state_dict().values()
        same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert same == bad
        assert bool(loss.isfinite()) != bad


if __name__ == "__main__":
    train_without_a_graph(sys.argv[1])
