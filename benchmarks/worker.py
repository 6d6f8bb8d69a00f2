"""The process of a contender, which trains only in its turns.

Each contender has a process, so that its global settings (determinism, threads, caches) do not
change those of another. Between turns it waits for its pipe and uses no processor.
"""

import importlib
import multiprocessing
import os
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.networks import accuracy
from benchmarks.task import synchronise

WAKE_SECONDS = 0.05


@dataclass(frozen=True)
class Turn:
    """The images, updates and seconds of a turn."""

    images: int
    updates: int
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

    def end(self, images: int, updates: int, seconds: float | None = None) -> None:
        """See Turns."""
        synchronise()
        spent = time.perf_counter() - self._started
        self._connection.send(Turn(images, updates, seconds or spent))


def wake() -> None:
    """Use the processor's cores and PyTorch's threads for a moment, before every turn.

    Otherwise a contender that computes something before its turn would start warmer than others.
    """
    square, until = torch.ones(256, 256), time.perf_counter() + WAKE_SECONDS
    while time.perf_counter() < until:
        square @ square


def serve(name: str, connection: Connection) -> None:
    """Train task after task with the contender of this name, until None comes.

    After the last training the accuracy on the test set is sent.
    """
    # The progress bar lives as in a terminal; its characters go nowhere.
    os.environ.update(TTY_COMPATIBLE="1", TERM="xterm", COLUMNS="160")
    # DataLoader workers start as in a script; the start method of this process is spawn.
    multiprocessing.set_start_method(None, force=True)
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        contender = importlib.import_module(f"benchmarks.{name}")
        for task, trainings in iter(connection.recv, None):
            for _ in range(trainings):
                network = contender.train(task, PipedTurns(connection))
            inputs, targets = task.tensors("test_")
            inputs = inputs if task.is_text else task.normalised(inputs)
            connection.send(accuracy(network, inputs, targets))
    except BaseException:
        traceback.print_exc()
        raise
