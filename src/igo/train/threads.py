"""The number of CPU threads of a run: timed when it begins, kept when it continues.

PyTorch's threads wait for each other by spinning. All of them together are faster than one on a
free machine, and several times slower beside another busy program.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from igo.ground.files import Record
from igo.noise.measure import untouched
from igo.train import engine
from igo.train.state import Progress, Training

SECONDS = 0.4  # of the trial, besides a few steps to warm up
LONG = 0.05  # seconds of one gradient; the trial needs no more images than that takes
WORTH = 1.1  # all threads are used if they are more than so many times as fast as one
SLOW = 3.0  # the user is warned if a run becomes so many times slower
LEAST = 10.0  # seconds of an epoch; the speed of shorter epochs varies by chance


def settle(run: Training, progress: Progress, say: Callable[[str], None]) -> None:
    """Set the number of threads of ``engine.threads=auto``, and note it in ``progress``.

    A run that continues keeps its number, as another number changes rounding. With several
    processes or a GPU, the number stays as engine.build has set it.

    Args:
        run: with its model, which is not changed.
        progress: of a run that continues, or new.
        say: called with the number and the reason, if there was a choice.
    """
    if run.engine.device.type != "cpu" or run.engine.ranks.size > 1:
        return
    if run.config.engine.threads == "auto":
        most = engine.allowed_threads()
        before = progress.threads
        if before is not None:
            torch.set_num_threads(min(before, most))
            if before > most:
                say(
                    f"threads: {most} are allowed here, {before} before: results differ by rounding"
                )
        elif torch.get_num_threads() > 1:
            _choose(run, most, say)
    progress.threads = torch.get_num_threads()


def _choose(run: Training, most: int, say: Callable[[str], None]) -> None:
    single, shared = images_per_second(run, [1, most])
    chosen = most if shared > WORTH * single else 1
    torch.set_num_threads(chosen)
    say(
        f"threads: {chosen} of {most} (in a trial, 1 made {single:,.0f} images/s,"
        f" {most} made {shared:,.0f}; engine.threads=N sets a number)"
    )


def images_per_second(run: Training, numbers: list[int]) -> list[float]:
    """The speed of gradients of random images, with each number of threads in turn."""
    with untouched(run.network):
        torch.set_num_threads(1)
        size = _size(run)
        until = time.perf_counter() + SECONDS
        rounds = [_round(run, size, numbers)]
        if time.perf_counter() < until:
            rounds = []  # the first round prepared kernels too
        while not rounds or time.perf_counter() < until:
            rounds.append(_round(run, size, numbers))
    return [size * len(rounds) / sum(seconds) for seconds in zip(*rounds, strict=True)]


def _round(run: Training, size: int, numbers: list[int]) -> list[float]:
    seconds = []
    for number in numbers:
        torch.set_num_threads(number)
        seconds.append(_gradient_seconds(run, size))
    return seconds


def _size(run: Training) -> int:
    """Images of the trial: a first batch, or as many as take one thread LONG."""
    largest = max(1, round(run.plan.stages[0].b_m))
    size = min(4, largest)
    _gradient_seconds(run, size)
    while size < largest and _gradient_seconds(run, size) < LONG:
        size = min(2 * size, largest)
    return size


def _gradient_seconds(run: Training, size: int) -> float:
    dataset = run.config.dataset
    images = torch.rand(size, dataset.channels, dataset.image_size, dataset.image_size)
    images = images.contiguous(memory_format=torch.channels_last)
    started = time.perf_counter()
    eager = replace(run.engine, compiled=None)  # compiling takes longer than the trial
    eager.backward(run.network, images, torch.zeros(size, dtype=torch.int64))
    return time.perf_counter() - started


class Pace:
    """Notices, once, that a run has become several times slower."""

    def __init__(self) -> None:
        self._best = self._batch_size = 0.0
        self._silent = False

    def slower(self, record: Record) -> str | None:
        """The warning after an epoch; None if there is none."""
        rate, batch_size = float(record["images_per_second"]), float(record["b_m"])
        if batch_size < self._batch_size:  # smaller batches are slower anyway
            self._best = 0.0
        self._batch_size, self._best = batch_size, max(self._best, rate)
        if self._silent or record["seconds"] < LEAST or SLOW * rate > self._best:
            return None
        self._silent = True
        message = (
            f"epoch {record['epoch']} trained {rate:,.0f} images/s, an earlier one"
            f" {self._best:,.0f}: other programs may be using this machine"
        )
        threads = torch.get_num_threads()
        cure = f"; one thread suffers less than {threads}: stop, and continue with engine.threads=1"
        return message + (cure if threads > 1 else "")
