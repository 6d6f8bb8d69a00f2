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


def run_all(sweep: Sweep, settings: Local) -> None:
    """Run every job, as many at a time as there is room for; a job that fails stops no other.

    Raises:
        SystemExit: a signal stopped the sweep and its runs, which can be continued.
    """
    context, console = _server(), sweep.console
    queue = list(sweep.jobs)
    processes: dict[ForkServerProcess, tuple[Job, str | None]] = {}
    signals: list[int] = []  # It has those that have arrived.
    passed_on = 0  # The runs have got so many of them, at most two.
    epochs = {job.name: epochs_done(job.folder.path) for job in sweep.jobs}
    bar = Progress(
        console=console, transient=True, disable=not console.is_terminal, speed_estimate_period=3600
    )
    all_epochs = sum(total_epochs(job.config) for job in sweep.jobs)
    task = bar.add_task("", total=all_epochs, completed=sum(epochs.values()))
    with handled(STOPPING, lambda number, _frame: signals.append(number)), bar:
        free = rooms(sweep.jobs, settings)
        while processes or (queue and not signals):
            while free and queue and not signals:
                job, gpu = queue.pop(0), free.pop()
                process = context.Process(target=_work, args=(job, settings.threads, gpu))
                process.start()
                processes[process] = job, gpu
                console.print(f"started {job.label}")
            wait([process.sentinel for process in processes], timeout=LOOK_EVERY)
            ended = [process for process in processes if process.exitcode is not None]
            for job, _ in processes.values():
                epochs[job.name] = epochs_done(job.folder.path)
            bar.update(task, completed=sum(epochs.values()))
            for process in ended:
                job, gpu = processes.pop(process)
                free.append(gpu)
                number = len(sweep.jobs) - len(queue) - len(processes)
                seconds = bar.tasks[task].time_remaining
                line = f"[{number}/{len(sweep.jobs)}] {_outcome(job, process.exitcode or 0)}"
                if seconds and number < len(sweep.jobs):
                    line += f"; about {timedelta(seconds=seconds)} left"
                console.print(line)
            # The first signal lets each run end its update; the second ends it at once. More say
            # nothing new.
            if passed_on < min(len(signals), 2):
                passed_on += 1
                for process in processes:
                    process.terminate()
            bar.update(task, description=f"{len(processes)} running")
    if signals:
        console.print(f"stopped; {sweep.again} continues")
        raise SystemExit(128 + signals[0])


def rooms(jobs: Sequence[Job], settings: Local) -> list[str | None]:
    """The GPU of each run that there is room for at a time; on a CPU, None for each.

    Default: a run for each GPU, or cores / threads runs on a CPU.
    """
    import torch

    if torch.cuda.is_available() and any(job.config.engine.device != "cpu" for job in jobs):
        all_gpus = ",".join(map(str, range(torch.cuda.device_count())))
        # SLURM, for one, may have given this process some of the GPUs.
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", all_gpus).split(",")
        return [*(gpus * settings.runs_per_gpu)[: settings.parallel]]
    return [None] * (settings.parallel or max(1, allowed_cores() // settings.threads))


def _server() -> ForkServerContext:
    """The context whose server starts with the first process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["igo.sweep.server", "wandb", "sklearn.datasets"])
    return context


def _work(job: Job, threads: int, gpu: str | None) -> None:
    """Train a run in this process. The output goes to the run's folder; only its GPU is visible."""
    os.setpgrp()  # Ctrl-C shall reach the sweep alone, which sends each run one signal.
    # A child of a server starts its own children by another one, which would import torch for each
    # worker that reads images. They start as in a run of its own.
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
