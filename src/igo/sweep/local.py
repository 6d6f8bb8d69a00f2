"""A sweep on this machine: each run is a process, and the runs share cores or GPUs.

The processes are forks of one server that has imported all that runs need (multiprocessing's
forkserver). So a run starts in a fraction of a second, and a run that is killed ends no other run.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Annotated

from rich.progress import Progress

from igo.config.schema import total_epochs
from igo.ground.numbers import AT_LEAST_ONE, Count
from igo.ground.ranks import allowed_cores
from igo.runs.folder import epochs_done, read_records, read_status, state_of
from igo.runs.stopping import STOPPING, handled
from igo.sweep.jobs import Job, execute
from igo.sweep.launch import Sweep, why

LOOK_EVERY = 1.0  # The records of what runs are read again after so many seconds.


@dataclass
class Local:
    """The settings of conf/hydra/launcher/local.yaml, which explains them."""

    parallel: Annotated[int | None, AT_LEAST_ONE] = None
    threads: Count = 1
    runs_per_gpu: Count = 1


class Display:
    """A bar with the epochs of all runs of a sweep, and a line for each run that ends."""

    def __init__(self, sweep: Sweep) -> None:
        self.console, self._all_runs, self._ended_runs = sweep.console, len(sweep.jobs), 0
        self._epochs = {job.name: epochs_done(job.folder.path) for job in sweep.jobs}
        self.bar = Progress(
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
            speed_estimate_period=3600,  # Seconds: the speed is that of the last hour.
        )
        all_epochs = sum(total_epochs(job.config) for job in sweep.jobs)
        self._task = self.bar.add_task("", total=all_epochs, completed=sum(self._epochs.values()))

    def update(self, running_jobs: Sequence[Job]) -> None:
        """Move the bar to the epochs that are done by now."""
        for job in running_jobs:
            self._epochs[job.name] = epochs_done(job.folder.path)
        epochs, text = sum(self._epochs.values()), f"{len(running_jobs)} running"
        self.bar.update(self._task, completed=epochs, description=text)

    def print_end(self, job: Job, exit_code: int) -> None:
        """Print how a run ended, and the time that the others need."""
        self._ended_runs += 1
        line = f"[{self._ended_runs}/{self._all_runs}] {_outcome(job, exit_code)}"
        seconds = self.bar.tasks[self._task].time_remaining
        if seconds and self._ended_runs < self._all_runs:
            line += f"; about {timedelta(seconds=seconds)} left"
        self.console.print(line)


def run_all(sweep: Sweep, settings: Local) -> None:
    """Run every job, as many at a time as there is room for; a job that fails stops no other.

    Raises:
        SystemExit: a signal stopped the sweep and its runs, which can be continued.
    """
    context, display, waiting_jobs = _server(), Display(sweep), list(sweep.jobs)
    running: dict[ForkServerProcess, tuple[Job, str | None]] = {}  # The text is the run's GPU.
    signals: list[int] = []  # These have arrived.
    signals_sent = 0  # So many of them have gone on to the runs.
    with handled(STOPPING, lambda number, _frame: signals.append(number)), display.bar:
        free_gpus = rooms(sweep.jobs, settings)
        while running or (waiting_jobs and not signals):
            while free_gpus and waiting_jobs and not signals:
                job, gpu = waiting_jobs.pop(0), free_gpus.pop()
                process = context.Process(target=_work, args=(job, settings.threads, gpu))
                process.start()
                running[process] = job, gpu
                sweep.console.print(f"started {job.label}")
            wait([process.sentinel for process in running], timeout=LOOK_EVERY)
            ended = [process for process in running if process.exitcode is not None]
            display.update([job for job, _ in running.values()])
            for process in ended:
                job, gpu = running.pop(process)
                free_gpus.append(gpu)
                display.print_end(job, process.exitcode or 0)
            # The first signal lets each run end its update, the second ends it at once, and more
            # say nothing new.
            if signals_sent < min(len(signals), 2):
                signals_sent += 1
                for process in running:
                    process.terminate()
    if signals:
        sweep.console.print(f"stopped; {sweep.same_command} continues")
        raise SystemExit(128 + signals[0])


def rooms(jobs: Sequence[Job], settings: Local) -> list[str | None]:
    """A list with one entry for each run that has room at the same time: its GPU, or None on a CPU.

    By default there is room for a run on each GPU, or for cores / threads runs on a CPU.
    """
    import torch

    if not torch.cuda.is_available() or all(job.config.engine.device == "cpu" for job in jobs):
        return [None] * (settings.parallel or max(1, allowed_cores() // settings.threads))
    gpus = [str(number) for number in range(torch.cuda.device_count())]
    # SLURM, for one, may have given this process some of the GPUs.
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    return [*(gpus * settings.runs_per_gpu)[: settings.parallel]]


def _server() -> ForkServerContext:
    """The context whose server starts with the first process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["igo.sweep.server", "wandb", "sklearn.datasets"])
    return context


def _work(job: Job, threads: int, gpu: str | None) -> None:
    """Train a run in this process. The output goes to the run's folder; only its GPU is visible."""
    os.setpgrp()  # Ctrl-C shall reach the sweep alone, which sends each run one signal.
    # This process is a child of a server. The workers of this process, which read images, would by
    # default start from a new server and import torch. They shall start as without a sweep.
    multiprocessing.set_start_method(None, force=True)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    while state_of(job.folder.path) == "running":  # A killed sweep has left its process.
        time.sleep(1)
    execute(job, log=True)


def _outcome(job: Job, exit_code: int) -> str:
    """How a run ended, in a line; a negative exit code is the signal that killed its process."""
    folder = job.folder.path
    state = state_of(folder)
    if state == "finished":
        record = read_records(folder)[-1]
        part = "validation" if "validation/accuracy" in record else "test"
        seconds = read_status(folder).get("seconds", 0)
        reason = f"{part} accuracy {record[f'{part}/accuracy']:.2%} ({seconds:.0f} s)"
    elif state == "running":
        reason = f"another process has it ({folder})"
    elif exit_code < 0:
        memory = " (out of memory?)" if exit_code == -signal.SIGKILL else ""
        reason = f"killed by {signal.Signals(-exit_code).name}{memory} ({folder})"
    else:
        reason = f"{why(folder)} ({folder})"
    return f"{state} {job.label}: {reason}"
