"""CUDA graphs of whole steps: when there is one, and that training with it is training without.

Where there is no GPU, ``Recorder`` stands for one: it has for fixed what a graph has.
"""

from __future__ import annotations

import contextlib
import random
import re
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn

from igo.config.plan import make_plan
from igo.config.schema import Config, result_settings
from igo.errors import ConfigError
from igo.files import Record
from igo.ranks import ALONE, Ranks
from igo.runs import assemble, checkpoint
from igo.train import capture, cudagraphs, loop, optim
from igo.train.capture import Rehearsal, Step
from igo.train.cudagraphs import Graphs
from igo.train.state import Progress, Training

Make = Callable[..., Config]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
FIRST = cudagraphs.REHEARSALS


class Quiet:
    """A progress bar that shows nothing."""

    def begin_epoch(self, epoch: int, applied: object) -> None: ...
    def advance(self, images: int) -> None: ...
    def end_epoch(self, record: Record) -> None: ...


class Recorder:
    """A graph on the CPU: numbers are those of the capture, tensors are read where they were.

    Capturing goes through the step, as a capture does, and leaves nothing of it but gradients.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        obstacle: str = "",
        fails: BaseException | None = None,
        differs: bool = False,
    ) -> None:
        self.network, self.optimizer = network, optimizer
        self.obstacle, self.fails, self.differs = obstacle, fails, differs
        self.rehearsals = self.captures = self.replays = self.released = 0
        self.made: list[Callable[[], Step | None]] = []

    def rehearse(self, step: Step) -> Rehearsal:
        self.rehearsals += 1
        return Rehearsal(step(), self.obstacle)

    def capture(self, step: Step) -> Step:
        self.captures += 1
        before = [value.clone() for value in self.tensors()]
        with torch.random.fork_rng(devices=[]):
            step()
        for value, old in zip(self.tensors(), before, strict=True):
            value.copy_(old)
        if self.fails:
            try:
                raise self.fails
            finally:  # as the end of torch.cuda.graph does
                raise RuntimeError("operation failed due to a previous error during capture")
        fixed = [dict(group) for group in self.optimizer.param_groups]
        totals = torch.zeros(2)

        def replay() -> Tensor:
            self.replays += 1
            now = [dict(group) for group in self.optimizer.param_groups]
            for group, old in zip(self.optimizer.param_groups, fixed, strict=True):
                group.update(old)
            totals.copy_(step())
            if self.differs:
                next(self.network.parameters()).data += 1e-6
            for group, new in zip(self.optimizer.param_groups, now, strict=True):
                group.update(new)
            return totals

        self.made.append(weakref.ref(replay))
        return replay

    def release(self) -> None:
        self.released += 1

    @property
    def alive(self) -> int:
        """Graphs whose memory is held."""
        return sum(one() is not None for one in self.made)

    def random_state(self) -> Tensor:
        return torch.get_rng_state()

    def set_random_state(self, state: Tensor) -> None:
        torch.set_rng_state(state)

    def tensors(self) -> list[Tensor]:
        states = self.optimizer.state.values()
        momenta = [value for state in states for value in state.values()]
        return [value.detach() for value in self.network.state_dict().values()] + momenta


@pytest.fixture
def tensor_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning rates as on a GPU, and graphs of fewer steps."""
    monkeypatch.setattr(optim, "_on_gpu", lambda device: True)
    monkeypatch.setattr(cudagraphs, "LEAST_STEPS", 8)


def prepared(config: Config, **recorder: Any) -> tuple[Training, Recorder]:
    """A run with graphs by a Recorder."""
    training = assemble.prepare(config, make_plan(config))
    backend = Recorder(training.network, training.optimizer, **recorder)
    return replace(training, engine=replace(training.engine, graphs=Graphs(backend))), backend


def train(training: Training, progress: Progress | None = None, until: int = 999) -> list[Record]:
    """Train to the end or to an epoch; the records without their timings."""

    class Enough(Exception):
        pass

    def epoch_done(record: Record) -> None:
        if record["epoch"] == until:
            raise Enough

    progress = progress or Progress()
    with contextlib.suppress(Enough):
        loop.train(training, progress, Quiet(), epoch_done, lambda: None)  # type: ignore[arg-type]
    timings = {"seconds", "images_per_second"}
    return [{k: v for k, v in one.items() if k not in timings} for one in progress.records]


def same_state(ours: Training, theirs: Training) -> bool:
    """Parameters, BatchNorm's statistics and momentum, to the bit."""
    pairs = [
        (one.network.state_dict(), two.network.state_dict())
        for one, two in ((ours, theirs), (theirs, ours))
    ]
    for mine, other in pairs:
        if not all(torch.equal(value, other[name]) for name, value in mine.items()):
            return False
    momenta = [list(run.optimizer.state.values()) for run in (ours, theirs)]
    return all(
        torch.equal(one["momentum_buffer"], two["momentum_buffer"])
        for one, two in zip(*momenta, strict=True)
        if one
    )


# 96 samples in batches of 10 and more: an epoch of ten has six of 10 and four of 9.
RUN = (*TINY, "batch_size=10", "epochs=6", "schedule.stages=3", "learning_rate=0.05")
BATCHES_GROW = ("split=0.5", "p=0.2")


@pytest.mark.usefixtures("tensor_rates")
@pytest.mark.parametrize(
    ("overrides", "captures", "steps"),
    [
        # 10 and 9 in two stages; then 11, and too few of 10: less three rehearsals each
        (BATCHES_GROW, 3, 4 * (6 + 4) + 2 * 6),
        (("split=1", "noise.online=0"), 2, 6 * (6 + 4)),  # η changes in the graph's memory
        (("optimizer=shb", "optimizer.weight_decay=0.01", *BATCHES_GROW), 3, 4 * (6 + 4) + 2 * 6),
        # β is a number of the graph
        (("optimizer=nshb", "optimizer.decay_momentum=true"), 6, 6 * (6 + 4)),
    ],
)
def test_a_run_with_graphs_is_the_run_without_to_the_bit(
    overrides: tuple[str, ...], captures: int, steps: int, make_config: Make
) -> None:
    """Through changes of η, b and β, two sizes of batches, and C² measured between replays."""
    config = make_config(*RUN, *overrides)
    plain = assemble.prepare(config, make_plan(config))
    wanted = train(plain)
    training, recorder = prepared(config)
    assert train(training) == wanted
    assert same_state(training, plain)
    assert recorder.captures == captures
    assert recorder.rehearsals == captures * FIRST
    assert recorder.replays == steps - captures * FIRST


@pytest.mark.usefixtures("tensor_rates")
def test_a_run_stopped_and_continued_with_graphs_ends_the_same(
    make_config: Make, tmp_path: Path
) -> None:
    """In the middle of a stage whose graph was captured, and continued before the next one is."""
    config = make_config(*RUN, *BATCHES_GROW, "optimizer=shb")
    plain = assemble.prepare(config, make_plan(config))
    wanted = train(plain)
    first, recorder = prepared(config)
    progress = Progress()
    train(first, progress, until=3)
    assert recorder.replays
    checkpoint.save(tmp_path / "c.pt", assemble.state_of("run", None, first, progress))
    second, recorder = prepared(config)
    loaded, _ = assemble.load(tmp_path / "c.pt", "run", second, pytest.fail)
    assert loaded is not None
    assert train(second, loaded) == wanted
    assert same_state(second, plain)
    assert recorder.replays


@pytest.mark.usefixtures("tensor_rates")
def test_tensors_that_were_replaced_get_a_new_graph(make_config: Make) -> None:
    """Other momenta, as load_state_dict makes them, where a graph would read the old ones."""
    training, recorder = prepared(make_config(*RUN, "optimizer=shb", "schedule=constant"))
    optimizer, run = training.optimizer, training.engine
    optim.apply(optimizer, 0.1, 0.9, training.config.optimizer)
    run.begin_epoch({10: 99}, optimizer)
    for _ in range(FIRST + 1):
        step(training)
    assert (recorder.captures, recorder.replays) == (1, 1)
    run.begin_epoch({10: 99}, optimizer)
    step(training)
    assert recorder.replays == 2
    for state in optimizer.state.values():
        state["momentum_buffer"] = state["momentum_buffer"].clone()
    run.begin_epoch({10: 99}, optimizer)
    step(training)
    assert (recorder.captures, recorder.replays) == (1, 2)


def step(training: Training, b: int = 10, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(b, 1, 8, 8, generator=draw)
    labels = torch.randint(10, (b,), generator=draw)
    return training.engine.step(training.network, training.optimizer, (images, labels))


@pytest.mark.usefixtures("tensor_rates")
def test_what_a_step_returned_is_not_changed_by_the_next(make_config: Make) -> None:
    training, recorder = prepared(make_config(*RUN, "schedule=constant"))
    optim.apply(training.optimizer, 0.0, 0.0, training.config.optimizer)
    training.engine.begin_epoch({10: 99}, training.optimizer)
    eager = [step(training, seed=seed) for seed in range(FIRST)]
    replayed = [step(training, seed=seed) for seed in range(FIRST)]
    assert recorder.replays == FIRST
    for one, two in zip(eager, replayed, strict=True):  # η = 0; BatchNorm in train mode
        assert torch.equal(one, two)


# --- When there is a graph ------------------------------------------------------------------------


@pytest.mark.usefixtures("tensor_rates")
@pytest.mark.parametrize(
    ("overrides", "pixels", "captures"),
    [
        ((), 640, 2),
        ((), 639, 1),  # batches of 10 images of 8 x 8 keep the GPU busy
        (("engine.micro_batch_size=9",), 640, 1),
        (("batch_size=48", "epochs=3"), 9999, 0),  # six steps in all
        (("batch_size=48", "epochs=4"), 9999, 1),
    ],
)
def test_a_graph_is_made_by_sizes_and_steps_left(
    overrides: tuple[str, ...],
    pixels: int,
    captures: int,
    make_config: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cudagraphs, "MOST_PIXELS", pixels)
    config = make_config(*RUN, "schedule=constant", "schedule.stages=1", *overrides)
    training, recorder = prepared(config)
    train(training)
    assert recorder.captures == captures
    assert training.engine.graphs is not None
    assert [*training.engine.graphs.told.values()].count("graph") == captures


@pytest.mark.usefixtures("tensor_rates")
def test_the_graph_of_a_stage_ends_with_it(make_config: Make) -> None:
    training, recorder = prepared(make_config(*RUN, "schedule=constant"))
    optim.apply(training.optimizer, 0.1, 0.0, training.config.optimizer)
    training.engine.begin_epoch({10: 99}, training.optimizer)
    for _ in range(FIRST):
        step(training)
    assert recorder.alive == 1
    assert all(parameter.grad is None for parameter in training.network.parameters())
    step(training, b=6)  # of no size that was announced
    training.engine.begin_epoch({10: 89}, training.optimizer)
    assert recorder.alive == 1
    assert recorder.released == 0
    training.engine.begin_epoch({11: 99, 10: 99}, training.optimizer)
    assert recorder.alive == 0
    assert recorder.released == 1


@pytest.mark.usefixtures("tensor_rates")
@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"obstacle": "it waits"}, "it waits"),
        ({"fails": RuntimeError("it waits\nwhere")}, "it waits"),
        ({"differs": True}, "a replay is not its step to the bit .*"),
    ],
)
def test_what_cannot_be_captured_is_said_once_and_trained_without(
    trouble: dict[str, Any], said: str, make_config: Make
) -> None:
    """And the cause is the first error, which the end of a capture hides."""
    config = make_config(*RUN, *BATCHES_GROW, "optimizer=shb")
    plain = assemble.prepare(config, make_plan(config))
    wanted = train(plain)
    training, recorder = prepared(config, **trouble)
    with pytest.warns(UserWarning, match=f"without CUDA graphs: {said}$") as heard:
        assert train(training) == wanted
    assert len(heard) == 1
    assert same_state(training, plain)
    assert recorder.captures == ("obstacle" not in trouble)
    assert recorder.replays == ("differs" in trouble)
    assert recorder.alive == 0
    assert training.engine.graphs is not None
    assert {text[:9] for text in training.engine.graphs.told.values()} == {"given up:"}


@pytest.mark.usefixtures("tensor_rates")
def test_a_graph_without_memory_is_missed_at_that_size_alone(make_config: Make) -> None:
    config = make_config(*RUN, "schedule=constant", "optimizer=shb")
    plain = assemble.prepare(config, make_plan(config))
    wanted = train(plain)
    training, recorder = prepared(config)

    def fail_at_first(step: Step) -> Step:
        recorder.fails = None if recorder.captures else torch.OutOfMemoryError("CUDA out of memory")
        return capturing(step)

    capturing, recorder.capture = recorder.capture, fail_at_first  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="batches of 10 have no memory for a graph: CUDA out"):
        assert train(training) == wanted
    assert same_state(training, plain)
    assert recorder.captures == 2
    assert recorder.replays == 6 * 4 - FIRST  # those of 9


@pytest.mark.usefixtures("tensor_rates")
def test_replays_are_compared_again_after_the_rate_changed(make_config: Make) -> None:
    """A graph that has η for fixed is found out then."""
    training, recorder = prepared(make_config(*RUN, "schedule=constant"))
    optimizer, settings = training.optimizer, training.config.optimizer
    optim.apply(optimizer, 0.1, 0.0, settings)
    training.engine.begin_epoch({10: 99}, optimizer)
    for _ in range(FIRST + 1):
        step(training)
    assert recorder.replays == 1
    recorder.differs = True
    optim.apply(optimizer, 0.05, 0.0, settings)
    training.engine.begin_epoch({10: 89}, optimizer)
    with pytest.warns(UserWarning, match="not its step to the bit"):
        step(training)


@pytest.mark.usefixtures("tensor_rates")
def test_asked_for_by_name_a_graph_is_made_at_once_or_an_error(make_config: Make) -> None:
    config = make_config(*RUN, "schedule=constant")
    troubles: list[tuple[dict[str, Any], int]] = [({}, 1), ({"obstacle": "it waits"}, 0)]
    for trouble, captures in troubles:
        training, recorder = prepared(config, **trouble)
        made = replace(training.engine, graphs=Graphs(recorder, always=True))
        training = replace(training, engine=made)
        optim.apply(training.optimizer, 0.1, 0.0, config.optimizer)
        made.begin_epoch({10: 4}, training.optimizer)
        if captures:
            for _ in range(cudagraphs.REHEARSALS):
                step(training)
        else:
            with pytest.raises(ConfigError, match=r"engine\.graphs=true .*it waits.*graphs=auto"):
                step(training)
        assert recorder.captures == captures


def test_where_graphs_cannot_be_they_are_none_or_an_error() -> None:
    two = Ranks(size=2)
    cases = [(CPU, False, ALONE, "CPU"), (GPU, True, ALONE, "fp16"), (GPU, False, two, "several")]
    for device, scaled, ranks, why in cases:
        assert cudagraphs.build("auto", device, scaled, ranks) is None
        assert cudagraphs.build(False, device, scaled, ranks) is None
        with pytest.raises(ConfigError, match=rf"engine\.graphs=true .*{why}.*graphs=auto"):
            cudagraphs.build(True, device, scaled, ranks)
    assert cudagraphs.build(False, GPU, False, ALONE) is None
    assert cudagraphs.build("false", GPU, False, ALONE) is None
    chosen, forced = (cudagraphs.build(setting, GPU, False, ALONE) for setting in ("auto", True))
    assert chosen is not None
    assert forced is not None
    assert (chosen.always, forced.always) == (False, True)


def test_numbers_drawn_on_the_cpu_are_noticed() -> None:
    for draw in (lambda: torch.rand(1), random.random):
        before = capture._cpu_draws()
        assert capture._cpu_draws() == before
        draw()
        assert capture._cpu_draws() != before


# --- Learning rates in memory ---------------------------------------------------------------------


def test_a_checkpoint_goes_from_either_device_to_the_other(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's holds η as a tensor, a CPU's as a number."""
    config = make_config(*RUN, "optimizer=shb")
    for on_gpu_before in (True, False):
        monkeypatch.setattr(optim, "_on_gpu", lambda device, was=on_gpu_before: was)
        one = assemble.prepare(config, make_plan(config))
        optim.apply(one.optimizer, 0.25, 0.9, config.optimizer)
        checkpoint.save(tmp_path / "c.pt", assemble.state_of("run", None, one, Progress(epoch=1)))
        monkeypatch.setattr(optim, "_on_gpu", lambda device, was=on_gpu_before: not was)
        two = assemble.prepare(config, make_plan(config))
        assemble.load(tmp_path / "c.pt", "run", two, pytest.fail)
        optim.apply(two.optimizer, 0.125, 0.9, config.optimizer)
        assert isinstance(two.optimizer.param_groups[0]["lr"], float if on_gpu_before else Tensor)
        assert optim.learning_rate(two.optimizer) == 0.125


# --- The command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [("true", "need a GPU.*use engine.graphs=auto"), ("maybe", "must be one of auto, true, false"),
     ("3", "must be one of auto, true, false")],
)  # fmt: skip
def test_a_wrong_setting_is_one_line(
    setting: str, said: str, program: Callable[..., Any], tmp_path: Path
) -> None:
    done = program(f"engine.graphs={setting}", "tracking=none", *TINY)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: engine.graphs={setting} is not allowed: ")
    assert re.search(said, line)
    assert not list(tmp_path.glob("runs/*/metrics.jsonl"))


def test_a_run_without_graphs_is_the_same_run(make_config: Make) -> None:
    settings = [make_config(f"engine.graphs={one}") for one in ("auto", "true", "false")]
    assert [one.engine.graphs for one in settings] == ["auto", True, False]
    assert len({str(result_settings(one)) for one in settings}) == 1
