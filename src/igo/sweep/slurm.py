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
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import Checkpointable

from igo.config.schema import Config
from igo.ground.errors import ConfigError, UserError, counted, first_line
from igo.ground.ranks import Ranks
from igo.runs.stopping import Stopped
from igo.sweep.jobs import Job, execute
from igo.sweep.launch import Sweep, check_counts

FOR_GPUS = ("cifar10", "cifar100", "imagenet")  # data sets whose runs take days on a CPU
MINUTES, MINUTES_FOR_GPUS = 240, 1440  # of a job, where hydra.launcher.time is null


def check(settings: Mapping[str, Any]) -> None:
    """Raise a UserError if SLURM is missing, or a count in slurm.yaml is none."""
    names = ("runs_per_job", "array_size", "cpus_per_task", "time")
    check_counts({name: settings[name] for name in names if settings[name] is not None})
    missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"hydra/launcher=slurm needs SLURM, and there is no {missing[0]} on this machine; start"
            " it on a login node, or use hydra/launcher=local"
        )


def with_needs(settings: Mapping[str, Any], configs: Sequence[Config]) -> dict[str, Any]:
    """The settings with a GPU and a day for runs that need these, if they do not say other values.

    Raises:
        ConfigError: such a run would get no GPU.
    """
    need = [c for c in configs if c.dataset.name in FOR_GPUS and c.engine.device != "cpu"]
    if need and settings["gpus_per_node"] == 0:
        allowed = f"a run on {need[0].dataset.name} needs a GPU: use 1, or type engine=cpu"
        raise ConfigError("hydra.launcher.gpus_per_node", 0, allowed)
    needs = {"gpus_per_node": int(bool(need)), "time": MINUTES_FOR_GPUS if need else MINUTES}
    return {name: needs.get(name) if v is None else v for name, v in settings.items()}


def submit(sweep: Sweep, settings: Mapping[str, Any]) -> None:
    """Submit the sweep's runs to SLURM."""
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
        queue = {job.name: id_ for work, id_ in zip(array, ids, strict=True) for job in work.jobs}
        sweep.queue |= queue
        sweep.in_slurm |= queue.keys()
        sweep.write()
        submitted.append(ids[0].split("_")[0])
    for line in (
        f"submitted {counted(len(sweep.jobs), 'run')} in {counted(len(works), 'SLURM job')}",
        "state   the same command prints what runs, what failed and why, and the results",
        f"table   igo table runs={sweep.folder}",
        f"queue   squeue -j {','.join(submitted)}",
        f"logs    output.log in each run's folder; SLURM's own in {sweep.folder / 'slurm'}",
        f"cancel  scancel {' '.join(submitted)}",
    ):
        sweep.console.print(line)


def _submit_array(sweep: Sweep, settings: Mapping[str, Any], array: Sequence[Work]) -> list[str]:
    """Submit a job array; return the ids of its jobs."""
    options = {name: value for name, value in settings.items() if value is not None}
    array_size, timeouts = options.pop("array_size"), options.pop("max_num_timeout")
    del options["runs_per_job"]
    more = {"requeue": True, **options.pop("additional", {})}
    options |= {
        "job_name": sweep.name,
        "ntasks_per_node": options.pop("tasks_per_node"),
        "gpus_per_node": options["gpus_per_node"] or None,
        "array_parallelism": options.get("array_parallelism") or array_size,
        "setup": list(options["setup"]),
        "stderr_to_stdout": True,
        # Since SLURM 22.05 srun ignores the CPUs of its job, and would give a task one CPU.
        "srun_args": [f"--cpus-per-task={options['cpus_per_task']}"],
        "additional_parameters": {k: v for k, v in more.items() if v is not False},
    }
    if "mem_gb" in options:
        options["mem"] = f"{round(1024 * options.pop('mem_gb'))}M"
    for name in [*os.environ] if "SLURM_JOB_ID" in os.environ else []:
        # Typed within a job: the new ones would inherit its settings.
        if name.startswith(("SLURM_", "SRUN_")) and name != "SLURM_CONF":
            del os.environ[name]
    try:
        executor = SlurmExecutor(sweep.folder / "slurm", max_num_timeout=timeouts)
        executor.update_parameters(**options)
        with redirect_stderr(io.StringIO()):  # the error has the same text
            return [job.job_id for job in executor.submit_array(array)]
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(f"hydra.launcher: submitit says: {first_line(error)}") from None
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(first_line(error)) from None


@dataclass(frozen=True)
class Work(Checkpointable):
    """The work of one SLURM job: its runs, one after another, except finished ones.

    When submitit queues it again, it is the same: each run's folder has the run's progress.
    """

    jobs: Sequence[Job]
    threads: int

    def __call__(self) -> None:
        """Train every run; a run that fails stops no other, but the job then ends with 1.

        With several processes it ends the job: the others may be waiting in that run.
        """
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        ranks = Ranks.of_environment()
        failed = False
        for job in self.jobs:
            if not isinstance(job.config.engine.threads, int):  # the job's cores are its own
                job.config.engine.threads = self.threads
            try:
                execute(job, log=ranks.first)
            except Stopped as stop:
                # SLURM sends USR2 before a time-out or a preemption. The run's record is complete
                # by now. submitit's handler, in place again, queues the job again and exits.
                if stop.signal_name == "SIGUSR2":
                    signal.raise_signal(signal.SIGUSR2)
                raise
            except SystemExit:
                failed = True
            except Exception:
                traceback.print_exc()
                failed = True
            if failed and ranks.size > 1:
                break
        if failed:
            raise SystemExit(1)
