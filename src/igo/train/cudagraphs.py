"""CUDA graphs of whole steps: one launch instead of hundreds, if launches take the time.

A graph records the launches of one whole step (forward, loss, backward, optimizer step, totals) at
fixed addresses, and replays them at once. An epoch of equal batches has at most two sizes, so a
stage has at most two graphs. None of this has run on a GPU yet: it is off by default (docs/gpu.md).
"""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import cast

import torch
from torch import Tensor, nn

from igo.ground.errors import ConfigError, first_line
from igo.ground.ranks import Ranks
from igo.train.on_device import Batch

Step = Callable[[], Tensor]
Update = Callable[[Batch], Tensor]  # one training step on a batch; its totals

# With auto, sizes alone decide about a capture, so it is the same on every machine and after a
# resume. Both numbers are estimates. Larger batches take a GPU longer than their launches;
# capturing and comparing take about as long as thirty steps.
MOST_PIXELS = 128 * 32 * 32
LEAST_STEPS = 100  # left in the stage
REHEARSALS = 3  # steps on the capture stream first, as PyTorch's notes on CUDA graphs ask


class Cuda:
    """Rehearses and captures steps on a separate stream; tests have a stand-in for it."""

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream()

    def rehearse(self, step: Step) -> Tensor:
        """Make a step on the stream where it will be captured."""
        with self._aside():
            return step()

    def capture(self, step: Step) -> Step:
        """Record a step without making it; the function returned makes it at the same addresses.

        In PyTorch up to 2.12, after a failed capture the allocator still takes memory from the
        capture's pool (PyTorch's pull request 180395), and the generator is still in capture. Both
        are ended here. The pool is not released: newer versions do that, and releasing it twice is
        fatal.
        """
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        state = self.generator().clone_state()
        try:
            # thread_local: a DataLoader's thread that pins memory may go on meanwhile.
            with (
                self._aside() as stream,
                torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"),
            ):
                totals = step()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # raised if PyTorch has ended it
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
            self.generator().graphsafe_set_state(state)
            raise

        def replay() -> Tensor:
            graph.replay()
            return totals

        return replay

    def generator(self) -> torch.Generator:
        """The generator that a step draws from."""
        return torch.cuda.default_generators[torch.cuda.current_device()]

    def release(self) -> None:
        """Release the memory of dropped graphs."""
        torch.cuda.empty_cache()

    @contextlib.contextmanager
    def _aside(self) -> Iterator[torch.cuda.Stream]:
        """Work on the capture stream, in order with the present stream."""
        stream, present = self._stream, torch.cuda.current_stream()
        stream.wait_stream(present)
        try:
            with torch.cuda.stream(stream):
                yield stream
        finally:
            present.wait_stream(stream)


@dataclass
class _Shape:
    """Batches of one size in the present stage."""

    left: int  # steps in the stage
    rehearsed: int = 0
    play: Update | None = None
    compared: bool = False


@dataclass
class Graphs:
    """The graphs of the present stage.

    Rehearsals are training steps on another stream, and capturing launches nothing. The first
    replay is compared with the same step without the graph, from the same state. If parameters,
    buffers and momenta are not the same to the bit, there is a warning and no more graphs. So a run
    has the same bits with graphs and without, wherever it was stopped.

    ``always`` captures all sizes, and makes an obstacle an error. ``outcome`` has the result for
    each batch size.
    """

    device: Cuda
    always: bool = False
    outcome: dict[int, str] = field(default_factory=dict, init=False)
    _network: nn.Module = field(init=False)
    _optimizer: torch.optim.Optimizer = field(init=False)
    _fixed: object = field(default=None, init=False)
    _shapes: dict[int, _Shape] = field(default_factory=dict, init=False)
    _given_up: bool = field(default=False, init=False)

    def begin(
        self, steps: Mapping[int, int], network: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        """Before an epoch, drop the graphs if they no longer fit.

        ``steps`` are the steps left in the stage, by batch size, for batches that may be captured.
        η is a tensor that changes in place; a graph fixes the optimizer's other values.
        """
        self._network, self._optimizer = network, optimizer
        fixed = {*steps}, *_fixed(optimizer)
        if fixed != self._fixed:
            self._fixed = fixed
            self._drop({size: _Shape(left) for size, left in steps.items()})

    def step(self, update: Update, batch: Batch) -> Tensor:
        """Make one step, by a graph if this batch has one, and return its totals."""
        shape = self._shapes.get(len(batch[1]))
        if shape is None or self._given_up:
            return update(batch)
        if shape.play is not None:
            return shape.play(batch) if shape.compared else self._compare(shape, update, batch)
        if not (shape.rehearsed or self.always) and (reason := _no_gain(batch[0], shape.left)):
            self.outcome[len(batch[1])] = reason
            return update(batch)
        totals = self.device.rehearse(partial(update, batch))
        shape.rehearsed += 1
        if shape.rehearsed == REHEARSALS:
            self._capture(shape, update, batch)
        return totals

    def _capture(self, shape: _Shape, update: Update, batch: Batch) -> None:
        inputs, draws = (batch[0].clone(), batch[1].clone()), _cpu_draws()
        try:
            replay = self.device.capture(partial(update, inputs))
        except (RuntimeError, MemoryError) as error:
            first: BaseException = error
            while first.__context__:  # ending a failed capture raises another error
                first = first.__context__
            self._give_up(first_line(first))
        else:
            shape.play, self.outcome[len(batch[1])] = partial(_play, inputs, replay), "graph"
            if _cpu_draws() != draws:  # each replay would draw the same numbers
                self._give_up("its step draws random numbers on the CPU")
        finally:
            self._optimizer.zero_grad(set_to_none=True)  # gradients are in the graph's memory

    def _compare(self, shape: _Shape, update: Update, batch: Batch) -> Tensor:
        """Make the step without the graph, then by it; training continues from the first."""
        generator, play = self.device.generator(), cast(Update, shape.play)
        tensors = [*self._network.state_dict().values(), *_tensors(self._optimizer)]
        before, state_before = [tensor.clone() for tensor in tensors], generator.get_state()
        totals = update(batch)
        after, state_after = [tensor.clone() for tensor in tensors], generator.get_state()
        self._optimizer.zero_grad(set_to_none=True)
        _copy(before, tensors)
        generator.set_state(state_before)
        pairs = [(totals, play(batch)), *zip(after, tensors, strict=True)]
        pairs.append((state_after, generator.get_state()))
        shape.compared = all(_same(*pair) for pair in pairs)
        _copy(after, tensors)
        generator.set_state(state_after)
        if not shape.compared:
            self._give_up("a replay has other bits than its step (engine.deterministic helps)")
        return totals

    def _give_up(self, reason: str) -> None:
        """Make no more graphs: the same would fail again; memory would run out at larger sizes."""
        self._given_up = True
        self.outcome |= dict.fromkeys(self._shapes, f"given up: {reason}")
        self._drop({})
        if self.always:
            allowed = f"a step of this model cannot be captured ({reason}); use engine.graphs=auto"
            raise ConfigError("engine.graphs", "true", allowed)
        warnings.warn(f"training without CUDA graphs: {reason}", stacklevel=2)

    def _drop(self, shapes: dict[int, _Shape]) -> None:
        for shape in self._shapes.values():
            shape.play = None
        self._shapes = shapes
        self.device.release()


def build(setting: bool | str, device: torch.device, scaled: bool, ranks: Ranks) -> Graphs | None:
    """The graphs of a run; None if engine.graphs is false, or auto and there is an obstacle.

    A graph cannot contain fp16's loss scaling, which decides in each step whether the optimizer
    moves. It cannot contain sums over ranks, which are partly made on the CPU.
    """
    wanted = str(setting).lower()
    obstacles = {
        "CUDA graphs need a GPU, and this run is on a CPU": device.type != "cuda",
        "the loss scaling of fp16 is not captured": scaled,
        "steps of several processes are not captured": ranks.size > 1,
    }
    obstacle = next((reason for reason, holds in obstacles.items() if holds), None)
    if obstacle and wanted == "true":
        raise ConfigError("engine.graphs", wanted, f"{obstacle}; use engine.graphs=auto")
    return None if obstacle or wanted == "false" else Graphs(Cuda(), always=wanted == "true")


def _play(inputs: Batch, replay: Step, batch: Batch) -> Tensor:
    for tensor, values in zip(inputs, batch, strict=True):
        tensor.copy_(values)
    return replay().clone()


def _no_gain(images: Tensor, left: int) -> str:
    """Why a graph is not worth its cost; empty if it is."""
    pixels = images.shape[0] * images.shape[-2] * images.shape[-1]
    if pixels > MOST_PIXELS:
        return f"no graph: {pixels:,} pixels keep a GPU busy"
    return f"no graph: {left} steps are left of the stage" if left < LEAST_STEPS else ""


def _cpu_draws() -> tuple[bytes, object]:
    """The state of the CPU's generators that a model may draw from."""
    return torch.get_rng_state().numpy().tobytes(), random.getstate()


def _tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


def _fixed(optimizer: torch.optim.Optimizer) -> Iterator[object]:
    """The values that a step's graph fixes: numbers, and the addresses of tensors."""
    for group in optimizer.param_groups:
        for value in (*group["params"], *(group[name] for name in group if name != "params")):
            yield value.data_ptr() if isinstance(value, Tensor) else value
    yield from (tensor.data_ptr() for tensor in _tensors(optimizer))


@torch.no_grad()
def _copy(values: list[Tensor], tensors: list[Tensor]) -> None:
    for value, tensor in zip(values, tensors, strict=True):
        tensor.copy_(value)


def _same(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two tensors have the same bits; NaN equals NaN."""
    return torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=ours.is_floating_point())
