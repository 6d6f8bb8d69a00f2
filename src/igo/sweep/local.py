"""A sweep on this machine: each run a process of its own, cores or GPUs shared out among them.

The processes are forks of one server that has imported PyTorch already (multiprocessing's
forkserver), so a run starts in a fraction of a second, and a run that dies takes no other with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Annotated

from igo.cores import allowed_cores
from igo.errors import UserError
from igo.runs.stopping import heard
from igo.sweep.jobs import Job, execute, logged, wait_for_others
from igo.sweep.launch import COUNT, COUNT_OR_NONE, Sweep, check_settings
from igo.sweep.overview import Overview

IMPORTED = ("igo.runs.assemble", "igo.runs.session", "igo.runs.tracking", "wandb")
LONGEST_PLACE = 70  # bytes of TMPDIR: a socket's path has at most 107, forkserver's name is in it
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK = 0.5  # seconds between two looks at what runs


@dataclass(frozen=True)
class LocalSettings:
    """conf/hydra/launcher/local.yaml."""

    parallel: Annotated[int | None, COUNT_OR_NONE] = None
    threads: Annotated[int, COUNT] = 1
    runs_per_gpu: Annotated[int, COUNT] = 1

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Slot:
    """Room for one run: its CPU threads, and the GPU that it sees (None: as its settings say)."""

    threads: int
    gpu: str | None = None


@dataclass
class Running:
    """A run in its process, and how often that was told to stop."""

    job: Job
    slot: Slot
    process: ForkServerProcess
    told: int = 0


def run_all(sweep: Sweep, settings: LocalSettings) -> bool:
    """Run every job, as many at a time as there is room for; a failing one stops no other.

    Raises:
        SystemExit: the sweep was told to stop; its runs have stopped with it, resumable.
    """
    sweep.manifest.write(sweep.runs_dir)
    context = _server(sweep.jobs)
    free, waiting, running = slots(settings, sweep.jobs), list(sweep.jobs), list[Running]()
    with _signals() as told, Overview(sweep, parallel=len(free)) as overview:
        while running or (waiting and not told):
            while free and waiting and not told:
                running.append(_start(context, waiting.pop(0), free.pop()))
                overview.started(running[-1].job)
            wait([one.process.sentinel for one in running], timeout=LOOK)
            for one in [one for one in running if one.process.exitcode is not None]:
                running.remove(one)
                free.append(one.slot)
                overview.ended(one.job, _how(one))
            if told:
                _forward(told, running)
            overview.look()
    if told:
        sweep.console.print("stopped; the same command continues", markup=False)
        raise SystemExit(128 + told[0])
    return True


def slots(settings: LocalSettings, jobs: Sequence[Job]) -> list[Slot]:
    """Room on this machine: one run a GPU, or cores / threads runs on the CPU, unless told."""
    gpus = _gpus() if any(job.config.engine.device != "cpu" for job in jobs) else []
    if gpus:
        shared = [Slot(settings.threads, gpu) for gpu in gpus * settings.runs_per_gpu]
        return shared[: settings.parallel or len(shared)]
    count = settings.parallel or max(1, allowed_cores() // settings.threads)
    return [Slot(settings.threads)] * count


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None and torch.cuda.is_available():  # "-1" and the like hide them
        return [one.strip() for one in named.split(",") if one.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]


def _server(jobs: Sequence[Job]) -> ForkServerContext:
    place = tempfile.gettempdir()
    if len(os.fsencode(place)) > LONGEST_PLACE:
        raise UserError(f"TMPDIR={place} is too long a path for a socket in it; set a shorter one")
    context = multiprocessing.get_context("forkserver")
    data = ["sklearn.datasets"] if any(job.config.dataset.name == "digits" for job in jobs) else []
    models = ["timm"] if any(job.config.model.timm for job in jobs) else []
    context.set_forkserver_preload([*IMPORTED, *data, *models])
    _start_server_deaf()
    return context


def _start_server_deaf() -> None:
    """Start the server with the signals blocked that would end it before the runs have ended.

    Supervisors send them to the whole process group. `_work` lets them through to its run.
    """
    resource_tracker.ensure_running()  # which forkserver starts too, and which unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(context: ForkServerContext, job: Job, slot: Slot) -> Running:
    process = context.Process(target=_work, args=(job, slot))
    process.start()
    return Running(job, slot, process)


def _work(job: Job, slot: Slot) -> None:
    """In the run's process: its output goes to its folder, its GPU is the only one it sees."""
    os.setpgrp()  # Ctrl-C in the terminal reaches the sweep alone, which tells its runs once
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    os.environ["OMP_NUM_THREADS"] = str(slot.threads)  # the most that engine.threads=auto takes
    if slot.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    wait_for_others(job)
    with logged(job):
        execute(job)


def _how(one: Running) -> str:
    """How a process ended, in words; empty where the run's own record says it."""
    code = one.process.exitcode or 0
    if code >= 0:
        return ""
    name = signal.Signals(-code).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of dying of them."""
    told: list[int] = []
    before = {n: signal.signal(n, lambda number, _frame: told.append(number)) for n in heard(STOPS)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _forward(told: list[int], running: Sequence[Running]) -> None:
    """Tell the runs to stop, once for each time that the sweep was told, at most twice."""
    for one in running:
        if one.told < min(len(told), 2):
            one.told += 1
            one.process.terminate()
