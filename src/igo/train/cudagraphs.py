"""CUDA graphs of whole steps: one launch instead of hundreds, where launching is the limit.

A graph holds the launches of one whole step (forward, loss, backward, optimizer step, totals) at
fixed addresses, and replays them at once. An epoch of equal batches has two sizes at most, so a
stage has two graphs at most. None of this has run on a GPU yet: it is off by default (docs/gpu.md).
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

from igo.errors import ConfigError
from igo.ranks import Ranks

Batch = tuple[Tensor, Tensor]
Step = Callable[[], Tensor]
Update = Callable[[Batch], Tensor]  # one training step on a batch; its totals

# What auto captures goes by sizes alone, so it is the same on every machine and after a resume.
# Both numbers are estimates. Larger batches keep a GPU busy for longer than their launches take;
# capturing and comparing take about as long as thirty steps.
MOST_PIXELS = 128 * 32 * 32
LEAST_STEPS = 100  # left in the stage
REHEARSALS = 3  # steps on the stream of capture before it, as PyTorch's notes on CUDA graphs ask


class Cuda:
    """Rehearses and captures steps on a stream of its own; tests have a stand-in for it."""

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream()

    def rehearse(self, step: Step) -> Tensor:
        """Do a step where it will be captured."""
        with self._aside():
            return step()

    def capture(self, step: Step) -> Step:
        """Record a step without doing it; what is returned does it on the same addresses.

        A failed capture leaves two things behind in PyTorch up to 2.12: the allocator still takes
        memory from the pool of the capture (PyTorch's pull request 180395), and the generator is
        still in capture. Both are ended here. The pool is not released: newer versions do it, and
        releasing it twice is fatal.
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
            with contextlib.suppress(RuntimeError):  # raised where PyTorch has ended it
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
            self.generator().graphsafe_set_state(state)
            raise

        def replay() -> Tensor:
            graph.replay()
            return totals

        return replay

    def generator(self) -> torch.Generator:
        """What a step draws from."""
        return torch.cuda.default_generators[torch.cuda.current_device()]

    def release(self) -> None:
        """Give back the memory of graphs that have been dropped."""
        torch.cuda.empty_cache()

    @contextlib.contextmanager
    def _aside(self) -> Iterator[torch.cuda.Stream]:
        """Work on the stream of capture, in order with the present stream."""
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

    The rehearsals are training itself, on another stream, and capturing launches nothing. The first
    replay is compared with the same step made without the graph from the same state: parameters,
    buffers and momenta must be the same to the bit, or there are no more graphs and a warning. So a
    run has the same bits with graphs and without, wherever it was stopped.

    ``always`` captures whatever the sizes, and makes an obstacle an error. ``outcome`` says of each
    size of batches what became of it.
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
        """Before an epoch, drop the graphs unless they are still the right ones.

        ``steps`` are left in the stage, by size of the batches that may be captured. The learning
        rate is a tensor that changes in place; what else the optimizer holds is part of a graph.
        """
        self._network, self._optimizer = network, optimizer
        fixed = {*steps}, *_fixed(optimizer)
        if fixed != self._fixed:
            self._fixed = fixed
            self._drop({size: _Shape(left) for size, left in steps.items()})

    def step(self, update: Update, batch: Batch) -> Tensor:
        """One step, by a graph if there is one for this batch; what ``update`` returns."""
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
            while first.__context__:  # the end of a failed capture raises an error over the first
                first = first.__context__
            self._give_up(next(iter(str(first).splitlines()), type(first).__name__))
        else:
            shape.play, self.outcome[len(batch[1])] = partial(_play, inputs, replay), "graph"
            if _cpu_draws() != draws:  # a replay would draw the same numbers for ever
                self._give_up("its step draws random numbers on the CPU")
        finally:
            self._optimizer.zero_grad(set_to_none=True)  # gradients are in the graph's memory

    def _compare(self, shape: _Shape, update: Update, batch: Batch) -> Tensor:
        """The step without the graph, and again by it; the run goes on from the former."""
        generator, play = self.device.generator(), cast(Update, shape.play)
        tensors = [*self._network.state_dict().values(), *_tensors(self._optimizer)]
        before, start = [tensor.clone() for tensor in tensors], generator.get_state()
        totals = update(batch)
        wanted, drawn = [tensor.clone() for tensor in tensors], generator.get_state()
        self._optimizer.zero_grad(set_to_none=True)
        _put(tensors, before)
        generator.set_state(start)
        pairs = [(totals, play(batch)), *zip(wanted, tensors, strict=True)]
        shape.compared = all(_same(*pair) for pair in (*pairs, (drawn, generator.get_state())))
        _put(tensors, wanted)
        generator.set_state(drawn)
        if not shape.compared:
            self._give_up("a replay is not its step to the bit (engine.deterministic helps)")
        return totals

    def _give_up(self, reason: str) -> None:
        """What failed would fail again: at every batch size, or, without memory, at larger ones."""
        self._given_up = True
        self.outcome |= dict.fromkeys(self._shapes, f"given up: {reason}")
        self._drop({})
        if self.always:
            allowed = f"a step of this model cannot be captured ({reason}); use engine.graphs=auto"
            raise ConfigError("engine.graphs", "true", allowed)
        warnings.warn(f"training without CUDA graphs: {reason}", stacklevel=2)

    def _drop(self, shapes: dict[int, _Shape]) -> None:
        """Go on to other shapes; the memory of the graphs before is given back."""
        for shape in self._shapes.values():
            shape.play = None
        self._shapes = shapes
        self.device.release()


def build(setting: bool | str, device: torch.device, scaled: bool, ranks: Ranks) -> Graphs | None:
    """The graphs of a run; None where there are none, as engine.graphs or an obstacle says.

    fp16's loss scaling decides in each step whether the optimizer moves, and sums over ranks go
    through the CPU in part: no graph holds either.
    """
    wanted = str(setting).lower()
    obstacles = {
        "CUDA graphs need a GPU, and this run is on a CPU": device.type != "cuda",
        "the loss scaling of fp16 is not captured": scaled,
        "steps of several processes are not captured": ranks.size > 1,
    }
    for obstacle in (reason for reason, there in obstacles.items() if there):
        if wanted == "true":
            raise ConfigError("engine.graphs", wanted, f"{obstacle}; use engine.graphs=auto")
        return None
    return None if wanted == "false" else Graphs(Cuda(), always=wanted == "true")


def _play(inputs: Batch, replay: Step, batch: Batch) -> Tensor:
    for fixed, new in zip(inputs, batch, strict=True):
        fixed.copy_(new)
    return replay().clone()


def _no_gain(images: Tensor, left: int) -> str:
    """Why no graph is worth its making, empty where one is."""
    pixels = images.shape[0] * images.shape[-2] * images.shape[-1]
    if pixels > MOST_PIXELS:
        return f"no graph: {pixels:,} pixels keep a GPU busy"
    return f"no graph: {left} steps are left of the stage" if left < LEAST_STEPS else ""


def _cpu_draws() -> tuple[bytes, object]:
    """The state of the generators on the CPU that a model may draw from."""
    return torch.get_rng_state().numpy().tobytes(), random.getstate()


def _tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


def _fixed(optimizer: torch.optim.Optimizer) -> Iterator[object]:
    """What a graph of a step has for fixed: numbers, and where each tensor is."""
    for group in optimizer.param_groups:
        for value in (*group["params"], *(group[name] for name in group if name != "params")):
            yield value.data_ptr() if isinstance(value, Tensor) else value
    yield from (tensor.data_ptr() for tensor in _tensors(optimizer))


@torch.no_grad()
def _put(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _same(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two tensors have the same bits, except for those of NaN."""
    return torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=ours.is_floating_point())
