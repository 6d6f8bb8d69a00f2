"""A sweep on this machine: each run is a process, and the runs share cores or GPUs.

The processes are forks of one server that has imported PyTorch already (multiprocessing's
forkserver). So a run starts in a fraction of a second, and a run that is killed ends no other run.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Annotated

from igo.ground.cores import allowed_cores
from igo.ground.errors import UserError
from igo.runs.stopping import handled
from igo.sweep.jobs import Job, execute, logged, wait_for_others
from igo.sweep.launch import COUNT, COUNT_OR_NONE, Sweep, check_settings
from igo.sweep.overview import Overview

IMPORTED = ("igo.runs.assemble", "igo.runs.session", "igo.runs.loggers.wandb", "wandb")
LONGEST_TMPDIR = 70  # bytes: a socket's path has at most 107, and forkserver adds its name
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_EVERY = 0.5  # seconds between two readings of the running runs' records


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
    """Room for one run: its number of CPU threads, and its GPU (None: by the run's settings)."""

    threads: int
    gpu: str | None = None


@dataclass
class Running:
    """A run in its process, and the number of stop signals sent to it."""

    job: Job
    slot: Slot
    process: ForkServerProcess
    signals: int = 0


def run_all(sweep: Sweep, settings: LocalSettings) -> bool:
    """Run every job, as many at a time as there is room for; a job that fails stops no other.

    Raises:
        SystemExit: a signal stopped the sweep and its runs, which can be continued.
    """
    sweep.manifest.write(sweep.runs_dir)
    context = _server(sweep.jobs)
    free, waiting, running = slots(settings, sweep.jobs), list(sweep.jobs), list[Running]()
    arrived: list[int] = []  # signals
    overview = Overview(sweep, parallel=len(free))
    with handled(STOPS, lambda number, _frame: arrived.append(number)), overview.bars:
        while running or (waiting and not arrived):
            while free and waiting and not arrived:
                running.append(_start(context, waiting.pop(0), free.pop()))
                overview.started(running[-1].job)
            wait([run.process.sentinel for run in running], timeout=LOOK_EVERY)
            for run in [run for run in running if run.process.exitcode is not None]:
                running.remove(run)
                free.append(run.slot)
                overview.ended(run.job, _how_killed(run))
            _forward(len(arrived), running)
            overview.look()
    if arrived:
        sweep.console.print("stopped; the same command continues", markup=False)
        raise SystemExit(128 + arrived[0])
    return True


def slots(settings: LocalSettings, jobs: Sequence[Job]) -> list[Slot]:
    """The slots of this machine. Default: a run for each GPU, or cores / threads runs on a CPU."""
    gpus = _gpus() if any(job.config.engine.device != "cpu" for job in jobs) else []
    if gpus:
        shared = [Slot(settings.threads, gpu) for gpu in gpus * settings.runs_per_gpu]
        return shared[: settings.parallel or len(shared)]
    count = settings.parallel or max(1, allowed_cores() // settings.threads)
    return [Slot(settings.threads)] * count


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and torch.cuda.is_available():  # "-1" and the like hide all GPUs
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]


def _server(jobs: Sequence[Job]) -> ForkServerContext:
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > LONGEST_TMPDIR:
        raise UserError(f"TMPDIR={folder} is too long a path for a socket in it; set a shorter one")
    context = multiprocessing.get_context("forkserver")
    data = ["sklearn.datasets"] if any(job.config.dataset.name == "digits" for job in jobs) else []
    models = ["timm"] if any(job.config.model.timm for job in jobs) else []
    context.set_forkserver_preload([*IMPORTED, *data, *models])
    _start_server_without_signals()
    return context


def _start_server_without_signals() -> None:
    """Start the server with STOPS blocked, as they would end it before its runs.

    Supervisors send these signals to the whole process group. `_work` unblocks them for its run.
    """
    resource_tracker.ensure_running()  # first: forkserver starts it, and it unblocks signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start(context: ForkServerContext, job: Job, slot: Slot) -> Running:
    process = context.Process(target=_work, args=(job, slot))
    process.start()
    return Running(job, slot, process)


def _work(job: Job, slot: Slot) -> None:
    """Train a run in this process. The output goes to the run's folder; only its GPU is visible."""
    os.setpgrp()  # so that Ctrl-C reaches only the sweep, which sends each run one signal
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    os.environ["OMP_NUM_THREADS"] = str(slot.threads)  # the most that engine.threads=auto takes
    if slot.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    wait_for_others(job)
    with logged(job):
        execute(job)


def _how_killed(run: Running) -> str:
    """How a process was killed; empty if it was not: then the run's record says how it ended."""
    code = run.process.exitcode or 0
    if code >= 0:
        return ""
    name = signal.Signals(-code).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _forward(signals: int, running: Sequence[Running]) -> None:
    """Send each run as many stop signals as the sweep got, at most two."""
    for run in running:
        if run.signals < min(signals, 2):
            run.signals += 1
            run.process.terminate()
