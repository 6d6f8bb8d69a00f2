"""The number of CPU threads of a run: tried when it begins, kept when it continues.

PyTorch's threads wait for each other by spinning. All of them together are faster than one on a
free machine, and several times slower beside another busy program.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from igo.noise.measure import untouched
from igo.train import engine
from igo.train.record import Progress, Training

SECONDS = 0.2  # of the trial of a number
MOST = 32  # images of a gradient
WORTH = 1.1  # all threads are used if they are more than so many times as fast as one


def settle(run: Training, progress: Progress, say: Callable[[str], None]) -> None:
    """Set the number of threads of ``engine.threads=auto``, and note it in ``progress``.

    A run that continues keeps its number, as another number changes rounding. With several
    processes or a GPU, the number stays as engine.build has set it.
    """
    if run.engine.device.type != "cpu" or run.engine.ranks.size > 1:
        return
    if run.config.engine.threads == "auto":
        most, before = engine.allowed_threads(), progress.threads
        if before is not None:
            torch.set_num_threads(min(before, most))
            if before > most:
                say(f"threads: {most} of {before} before: results differ by rounding")
        elif torch.get_num_threads() > 1:
            single, shared = images_per_second(run, 1), images_per_second(run, most)
            chosen = most if shared > WORTH * single else 1
            torch.set_num_threads(chosen)
            say(
                f"threads: {chosen} of {most} (in a trial, 1 made {single:,.0f} images/s,"
                f" {most} made {shared:,.0f}; engine.threads=N sets a number)"
            )
    progress.threads = torch.get_num_threads()


def images_per_second(run: Training, number: int) -> float:
    """The speed of gradients of random images with so many threads."""
    dataset, size = run.config.dataset, min(MOST, max(1, round(run.plan.rows[0].b_m)))
    eager = replace(run.engine, compiled=None)  # compiling takes longer than the trial
    torch.set_num_threads(number)
    with untouched(run.network):
        images = torch.rand(size, dataset.channels, dataset.image_size, dataset.image_size)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.zeros(size, dtype=torch.int64)
        eager.backward(run.network, images, labels)  # prepares kernels
        steps, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < SECONDS or not steps:
            eager.backward(run.network, images, labels)
            steps += 1
    return size * steps / spent
