"""A sweep as SLURM job arrays, which submitit submits.

A job that is preempted or runs out of time is queued again. It then continues its run after the
last complete epoch, bit for bit.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from typing import Annotated, Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import Checkpointable

from igo.ground.errors import UserError, counted, first_line
from igo.ground.files import alone, write_atomically
from igo.ground.numbers import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, Count
from igo.ground.ranks import Ranks
from igo.runs.stopping import Stopped, handled, stop
from igo.sweep.jobs import Job, execute
from igo.sweep.launch import SLURM_JOB, Sweep


@dataclass
class Slurm:
    """The settings of conf/hydra/launcher/slurm.yaml, which explains them, that igo checks.

    The others, such as the partition, go to submitit as they are.
    """

    time: Count = 1440
    mem_gb: Annotated[float | None, POSITIVE] = None
    cpus_per_task: Count = 4
    gpus_per_node: Annotated[int | None, NOT_NEGATIVE] = None
    nodes: Count = 1
    tasks_per_node: Count = 1
    runs_per_job: Count = 1
    array_parallelism: Annotated[int | None, AT_LEAST_ONE] = None
    array_size: Count = 1000
    max_num_timeout: Annotated[int, NOT_NEGATIVE] = 10
    setup: list[str] = field(default_factory=list)
    additional: dict[str, Any] | None = None


def check() -> None:
    """Raise a UserError if SLURM is missing."""
    for program in ("sbatch", "srun", "squeue"):
        if shutil.which(program) is None:
            raise UserError(
                f"hydra/launcher=slurm needs SLURM, and there is no {program} on this machine;"
                " start it on a login node, or use hydra/launcher=local"
            )


def submit(sweep: Sweep, settings: Slurm, more_options: Mapping[Any, Any]) -> None:
    """Submit the sweep's runs to SLURM; ``more_options`` go to submitit as they are."""
    per_job, array_size = settings.runs_per_job, settings.array_size
    works = [
        Work(sweep.jobs[start : start + per_job], settings.cpus_per_task)
        for start in range(0, len(sweep.jobs), per_job)
    ]
    array_ids = []
    # Clusters limit the jobs of one array.
    for start in range(0, len(works), array_size):
        array = works[start : start + array_size]
        ids = _submit_array(sweep, settings, more_options, array)
        for work, job_id in zip(array, ids, strict=True):
            for job in work.jobs:
                with job.folder.writing(), alone(job.folder.path):
                    write_atomically(job.folder.path / SLURM_JOB, job_id)
                sweep.in_slurm.add(job.name)
        # squeue and scancel take a whole array by the number before the `_`.
        array_ids.append(ids[0].split("_")[0])
    for line in (
        f"submitted {counted(len(sweep.jobs), 'run')} in {counted(len(works), 'SLURM job')}",
        f"state   {sweep.same_command} prints what runs, what failed and why, and the results",
        f"queue   squeue -j {','.join(array_ids)}",
        f"logs    output.log in each run's folder; SLURM's own in {sweep.folder / 'slurm'}",
        f"cancel  scancel {' '.join(array_ids)}",
    ):
        sweep.console.print(line)


def _submit_array(
    sweep: Sweep, settings: Slurm, more_options: Mapping[Any, Any], array: Sequence[Work]
) -> list[str]:
    """Submit a job array; return the ids of its jobs.

    If this process is itself in a SLURM job, the variables of that job leave its environment.

    Raises:
        UserError: submitit or SLURM refuses an option.
    """
    on_gpu = any(job.config.engine.device != "cpu" for work in array for job in work.jobs)
    gpus = int(on_gpu) if settings.gpus_per_node is None else settings.gpus_per_node
    # With requeue, SLURM queues a preempted job again by itself.
    additional = {"requeue": True, **(settings.additional or {})}
    options = {
        "job_name": sweep.name,
        "time": settings.time,
        "nodes": settings.nodes,
        "ntasks_per_node": settings.tasks_per_node,
        "cpus_per_task": settings.cpus_per_task,
        "gpus_per_node": gpus or None,
        "mem": settings.mem_gb and f"{round(1024 * settings.mem_gb)}M",
        "array_parallelism": settings.array_parallelism or settings.array_size,
        "setup": settings.setup,
        "stderr_to_stdout": True,
        # Since SLURM 22.05 srun ignores the CPUs of its job, and would give a task one CPU.
        "srun_args": [f"--cpus-per-task={settings.cpus_per_task}"],
        # `requeue: false`, or null, takes that option out.
        "additional_parameters": {
            name: value
            for name, value in additional.items()
            if value is not None and value is not False
        },
        **more_options,
    }
    if "SLURM_JOB_ID" in os.environ:
        # The command was typed within a job, whose settings the new ones would inherit.
        for name in [*os.environ]:
            if name.startswith(("SLURM_", "SRUN_")) and name != "SLURM_CONF":
                del os.environ[name]
    try:
        executor = SlurmExecutor(sweep.folder / "slurm", max_num_timeout=settings.max_num_timeout)
        executor.update_parameters(**options)
        with redirect_stderr(io.StringIO()):  # The error has the same text.
            return [job.job_id for job in executor.submit_array(array)]
    except (AssertionError, TypeError, ValueError, FailedJobError, FailedSubmissionError) as error:
        cure = "; engine=cpu asks for no GPU" if "(gres)" in str(error) and on_gpu else ""
        raise UserError(f"hydra.launcher: submitit says: {first_line(error)}{cure}") from None


@dataclass(frozen=True)
class Work(Checkpointable):
    """The work of one SLURM job: its runs, one after another, except finished ones.

    When submitit queues it again, it is the same: each run's folder has the run's progress.
    """

    jobs: Sequence[Job]
    threads: int

    def __call__(self) -> None:
        """Train every run; a run that fails stops no other, but the job then ends with 1.

        With several processes a run that fails in one ends the job, as the other processes may be
        waiting in that run.
        """
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        ranks = Ranks.of_environment()
        has_failed = False
        for job in self.jobs:
            try:
                # SLURM's warning, USR2, may come before the run has handlers of its own.
                with handled([signal.SIGUSR2], stop):
                    execute(job, log=ranks.first)
            except Stopped as stopped:
                # SLURM sends USR2 before a time-out or a preemption. The run's record is complete
                # by now. submitit's handler, in place again, queues the job again and exits.
                if stopped.signal_name == "SIGUSR2":
                    signal.raise_signal(signal.SIGUSR2)
                raise
            except SystemExit:
                has_failed = True
                if ranks.size > 1:
                    break
        if has_failed:
            raise SystemExit(1)
