"""A sweep as SLURM job arrays, which submitit submits.

A job that is preempted or runs out of time is queued again. It then continues its run after the
last complete epoch, bit for bit.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from igo.config.schema import Config
from igo.ground.errors import ConfigError, UserError
from igo.ground.ranks import Ranks
from igo.ground.words import counted
from igo.method.ranges import Rule
from igo.runs.stopping import Stopped
from igo.sweep.jobs import Job, execute, logged
from igo.sweep.launch import COUNT, COUNT_OR_NONE, Sweep, check_settings, is_whole
from igo.sweep.state import one_line

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

PROGRAMS = ("sbatch", "srun", "squeue", "scontrol")


def _is_lines(value: Any) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return is_list and all(isinstance(line, str) for line in value)


Count = Annotated[int, COUNT]
NotNegative = Annotated[int, (lambda v: is_whole(v, 0), "it must be a whole number, 0 or more")]
Name = Annotated[
    str | int | None, (lambda v: v is None or isinstance(v, (str, int)), "it must be a name")
]
NONE_OR_NOT_NEGATIVE: Rule = (
    lambda v: v is None or is_whole(v, 0),
    "it must be a whole number, 0 or more, or null",
)
GIB: Rule = (
    lambda v: v is None or is_whole(v, 1) or (isinstance(v, float) and v > 0),
    "it must be a number above 0",
)
LINES: Rule = (_is_lines, "it must be a list of lines, such as ['module load cuda']")
OPTIONS: Rule = (
    lambda v: v is None or isinstance(v, Mapping),
    "it must be options of sbatch with their values, such as {exclude: node7}",
)
NAMES = ("partition", "account", "qos", "constraint")
FOR_GPUS = ("cifar10", "cifar100", "imagenet")  # data sets whose runs take days on a CPU


@dataclass(frozen=True)
class SlurmSettings:
    """conf/hydra/launcher/slurm.yaml."""

    partition: Name = None
    account: Name = None
    qos: Name = None
    constraint: Name = None
    time: Count = 240
    mem_gb: Annotated[float | None, GIB] = None
    cpus_per_task: Count = 4
    gpus_per_node: Annotated[int | None, NONE_OR_NOT_NEGATIVE] = None
    nodes: Count = 1
    tasks_per_node: Count = 1
    runs_per_job: Count = 1
    array_parallelism: Annotated[int | None, COUNT_OR_NONE] = None
    array_size: Count = 1000
    max_num_timeout: NotNegative = 10
    setup: Annotated[Sequence[str], LINES] = ()
    additional: Annotated[Mapping[str, Any] | None, OPTIONS] = None

    def __post_init__(self) -> None:
        check_settings(self)

    def parameters(self, name: str) -> dict[str, Any]:
        """The parameters for submitit. None means: not set."""
        named = {f"slurm_{option}": getattr(self, option) for option in NAMES}
        # Since SLURM 22.05 srun ignores the CPUs of its job, and would give a task one CPU.
        srun = [f"--cpus-per-task={self.cpus_per_task}"]
        additional = {"requeue": True, **(self.additional or {})}
        return named | {
            "name": name,
            "timeout_min": self.time,
            "mem_gb": self.mem_gb,
            "cpus_per_task": self.cpus_per_task,
            "gpus_per_node": self.gpus_per_node or None,
            "nodes": self.nodes,
            "tasks_per_node": self.tasks_per_node,
            "stderr_to_stdout": True,
            "slurm_array_parallelism": self.array_parallelism or self.array_size,
            "slurm_setup": list(self.setup),
            "slurm_srun_args": srun,
            "slurm_additional_parameters": {
                option: value for option, value in additional.items() if value not in (None, False)
            },
        }


@dataclass(frozen=True)
class Work:
    """The work of one SLURM job: its runs, one after another, except finished ones."""

    jobs: Sequence[Job]
    threads: int

    def __call__(self) -> None:
        """Train every run; a run that fails stops no other, but the job then ends with 1."""
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        for job in self.jobs:
            if not isinstance(job.config.engine.threads, int):  # the job's cores are its own
                job.config.engine.threads = self.threads
        finished = [_finishes(job) for job in self.jobs]
        if not all(finished):
            raise SystemExit(1)

    def checkpoint(self) -> DelayedSubmission:
        """The work that submitit queues again: the same, as a run's folder has its progress."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _finishes(job: Job) -> bool:
    """Train a run, with rank 0's output in its folder; return whether it finished.

    Raises:
        SystemExit: a signal stopped the job.
    """
    try:
        with logged(job) if Ranks.of_environment().first else nullcontext():
            execute(job)
    except Stopped as stop:
        # SLURM sends USR2 before a time-out or a preemption. The run's record is complete by now.
        # submitit's handler, which is in place again, queues the job again and exits.
        if stop.signal_name == "SIGUSR2":
            signal.raise_signal(signal.SIGUSR2)
        raise
    except SystemExit:
        return False
    except Exception:
        traceback.print_exc()
        return False
    return True


def check_slurm() -> None:
    """Raise a UserError if a command of SLURM is missing."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"hydra/launcher=slurm needs SLURM, and there is no {missing[0]} on this machine; start"
            " it on a login node, or use hydra/launcher=local"
        )


def submit(sweep: Sweep, settings: SlurmSettings) -> bool:
    """Submit the sweep's runs to SLURM. Returns False, as the runs have not ended."""
    settings = with_gpus(settings, [job.config for job in sweep.jobs])
    per_job = settings.runs_per_job
    works = [
        Work(sweep.jobs[first : first + per_job], settings.cpus_per_task)
        for first in range(0, len(sweep.jobs), per_job)
    ]
    submitted = []
    for first in range(0, len(works), settings.array_size):
        array = works[first : first + settings.array_size]
        ids = _submit_array(sweep, settings, array)
        for work, job_id in zip(array, ids, strict=True):
            sweep.manifest.queue |= {job.name: job_id for job in work.jobs}
        sweep.manifest.write(sweep.runs_dir)
        submitted.append(ids[0].split("_")[0])
    _print_submitted(sweep, len(works), submitted)
    return False


def with_gpus(settings: SlurmSettings, configs: Sequence[Config]) -> SlurmSettings:
    """Ask for a GPU where a run needs one, unless the launcher says how many.

    Raises:
        ConfigError: such a run would get none.
    """
    need = [c for c in configs if c.dataset.name in FOR_GPUS and c.engine.device != "cpu"]
    if settings.gpus_per_node is None:
        return replace(settings, gpus_per_node=int(bool(need)))
    if need and settings.gpus_per_node == 0:
        allowed = f"a run on {need[0].dataset.name} needs a GPU: use 1, or type engine=cpu"
        raise ConfigError("hydra.launcher.gpus_per_node", 0, allowed)
    return settings


def _submit_array(sweep: Sweep, settings: SlurmSettings, array: Sequence[Work]) -> list[str]:
    """Submit a job array; return the ids of its jobs."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = submitit.AutoExecutor(
        sweep.folder / "slurm", cluster="slurm", slurm_max_num_timeout=settings.max_num_timeout
    )
    executor.update_parameters(**settings.parameters(sweep.manifest.name))
    try:
        with _outside_of_jobs(), redirect_stderr(io.StringIO()):  # the error has the same text
            return [job.job_id for job in executor.submit_array(array)]
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"sbatch: {one_line(str(error))}") from None


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the variables of the SLURM job that this process is in, as on a login node."""
    hidden = {}
    if "SLURM_JOB_ID" in os.environ:
        names = [n for n in os.environ if n.startswith(("SLURM_", "SRUN_")) and n != "SLURM_CONF"]
        hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _print_submitted(sweep: Sweep, jobs: int, submitted: Sequence[str]) -> None:
    status = f"igo sweep-status name={sweep.manifest.name} runs_dir={sweep.runs_dir}"
    for line in (
        f"submitted {counted(len(sweep.jobs), 'run')} in {counted(jobs, 'SLURM job')}",
        f"status  {status}",
        f"queue   squeue -j {','.join(submitted)}",
        f"logs    output.log in each run's folder; SLURM's own in {sweep.folder / 'slurm'}",
        f"cancel  scancel {' '.join(submitted)}",
    ):
        sweep.console.print(line, markup=False)
