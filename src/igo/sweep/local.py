"""A sweep on this machine: each run is a process, and the runs share cores or GPUs.

The processes are forks of one server that has imported all that runs need (multiprocessing's
forkserver). So a run starts in a fraction of a second, and a run that is killed ends no other run.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from igo.config.schema import total_epochs
from igo.ground.cores import allowed_cores
from igo.runs.folder import last_record, read_status, state_of
from igo.runs.stopping import handled
from igo.sweep.jobs import Job, execute, labels, log_output
from igo.sweep.launch import Sweep
from igo.sweep.manifest import why

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_EVERY = 1.0  # seconds between two readings of the runs' records


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


def run_all(sweep: Sweep, *, parallel: int | None, threads: int, runs_per_gpu: int) -> bool:
    """Run every job, as many at a time as there is room for; a job that fails stops no other.

    The arguments after the sweep are those of conf/hydra/launcher/local.yaml.

    Raises:
        SystemExit: a signal stopped the sweep and its runs, which can be continued.
    """
    sweep.manifest.write(sweep.runs_dir)
    context = _server(sweep.jobs)
    free = slots(sweep.jobs, parallel, threads, runs_per_gpu)
    waiting, running, label_of = list(sweep.jobs), list[Running](), labels(sweep.jobs)
    arrived: list[int] = []  # signals
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"),
        TimeElapsedColumn(), TimeRemainingColumn(), console=sweep.console, transient=True,
        disable=not sweep.console.is_terminal, speed_estimate_period=3600,
    )  # fmt: skip
    total = bar.add_task("", total=sum(total_epochs(job.config) for job in sweep.jobs))
    with handled(STOPS, lambda number, _frame: arrived.append(number)), bar:
        while running or (waiting and not arrived):
            while free and waiting and not arrived:
                job, slot = waiting.pop(0), free.pop()
                process = context.Process(target=_work, args=(job, slot))
                process.start()
                running.append(Running(job, slot, process))
                sweep.console.print(f"started {label_of[job.name]}")
            wait([run.process.sentinel for run in running], timeout=LOOK_EVERY)
            for run in [run for run in running if run.process.exitcode is not None]:
                running.remove(run)
                free.append(run.slot)
                place = f"[{len(sweep.jobs) - len(waiting) - len(running)}/{len(sweep.jobs)}]"
                code = run.process.exitcode or 0
                _print_end(sweep, run.job, code, place, label_of[run.job.name])
            for run in running:
                if run.signals < min(len(arrived), 2):  # as many as the sweep got, at most two
                    run.signals += 1
                    run.process.terminate()
            done = sum(last_record(job.folder.path).get("epoch", 0) for job in sweep.jobs)
            bar.update(total, completed=done, description=f"{len(running)} running")
    if arrived:
        sweep.console.print("stopped; the same command continues")
        raise SystemExit(128 + arrived[0])
    return True


def slots(jobs: Sequence[Job], parallel: int | None, threads: int, runs_per_gpu: int) -> list[Slot]:
    """The slots of this machine. Default: a run for each GPU, or cores / threads runs on a CPU."""
    gpus = _gpus() if any(job.config.engine.device != "cpu" for job in jobs) else []
    if gpus:
        shared = [Slot(threads, gpu) for gpu in gpus * runs_per_gpu]
        return shared[: parallel or len(shared)]
    return [Slot(threads)] * (parallel or max(1, allowed_cores() // threads))


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and torch.cuda.is_available():  # "-1" and the like hide all GPUs
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]


def _server(jobs: Sequence[Job]) -> ForkServerContext:
    """Start the server with STOPS blocked, as they would end it before its runs.

    Supervisors send these signals to the whole process group. ``_work`` unblocks them for its run.
    """
    context = multiprocessing.get_context("forkserver")
    data = ["sklearn.datasets"] if any(job.config.dataset.name == "digits" for job in jobs) else []
    models = ["timm"] if any(job.config.model.timm for job in jobs) else []
    context.set_forkserver_preload(["igo.sweep.server", "wandb", *data, *models])
    resource_tracker.ensure_running()  # first: forkserver starts it, and it unblocks signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return context


def _work(job: Job, slot: Slot) -> None:
    """Train a run in this process. The output goes to the run's folder; only its GPU is visible."""
    os.setpgrp()  # so that Ctrl-C reaches only the sweep, which sends each run one signal
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    os.environ["OMP_NUM_THREADS"] = str(slot.threads)  # the most that engine.threads=auto takes
    if slot.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    while state_of(job.folder.path) == "running":  # in a process that a killed sweep has left
        time.sleep(1)
    log_output(job)
    execute(job)


def _print_end(sweep: Sweep, job: Job, exit_code: int, place: str, label: str) -> None:
    """Print how a run ended; a negative exit code is the signal that killed its process."""
    folder = job.folder.path
    state, record = state_of(folder), last_record(folder)
    if state == "finished":
        part = "validation" if "validation/accuracy" in record else "test"
        seconds = read_status(folder).get("seconds", 0)
        outcome = f"{part} accuracy {record[f'{part}/accuracy']:.2%} ({seconds:.0f} s)"
    elif exit_code < 0:
        memory = " (out of memory?)" if exit_code == -signal.SIGKILL else ""
        outcome = f"killed by {signal.Signals(-exit_code).name}{memory} ({folder})"
    else:
        outcome = f"{why(folder)} ({folder})"
    sweep.console.print(f"{place} {state} {label}: {outcome}")
