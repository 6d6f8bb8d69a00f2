"""CUDA graphs of whole steps: training with them is training without, and what fails falls back.

``OnCpu`` stands for a GPU: as in a graph, numbers are those of the capture, and tensors are read
where they were then.
"""

from __future__ import annotations

import contextlib
import random
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rates
import torch
import trained
from conftest import TINY, configure
from torch import Tensor
from trained import prepared, timeless

from igo.config.schema import Config, result_settings
from igo.ground.errors import ConfigError
from igo.ground.files import Record
from igo.ground.ranks import ALONE, Ranks
from igo.runs import assemble, checkpoint
from igo.train import cudagraphs, optim
from igo.train.cudagraphs import Cuda, Graphs, Step
from igo.train.state import Progress, Training

# 96 samples in batches of 10 and more: an epoch of ten has six of 10 and four of 9.
RUN = (*TINY, "batch_size=10", "epochs=6", "schedule.stages=3", "learning_rate=0.05")


@contextlib.contextmanager
def unwatched(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """A capture and a replay make no step that its hooks hear of."""
    hooks, optimizer._optimizer_step_pre_hooks = optimizer._optimizer_step_pre_hooks, OrderedDict()
    yield
    optimizer._optimizer_step_pre_hooks = hooks


class OnCpu(Cuda):
    """Captures and replays steps without a GPU."""

    def __init__(
        self, training: Training, fails: BaseException | None = None, differs: bool = False
    ) -> None:
        self.training, self.fails, self.differs = training, fails, differs
        self.captures = self.replays = 0

    def rehearse(self, step: Step) -> Tensor:
        return step()

    def capture(self, step: Step) -> Step:
        self.captures += 1
        if self.fails:
            try:
                raise self.fails
            finally:  # as the end of torch.cuda.graph does
                raise RuntimeError("operation failed due to a previous error during capture")
        groups = self.training.optimizer.param_groups
        fixed = [dict(group) for group in groups]
        totals = torch.zeros(2)
        before = [(tensor, tensor.clone()) for tensor in self.tensors()]
        with torch.random.fork_rng(devices=[]), unwatched(self.training.optimizer):
            step()  # a capture leaves gradients behind, and nothing else
        for tensor, value in before:
            tensor.copy_(value)

        def replay() -> Tensor:
            self.replays += 1
            present = [dict(group) for group in groups]
            for group, old in zip(groups, fixed, strict=True):
                group.update(old)
            with unwatched(self.training.optimizer):
                totals.copy_(step())
            if self.differs:
                next(self.training.network.parameters()).data += 1e-6
            for group, new in zip(groups, present, strict=True):
                group.update(new)
            return totals

        return replay

    def generator(self) -> torch.Generator:
        return torch.default_generator

    def release(self) -> None: ...

    def tensors(self) -> list[Tensor]:
        momenta = [v for state in self.training.optimizer.state.values() for v in state.values()]
        return [*self.training.network.state_dict().values(), *momenta]


@pytest.fixture(autouse=True)
def _rates_in_tensors_and_short_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "_on_gpu", lambda device: True)
    monkeypatch.setattr(cudagraphs, "LEAST_STEPS", 8)


def graphed(config: Config, always: bool = False, **how: Any) -> tuple[Training, OnCpu, Graphs]:
    training = prepared(config)
    device = OnCpu(training, **how)
    graphs = Graphs(device, always)
    return replace(training, engine=replace(training.engine, graphs=graphs)), device, graphs


def train(*arguments: Any, **more: Any) -> list[Record]:
    return timeless(trained.train(*arguments, **more).records)


def same_state(ours: Training, theirs: Training) -> bool:
    """Parameters, BatchNorm's statistics and momentum, to the bit."""
    mine, other = (OnCpu(training).tensors() for training in (ours, theirs))
    return all(torch.equal(*pair) for pair in zip(mine, other, strict=True))


@pytest.mark.parametrize(
    ("overrides", "captures"),
    [
        (("split=0.5", "p=0.2"), 3),  # 10 and 9 in two stages; then 11, and too few of 10
        (("split=1", "noise.online=0"), 2),  # η changes in the graph's memory
        (("optimizer=shb", "optimizer.weight_decay=0.01", "split=0.5", "p=0.2"), 3),
        (("optimizer=nshb", "optimizer.decay_momentum=true"), 6),  # β is a number of the graph
        (("schedule=constant", "engine.micro_batch_size=9"), 1),
    ],
)
def test_a_run_with_graphs_has_the_same_bits(overrides: tuple[str, ...], captures: int) -> None:
    """Through changes of η, b and β, two sizes of batches, and C² measured between replays."""
    config = configure(*RUN, *overrides)
    wanted = prepared(config)
    training, device, graphs = graphed(config)
    assert train(training) == train(wanted)
    assert same_state(training, wanted)
    assert device.captures == captures
    assert device.replays > 10
    assert "graph" in graphs.outcome.values()


def test_a_run_stopped_and_continued_with_graphs_ends_the_same(tmp_path: Path) -> None:
    """In the middle of a stage whose graph was captured, and continued before the next one is."""
    config = configure(*RUN, "split=0.5", "p=0.2", "optimizer=shb")
    wanted = prepared(config)
    first, device, _ = graphed(config)
    progress = Progress()
    train(first, progress, until=3)
    assert device.replays
    checkpoint.save(tmp_path / "c.pt", assemble.state_of("run", None, first, progress))
    second, device, _ = graphed(config)
    loaded, _ = assemble.load(tmp_path / "c.pt", "run", second, pytest.fail)
    assert train(second, loaded) == train(wanted)[3:]  # metrics.jsonl has those of before
    assert same_state(second, wanted)
    assert device.replays


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"fails": RuntimeError("it waits\nwhere")}, "it waits"),
        ({"fails": torch.OutOfMemoryError("CUDA out of memory")}, "CUDA out of memory"),
        ({"differs": True}, "a replay has other bits than its step .*"),
    ],
)
def test_what_cannot_be_captured_is_said_and_trained(how: dict[str, Any], reason: str) -> None:
    """And the cause is the first error, which the end of a capture hides."""
    config = configure(*RUN, "split=0.5", "p=0.2", "optimizer=shb")
    wanted = prepared(config)
    training, device, graphs = graphed(config, **how)
    with pytest.warns(UserWarning, match=f"without CUDA graphs: {reason}$") as heard:
        records = train(training)
    assert records == train(wanted)
    assert len(heard) == 1
    assert same_state(training, wanted)
    assert (device.captures, device.replays) == (1, "differs" in how)
    assert {text[:9] for text in graphs.outcome.values()} == {"given up:"}
    forced, _, _ = graphed(config, always=True, **how)
    with pytest.raises(ConfigError, match=rf"engine\.graphs=true .*{reason}.*graphs=auto"):
        train(forced)


def step(training: Training, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    images, labels = torch.randn(10, 1, 8, 8, generator=draw), torch.arange(10)
    return training.engine.step(training.network, training.optimizer, (images, labels))


def begun(eta: float, **how: Any) -> tuple[Training, OnCpu]:
    training, device, _ = graphed(configure(*RUN, "optimizer=shb"), **how)
    rates.put(training.optimizer, eta, 0.5)
    training.engine.begin_epoch({10: 99}, training.network, training.optimizer)
    return training, device


def test_a_step_that_draws_on_the_cpu_has_no_graph() -> None:
    """A replay would draw the same numbers for ever."""
    for draw in (lambda: torch.rand(1), random.random):
        training, device = begun(0.1)
        device.capture = lambda step, draw=draw: draw() and step  # type: ignore[method-assign, assignment, misc]
        for seed in range(2):
            step(training, seed)
        with pytest.warns(UserWarning, match="draws random numbers on the CPU"):
            step(training, 2)
        assert torch.isfinite(step(training, 3)).all()


def test_what_a_step_returned_is_not_changed_by_the_next() -> None:
    training, device = begun(0.0)
    eager, replayed = ([step(training, seed) for seed in range(3)] for _ in range(2))
    assert device.replays == 3
    assert all(torch.equal(*pair) for pair in zip(eager, replayed, strict=True))  # as η = 0


def test_tensors_that_were_replaced_get_a_new_graph() -> None:
    """Other momenta, as load_state_dict makes them, where a graph would read the old ones."""
    training, device = begun(0.1)
    for _ in range(4):
        step(training)
    training.engine.begin_epoch({10: 89}, training.network, training.optimizer)
    step(training)
    assert (device.captures, device.replays) == (1, 2)
    for state in training.optimizer.state.values():
        state["momentum_buffer"] = state["momentum_buffer"].clone()
    training.engine.begin_epoch({10: 79}, training.network, training.optimizer)
    step(training)
    assert (device.captures, device.replays) == (1, 2)


def test_where_graphs_cannot_be_they_are_none_or_an_error() -> None:
    cpu, gpu, two = torch.device("cpu"), torch.device("cuda"), Ranks(size=2)
    cases = [(cpu, False, ALONE, "CPU"), (gpu, True, ALONE, "fp16"), (gpu, False, two, "several")]
    for device, scaled, ranks, why in cases:
        assert cudagraphs.build("auto", device, scaled, ranks) is None
        assert cudagraphs.build(False, device, scaled, ranks) is None
        with pytest.raises(ConfigError, match=rf"engine\.graphs=true .*{why}.*graphs=auto"):
            cudagraphs.build(True, device, scaled, ranks)
    built = [cudagraphs.build(setting, gpu, False, ALONE) for setting in (False, "auto", True)]
    assert [graphs and graphs.always for graphs in built] == [None, False, True]


def test_a_checkpoint_goes_from_either_device_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's holds η as a tensor, a CPU's as a number."""
    config = configure(*RUN, "optimizer=shb")
    for on_gpu_before in (True, False):
        monkeypatch.setattr(optim, "_on_gpu", lambda device, was=on_gpu_before: was)
        before = prepared(config)
        rates.put(before.optimizer, 0.25, 0.9)
        state = assemble.state_of("run", None, before, Progress(epoch=1))
        checkpoint.save(tmp_path / "c.pt", state)
        monkeypatch.setattr(optim, "_on_gpu", lambda device, was=on_gpu_before: not was)
        after = prepared(config)
        assemble.load(tmp_path / "c.pt", "run", after, pytest.fail)
        rates.put(after.optimizer, 0.125, 0.9)
        assert isinstance(after.optimizer.param_groups[0]["lr"], float if on_gpu_before else Tensor)
        assert optim.learning_rate(after.optimizer) == 0.125


def test_graphs_do_not_change_which_run_it_is() -> None:
    settings = [configure(f"engine.graphs={setting}") for setting in ("auto", "true", "false")]
    assert [config.engine.graphs for config in settings] == ["auto", True, False]
    assert len({str(result_settings(config)) for config in settings}) == 1
