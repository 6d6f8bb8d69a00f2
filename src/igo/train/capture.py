"""What CUDA graphs need of a device: to do a step as it will be captured, and to capture it."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Rehearsal:
    """A step of training; ``obstacle`` says why one like it cannot be captured, if it cannot."""

    totals: Tensor
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
        """Give back the memory of graphs that have been dropped."""
        ...

    def random_state(self) -> Tensor:
        """Of the generator that a step on the device draws from."""
        ...

    def set_random_state(self, state: Tensor) -> None:
        """Go back to it."""
        ...


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
        with self._aside(), _noting_waits() as waits:
            totals = step()
        obstacle = "its step waits for the GPU" if waits else ""
        if _cpu_draws() != drawn:
            obstacle = "its step draws random numbers on the CPU"
        return Rehearsal(totals, obstacle)

    def capture(self, step: Step) -> Step:
        """See Backend. Each graph has a memory pool of its own.

        Those of the stage before have been released, and torch.cuda.graph gives back what else is
        unused before it begins: so the largest stage bounds the memory. (A pool that outlives its
        graphs would keep each stage's segments, and its handle cannot be used again once its last
        graph is gone.) A capture that fails can leave the generator in capture, in which nobody can
        draw from it (PyTorch up to 2.11): so it gets a fresh state of the same numbers.
        """
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        fresh = generator.clone_state()
        try:
            # thread_local: a DataLoader's thread that pins memory may go on meanwhile.
            with (
                self._aside(),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                totals = step()
        except BaseException:
            generator.graphsafe_set_state(fresh)
            raise

        def replay() -> Tensor:
            graph.replay()
            return totals

        return replay

    def release(self) -> None:
        """See Backend. The pool of a dropped graph is unused, and yet nobody else's until then."""
        torch.cuda.empty_cache()

    def random_state(self) -> Tensor:
        """See Backend."""
        return torch.cuda.get_rng_state()

    def set_random_state(self, state: Tensor) -> None:
        """See Backend."""
        torch.cuda.set_rng_state(state)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Work on the stream of capture, in order with the present one; back on it even if not."""
        self._stream = self._stream or torch.cuda.Stream()
        present = torch.cuda.current_stream()
        self._stream.wait_stream(present)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
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
