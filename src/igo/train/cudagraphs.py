"""Whole-step CUDA graphs: one launch in the place of a step's hundreds, where launching limits.

At small batches a GPU has done its work before the CPU has told it all of it. A graph holds the
launches of one whole step (forward, loss, backward, optimizer step, totals) at fixed addresses, and
replays them at once. There is one graph at a time, of the present stage. torch.compile is left out:
it compiles for seconds at each of a schedule's hundred batch sizes, and gives up after eight.
"""

from __future__ import annotations

import math
import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from igo.errors import ConfigError
from igo.ranks import Ranks

Batch = tuple[Tensor, Tensor]
Step = Callable[[], Tensor]
Update = Callable[[Batch], Tensor]  # one training step on a batch, kernel by kernel; its totals

# Steps of a stage before its graph. Capturing takes a pass of the CPU through a step, new memory,
# and the making of the graph: about as long as these steps do (estimated, not measured). So a stage
# that ends early has paid nothing, and none pays more than twice what was best.
EAGER_STEPS = 20
REHEARSALS = 3  # steps on the stream of capture before it, as PyTorch's notes on CUDA graphs ask
# Launching limits where the GPU is done with a step almost as soon as it has been told all of it.
# Beyond this ratio of the two times it still has a quarter of the step to do then: a graph gains
# nothing, and costs the memory of a second set of activations.
LAUNCH_BOUND = 1.25


@dataclass(frozen=True)
class Rehearsal:
    """A step of training, and what it showed of capturing the next one like it.

    ``launching`` and ``whole`` are seconds from its start until the CPU had launched all of it, and
    until the GPU had done it; ``obstacle`` says why it cannot be captured, empty where it can.
    """

    totals: Tensor
    launching: float
    whole: float
    obstacle: str = ""


class Backend(Protocol):
    """What Graphs needs of a device."""

    def rehearse(self, step: Step) -> Rehearsal:
        """Do a step where and as it will be captured."""
        ...

    def capture(self, step: Step) -> Step:
        """Record a step without doing it; what is returned does it on the same addresses."""
        ...

    def release(self) -> None:
        """Give back the memory of a graph that has been dropped."""
        ...


@dataclass
class Graphs:
    """The graph of the present stage, if it has one.

    A stage's first ``EAGER_STEPS`` are ordinary ones and so are its rehearsals: these are training
    itself, on another stream, and capturing launches nothing. So nothing has to be put back, and
    a run is the same with graphs and without, up to what a kernel rounds. Random numbers too: a
    replay sets seed and offset in its kernels to those of the CUDA generator, and moves it on by as
    much as the step does without a graph (torch.cuda.CUDAGraph does it for the default generator);
    torch.manual_seed before an epoch holds for its replays.

    ``always`` captures whatever limits, and makes an obstacle an error.
    """

    backend: Backend
    always: bool = False
    _frozen: object = field(default=None, init=False)  # what the graph has for fixed
    _batch_size: int = field(default=0, init=False)
    _steps: int = field(default=0, init=False)  # so far, of this batch size
    _launching: float = field(default=math.inf, init=False)
    _whole: float = field(default=math.inf, init=False)
    _inputs: Batch | None = field(default=None, init=False)
    _replay: Step | None = field(default=None, init=False)
    _given_up: bool = field(default=False, init=False)

    def begin(self, batch_size: int, optimizer: torch.optim.Optimizer) -> None:
        """Before an epoch, drop the graph unless it is still the right one.

        Args:
            batch_size: of the batches to capture; any others are not.
            optimizer: its learning rate may change in place, see optim; what else it holds is
                part of a graph.
        """
        frozen = batch_size, *_held(optimizer)
        if frozen == self._frozen:
            return
        self._frozen, self._batch_size, self._steps = frozen, batch_size, 0
        self._launching = self._whole = math.inf
        if self._replay is not None:
            self._inputs = self._replay = None
            self.backend.release()

    def step(self, update: Update, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
        """One step, by the graph if there is one for this batch; what ``update`` returns.

        Raises:
            ConfigError: a step that must be captured cannot be.
        """
        if self._given_up or len(batch[1]) != self._batch_size:
            return update(batch)
        if self._replay is not None and self._inputs is not None:
            for fixed, now in zip(self._inputs, batch, strict=True):
                fixed.copy_(now)
            return self._replay().clone()
        self._steps += 1
        first = 0 if self.always else EAGER_STEPS
        if not first < self._steps <= first + REHEARSALS:
            return update(batch)
        rehearsal = self.backend.rehearse(lambda: update(batch))
        self._launching = min(self._launching, rehearsal.launching)
        self._whole = min(self._whole, rehearsal.whole)
        if rehearsal.obstacle:
            self._give_up(rehearsal.obstacle)
        elif self._steps == first + REHEARSALS and (
            self.always or self._whole <= LAUNCH_BOUND * self._launching
        ):
            self._capture(update, optimizer, batch)
        return rehearsal.totals

    def _capture(self, update: Update, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        inputs = batch[0].clone(), batch[1].clone()
        try:
            self._replay = self.backend.capture(lambda: update(inputs))
            self._inputs = inputs
        except RuntimeError as error:  # out of memory is one, too
            self._give_up(next(iter(str(error).splitlines()), type(error).__name__))
        optimizer.zero_grad(set_to_none=True)  # gradients are in the graph's memory: its own affair

    def _give_up(self, reason: str) -> None:
        """An obstacle is the model's: it would be there at every batch size."""
        self._given_up = True
        if self.always:
            allowed = f"a step of this model cannot be captured ({reason}); use engine.graphs=auto"
            raise ConfigError("engine.graphs", "true", allowed)
        warnings.warn(f"training without CUDA graphs: {reason}", stacklevel=2)


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


class Cuda:
    """Rehearsal and capture on a stream of their own, as PyTorch's notes on CUDA graphs ask.

    What libraries set up for a stream is set up by the rehearsal: cuBLAS has one workspace a handle
    and stream, of the size that CUBLAS_WORKSPACE_CONFIG says, and cuDNN has chosen its algorithms.
    So a graph holds the kernels of the steps before it, deterministic where they are.
    """

    def __init__(self) -> None:
        self._stream: Any = None  # made when it is first needed

    def rehearse(self, step: Step) -> Rehearsal:
        """See Backend. A step that draws on the CPU would replay the same numbers for ever."""
        drawn = _cpu_draws()
        with self._aside():
            torch.cuda.synchronize()
            began = time.perf_counter()
            with _noting_waits() as waits:
                totals = step()
            launching = time.perf_counter() - began
            torch.cuda.synchronize()
            whole = time.perf_counter() - began
        obstacle = "its step waits for the GPU" if waits else ""
        if _cpu_draws() != drawn:
            obstacle = "its step draws random numbers on the CPU"
        return Rehearsal(totals, launching, whole, obstacle)

    def capture(self, step: Step) -> Step:
        """See Backend. Each graph has a memory pool of its own.

        The one before has been released, and torch.cuda.graph gives back what else is unused before
        it begins: so the largest stage bounds the memory. (A pool that outlives its graphs would
        keep each stage's segments, and its handle cannot be used again once its last graph is
        gone.)
        """
        graph = torch.cuda.CUDAGraph()
        # thread_local: a DataLoader's thread that pins memory may go on meanwhile.
        with (
            self._aside(),
            torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            totals = step()

        def replay() -> Tensor:
            graph.replay()
            return totals

        return replay

    def release(self) -> None:
        """See Backend. The pool of a dropped graph is unused, and yet nobody else's until then."""
        torch.cuda.empty_cache()

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Work on the stream of capture, in order with the present one; back on it even if not."""
        self._stream = self._stream or torch.cuda.Stream()
        present = torch.cuda.current_stream()
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            yield
        present.wait_stream(self._stream)


@contextmanager
def _noting_waits() -> Iterator[list[str]]:
    """Note where a step waits for the GPU, which a capture would fail on, beyond repair at times.

    Yields:
        A list, which holds PyTorch's words for each such place afterwards.
    """
    found: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
    texts = [str(one.message) for one in heard]
    found += [text for text in texts if "called a synchronizing" in text]


def _cpu_draws() -> tuple[bytes, object]:
    """The state of the generators on the CPU that a model may draw from."""
    return torch.get_rng_state().numpy().tobytes(), random.getstate()
