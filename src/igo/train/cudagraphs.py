"""Whole-step CUDA graphs: one launch in the place of a step's hundreds, where launching limits.

At small batches a GPU has done its work before the CPU has told it all of it. A graph holds the
launches of one whole step (forward, loss, backward, optimizer step, totals) at fixed addresses, and
replays them at once. An epoch of equal batches has two sizes at most, so a stage has two graphs at
most. torch.compile is left out: it compiles for seconds at each of a schedule's hundred batch
sizes, and gives up after eight.

None of this has run on a GPU yet, so it is off unless it is asked for (docs/gpu.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from igo.errors import ConfigError
from igo.ranks import Ranks
from igo.train import optim
from igo.train.capture import Backend, Cuda, Step
from igo.train.micro_batch import is_exhausted

Batch = tuple[Tensor, Tensor]
Update = Callable[[Batch], Tensor]  # one training step on a batch, kernel by kernel; its totals

# What auto captures, by sizes alone, so that it is the same on every machine and after a resume.
# Both numbers are estimates. Larger batches keep a GPU busy for longer than their launching takes;
# capturing and comparing take about as long as thirty steps.
MOST_PIXELS = 128 * 32 * 32
LEAST_STEPS = 100  # left in the stage
REHEARSALS = 3  # steps on the stream of capture before it, as PyTorch's notes on CUDA graphs ask


@dataclass
class _Shape:
    """Batches of one size in the present stage: how far their graph is, or why there is none."""

    left: int  # steps in the stage
    rehearsed: int = 0
    inputs: Batch | None = None
    replay: Step | None = None
    compared: bool = False
    eager: str = ""

    def play(self, batch: Batch) -> Tensor:
        if self.inputs is None or self.replay is None:
            raise RuntimeError("there is no graph")
        for fixed, now in zip(self.inputs, batch, strict=True):
            fixed.copy_(now)
        return self.replay().clone()


@dataclass
class Graphs:
    """The graphs of the present stage, at most one for each of its two sizes of batches.

    The rehearsals are training itself, on another stream, and capturing launches nothing. The first
    replay, and the first after η changed, is made beside the same step kernel by kernel, from the
    same state: the two must be the same to the bit. So a run has the same bits with graphs and
    without, wherever it was stopped and continued; where it would not, there are no graphs, and a
    warning. Random numbers too: a replay sets seed and offset in its kernels to those of the CUDA
    generator, and moves it on by as much as the step does without a graph.

    ``always`` captures whatever the sizes, and makes an obstacle an error. ``told`` says of each
    size of batches what became of it.
    """

    backend: Backend
    always: bool = False
    told: dict[int, str] = field(default_factory=dict, init=False)
    _frozen: object = field(default=None, init=False)  # what the graphs have for fixed
    _rate: float | None = field(default=None, init=False)
    _shapes: dict[int, _Shape] = field(default_factory=dict, init=False)
    _given_up: str = field(default="", init=False)

    def begin(self, steps: Mapping[int, int], optimizer: torch.optim.Optimizer) -> None:
        """Before an epoch, drop the graphs unless they are still the right ones.

        Args:
            steps: left in the stage, by size of the batches to capture; any others are not.
            optimizer: its learning rate may change in place, see optim; what else it holds is
                part of a graph. Reading the rate waits for the GPU, once an epoch.
        """
        frozen = {*steps}, *_held(optimizer)
        if frozen != self._frozen:
            captured = any(shape.replay for shape in self._shapes.values())
            self._frozen = frozen
            self._shapes = {size: _Shape(left) for size, left in steps.items()}
            if captured:
                self.backend.release()
        rate = optim.learning_rate(optimizer)
        if rate != self._rate:
            self._rate = rate
            for shape in self._shapes.values():
                shape.compared = False

    def step(
        self, update: Update, network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch
    ) -> Tensor:
        """One step, by a graph if there is one for this batch; what ``update`` returns.

        Raises:
            ConfigError: a step that must be captured cannot be.
        """
        size = len(batch[1])
        shape = self._shapes.get(size)
        if self._given_up or shape is None or shape.eager:
            return update(batch)
        if shape.replay is not None:
            if shape.compared:
                return shape.play(batch)
            return self._compare(shape, update, network, optimizer, batch)
        if not shape.rehearsed and not self.always:
            shape.eager = _no_gain(batch[0], shape.left)
            if shape.eager:
                self.told[size] = shape.eager
                return update(batch)
        rehearsal = self.backend.rehearse(lambda: update(batch))
        shape.rehearsed += 1
        if rehearsal.obstacle:
            self._give_up(rehearsal.obstacle)
        elif shape.rehearsed == REHEARSALS:
            self._capture(shape, update, optimizer, batch)
        return rehearsal.totals

    def _capture(
        self, shape: _Shape, update: Update, optimizer: torch.optim.Optimizer, batch: Batch
    ) -> None:
        inputs = batch[0].clone(), batch[1].clone()
        failed: BaseException | None = None
        try:
            shape.replay = self.backend.capture(lambda: update(inputs))
            shape.inputs = inputs
        except (RuntimeError, MemoryError) as error:
            failed = cause(error)
        optimizer.zero_grad(set_to_none=True)  # gradients are in the graph's memory: its own affair
        if failed is None:
            self.told[len(batch[1])] = "graph"
            return
        reason = next(iter(str(failed).splitlines()), type(failed).__name__)
        self.backend.release()
        if is_exhausted(failed):  # smaller batches may still have room
            shape.eager = self.told[len(batch[1])] = f"no memory for a graph: {reason}"
            warnings.warn(f"batches of {len(batch[1])} have {shape.eager}", stacklevel=2)
        else:
            self._give_up(reason)

    def _compare(
        self,
        shape: _Shape,
        update: Update,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
    ) -> Tensor:
        """The step kernel by kernel, and again by the graph; the run goes on from the former."""
        tensors, start = [*_state(network, optimizer)], self.backend.random_state()
        before = [one.clone() for one in tensors]
        totals = update(batch)
        wanted, drawn = [one.clone() for one in tensors], self.backend.random_state()
        optimizer.zero_grad(set_to_none=True)
        _put(tensors, before)
        self.backend.set_random_state(start)
        pairs = [(totals, shape.play(batch)), *zip(wanted, tensors, strict=True)]
        pairs.append((drawn, self.backend.random_state()))
        shape.compared = all(_same(*pair) for pair in pairs)
        if not shape.compared:
            _put(tensors, wanted)
            self.backend.set_random_state(drawn)
            self._give_up("a replay is not its step to the bit (engine.deterministic helps)")
        return totals

    def _give_up(self, reason: str) -> None:
        """An obstacle is the model's: it would be there at every batch size."""
        self._given_up = reason
        self.told |= dict.fromkeys(self._shapes, f"given up: {reason}")
        for shape in self._shapes.values():
            shape.inputs = shape.replay = None
        self.backend.release()
        if self.always:
            allowed = f"a step of this model cannot be captured ({reason}); use engine.graphs=auto"
            raise ConfigError("engine.graphs", "true", allowed)
        warnings.warn(f"training without CUDA graphs: {reason}", stacklevel=2)


def _no_gain(images: Tensor, left: int) -> str:
    """Why no graph is worth its making, empty where one is."""
    pixels = images.shape[0] * images.shape[-2] * images.shape[-1]
    if pixels > MOST_PIXELS:
        return f"no graph: {pixels:,} pixels keep a GPU busy"
    return f"no graph: {left} steps are left of the stage" if left < LEAST_STEPS else ""


def cause(error: BaseException) -> BaseException:
    """What came first: the end of a failed capture raises an error of its own over it."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _state(network: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """All that a step changes."""
    yield from (one.detach() for one in network.parameters())
    yield from network.buffers()
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


@torch.no_grad()
def _put(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same bits, but for those of NaN."""
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=one.is_floating_point())


def build(setting: bool | str, device: torch.device, scaled: bool, ranks: Ranks) -> Graphs | None:
    """The graphs of a run; None where there are none.

    Args:
        setting: engine.graphs, auto, true or false.
        device: of the run.
        scaled: whether fp16's loss scaling decides in each step whether the optimizer moves.
        ranks: whose sums go through the CPU in part, which no graph holds.

    Raises:
        ConfigError: they were asked for and cannot be.
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


def _held(optimizer: torch.optim.Optimizer) -> Iterator[object]:
    """What a graph of a step has for fixed: numbers, and where each tensor is."""
    for group in optimizer.param_groups:
        for name, value in group.items():
            if name == "params":
                yield from (parameter.data_ptr() for parameter in value)
            else:
                yield value.data_ptr() if isinstance(value, Tensor) else value
    for state in optimizer.state.values():
        yield from (value.data_ptr() for value in state.values() if isinstance(value, Tensor))
