"""The process of a contender, which trains only in its turns.

Each contender has a process, so that its global settings (determinism, threads, caches) do not
change those of another. Between turns it waits for its pipe and uses no processor.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

WAKE_SECONDS = 0.05


class Turns(Protocol):
    """Called by a contender around every epoch."""

    def begin(self) -> None:
        """Wait for the turn; the clock starts."""
        ...

    def end(self, images: int, loss: float, seconds: float | None = None) -> None:
        """Stop the clock after so many images, trained at this mean loss.

        ``seconds`` replaces the time of the clock.
        """
        ...


@dataclass(frozen=True)
class Turn:
    """The images, the loss and the seconds of an epoch."""

    images: int
    loss: float
    seconds: float


class PipedTurns:
    """Turns given by another process."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._started = connection, 0.0

    def begin(self) -> None:
        """See Turns."""
        self._connection.send("waiting")
        self._connection.recv()
        wake()
        synchronise()
        self._started = time.perf_counter()

    def end(self, images: int, loss: float, seconds: float | None = None) -> None:
        """See Turns."""
        synchronise()
        spent = time.perf_counter() - self._started
        self._connection.send(Turn(images, loss, seconds or spent))


def wake() -> None:
    """Use the processor's cores and PyTorch's threads for a moment, before every turn.

    Otherwise a contender that computes something before its epoch would start warmer than others.
    """
    import torch

    square, until = torch.ones(256, 256), time.perf_counter() + WAKE_SECONDS
    while time.perf_counter() < until:
        square @ square


def synchronise() -> None:
    """Wait until the GPU has finished, if there is one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def serve(name: str, connection: Connection) -> None:
    """Train cell after cell with the contender of this name, until None comes."""
    # The progress bar lives as in a terminal; its characters go nowhere.
    os.environ.update(TTY_COMPATIBLE="1", TERM="xterm", COLUMNS="160")
    # DataLoader workers start as in a script; the start method of this process is spawn
    multiprocessing.set_start_method(None, force=True)
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        from benchmarks import files

        contender = importlib.import_module(f"benchmarks.{name}")
        for cell in iter(connection.recv, None):
            files.accept(Path(cell.config.data_dir))
            for _ in range(cell.trainings):
                contender.train(cell.config, PipedTurns(connection))
            connection.send("done")
    except BaseException:
        traceback.print_exc()
        raise
