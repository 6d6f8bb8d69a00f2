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
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf

from igo.config.schema import Config
from igo.ground.errors import ConfigError, UserError, first_line
from igo.ground.ranks import Ranks
from igo.ground.words import counted
from igo.runs.stopping import Stopped
from igo.sweep.jobs import Job, execute, log_output
from igo.sweep.launch import Sweep, check_counts

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

PROGRAMS = ("sbatch", "srun", "squeue", "scontrol")
FOR_GPUS = ("cifar10", "cifar100", "imagenet")  # data sets whose runs take days on a CPU
MINUTES, MINUTES_FOR_GPUS = 240, 1440  # of a job, where hydra.launcher.time is null
OURS = ("runs_per_job", "array_size", "max_num_timeout")  # settings that are no options of sbatch
SHARED = ("mem_gb", "cpus_per_task", "gpus_per_node", "nodes", "tasks_per_node")

Settings = Mapping[str, Any]  # conf/hydra/launcher/slurm.yaml


def check(settings: Settings) -> None:
    """Raise a UserError if a command of SLURM is missing, or a number of ours is wrong."""
    check_counts({name: settings[name] for name in ("runs_per_job", "array_size", "cpus_per_task")})
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"hydra/launcher=slurm needs SLURM, and there is no {missing[0]} on this machine; start"
            " it on a login node, or use hydra/launcher=local"
        )


def with_needs(settings: Settings, configs: Sequence[Config]) -> dict[str, Any]:
    """The settings with a GPU and a day for runs that need these, if they do not say other values.

    Raises:
        ConfigError: such a run would get no GPU.
    """
    need = [c for c in configs if c.dataset.name in FOR_GPUS and c.engine.device != "cpu"]
    gpus, minutes = settings["gpus_per_node"], settings["time"]
    if need and gpus == 0:
        allowed = f"a run on {need[0].dataset.name} needs a GPU: use 1, or type engine=cpu"
        raise ConfigError("hydra.launcher.gpus_per_node", 0, allowed)
    if gpus is None:
        gpus = int(bool(need))
    if minutes is None:
        minutes = MINUTES_FOR_GPUS if need else MINUTES
    return {**settings, "gpus_per_node": gpus, "time": minutes}


def parameters(name: str, settings: Settings) -> dict[str, Any]:
    """The parameters of submitit's AutoExecutor. It takes options of sbatch as ``slurm_OPTION``."""
    options = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(dict(settings))))
    additional = {"requeue": True, **(options.pop("additional") or {})}
    shared = {option: options.pop(option) for option in SHARED}
    shared |= {"name": name, "timeout_min": options.pop("time"), "stderr_to_stdout": True}
    at_once = options.pop("array_parallelism") or options["array_size"]
    rest = {f"slurm_{option}": options[option] for option in options.keys() - set(OURS)}
    return shared | rest | {
        "gpus_per_node": shared["gpus_per_node"] or None,
        "slurm_array_parallelism": at_once,
        # Since SLURM 22.05 srun ignores the CPUs of its job, and would give a task one CPU.
        "slurm_srun_args": [f"--cpus-per-task={shared['cpus_per_task']}"],
        "slurm_additional_parameters": {
            option: value for option, value in additional.items() if value not in (None, False)
        },
    }  # fmt: skip


def submit(sweep: Sweep, settings: Settings) -> bool:
    """Submit the sweep's runs to SLURM. Returns False, as the runs have not ended."""
    settings = with_needs(settings, [job.config for job in sweep.jobs])
    per_job, array_size = settings["runs_per_job"], settings["array_size"]
    works = [
        Work(sweep.jobs[first : first + per_job], settings["cpus_per_task"])
        for first in range(0, len(sweep.jobs), per_job)
    ]
    submitted = []
    for first in range(0, len(works), array_size):
        array = works[first : first + array_size]
        ids = _submit_array(sweep, settings, array)
        for work, job_id in zip(array, ids, strict=True):
            sweep.manifest.queue |= {job.name: job_id for job in work.jobs}
        sweep.manifest.write(sweep.runs_dir)
        submitted.append(ids[0].split("_")[0])
    for line in (
        f"submitted {counted(len(sweep.jobs), 'run')} in {counted(len(works), 'SLURM job')}",
        f"status  igo sweep-status name={sweep.manifest.name} runs_dir={sweep.runs_dir}",
        f"queue   squeue -j {','.join(submitted)}",
        f"logs    output.log in each run's folder; SLURM's own in {sweep.folder / 'slurm'}",
        f"cancel  scancel {' '.join(submitted)}",
    ):
        sweep.console.print(line)
    return False


def _submit_array(sweep: Sweep, settings: Settings, array: Sequence[Work]) -> list[str]:
    """Submit a job array; return the ids of its jobs."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        executor = submitit.AutoExecutor(
            sweep.folder / "slurm",
            cluster="slurm",
            slurm_max_num_timeout=settings["max_num_timeout"],
        )
        executor.update_parameters(**parameters(sweep.manifest.name, settings))
    except (AssertionError, NameError, TypeError, ValueError) as error:
        raise UserError(f"hydra.launcher: submitit says: {first_line(error)}") from None
    try:
        with _outside_of_jobs(), redirect_stderr(io.StringIO()):  # the error has the same text
            return [job.job_id for job in executor.submit_array(array)]
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(first_line(error)) from None


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


@dataclass(frozen=True)
class Work:
    """The work of one SLURM job: its runs, one after another, except finished ones."""

    jobs: Sequence[Job]
    threads: int

    def __call__(self) -> None:
        """Train every run; a run that fails stops no other, but the job then ends with 1.

        With several processes it ends the job: the others may be waiting in that run.
        """
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        failed = False
        for job in self.jobs:
            if not isinstance(job.config.engine.threads, int):  # the job's cores are its own
                job.config.engine.threads = self.threads
            failed = not _finishes(job) or failed
            if failed and Ranks.of_environment().size > 1:
                break
        if failed:
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
        if Ranks.of_environment().first:
            log_output(job)
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
