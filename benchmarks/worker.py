"""One process a contender, which trains only while it has its turn.

A process of its own keeps one contender's global settings (determinism, threads, caches) from
another's. Between turns it waits on its pipe and uses no processor.
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
        """Stop the clock: so many images were trained, at this mean loss.

        ``seconds`` in the place of the clock's, where the contender's own are wanted.
        """
        ...


@dataclass(frozen=True)
class Turn:
    """What one epoch took."""

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
    """Have the processor's cores and PyTorch's threads awake, for everyone alike.

    A contender that measures something of its own first would otherwise start warmer than others.
    """
    import torch

    square, until = torch.ones(256, 256), time.perf_counter() + WAKE_SECONDS
    while time.perf_counter() < until:
        square @ square


def synchronise() -> None:
    """Wait until a GPU has done what it was told."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def serve(name: str, connection: Connection) -> None:
    """Train cell after cell with the contender of that name, until None comes."""
    # A live progress bar as at a terminal, whose characters go nowhere.
    os.environ.update(TTY_COMPATIBLE="1", TERM="xterm", COLUMNS="160")
    # A DataLoader's workers start as from a script: this process was spawned, and they would be.
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
