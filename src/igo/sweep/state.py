"""The runs of a sweep and their states, from their records and SLURM's queue."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from igo.config.schema import total_epochs
from igo.ground.errors import UserError
from igo.runs.folder import read_status
from igo.runs.manifest import now
from igo.sweep.jobs import Job, labels
from igo.sweep.manifest import FOLDER, Entry, Manifest, read_manifest

TIMEOUT = 10  # seconds for squeue to answer
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


def why(status: Mapping[str, Any]) -> str:
    """The reason in status.json why a run has not finished."""
    if status.get("state") == "failed":
        return str(status.get("error"))
    return f"stopped by {status['signal']}" if "signal" in status else "its process is gone"


def sweep_name(choice: str, jobs: Sequence[Job]) -> str:
    """The name of a sweep of these runs."""
    names = sorted(job.name for job in jobs)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    return f"{choice}-{digest}"


def open_manifest(runs_dir: Path, name: str, command: str, jobs: Sequence[Job]) -> Manifest:
    """The manifest of these runs, with the SLURM jobs that any sweep has submitted for them."""
    label_of = labels(jobs)
    entries = [
        Entry(job.name, list(job.overrides), label_of[job.name], total_epochs(job.config))
        for job in jobs
    ]
    queue = {run: job for run, job in _queued(runs_dir).items() if run in label_of}
    return Manifest(name, command, now(), entries, queue)


def _queued(runs_dir: Path) -> dict[str, str]:
    """The newest SLURM job of each run, from all sweeps with a readable record."""
    queue: dict[str, str] = {}
    for path in sorted((runs_dir / FOLDER).glob("*/sweep.json"), key=lambda p: p.stat().st_mtime):
        with contextlib.suppress(UserError):
            queue |= read_manifest(path).queue
    return queue


def sweep_states(manifest: Manifest, runs_dir: Path) -> dict[str, str]:
    """The state of each run, by its record and SLURM's queue."""
    recorded = manifest.recorded(runs_dir)
    jobs = {
        run: job
        for run, job in manifest.queue.items()
        if recorded.get(run) not in (None, "finished")
    }
    in_queue = queue_states(jobs.values())
    in_jobs = {
        run: with_queue(recorded[run], runs_dir / run, in_queue.get(job))
        for run, job in jobs.items()
    }
    return recorded | in_jobs


def counts(states: Mapping[str, str]) -> str:
    """``12 finished, 2 running, …``, in a fixed order, without states that no run has."""
    order = ("finished", "running", "queued", "interrupted", "failed", "new")
    values = list(states.values())
    parts = [
        f"{values.count(state)} {'to go' if state == 'new' else state}"
        for state in order
        if state in values
    ]
    return ", ".join(parts) or "no runs"


def queue_states(ids: Iterable[str]) -> dict[str, str]:
    """SLURM's state of each job that SLURM still knows, from one call of squeue.

    Args:
        ids: as SLURM writes them, ``123`` or, in an array, ``123_4``.
    """
    jobs = set(ids)
    if not jobs or shutil.which("squeue") is None:  # none: the records were copied from a cluster
        return {}
    arrays = ",".join(sorted({job.split("_")[0] for job in jobs}))
    try:
        answer = subprocess.run(
            ["squeue", "-h", "-r", "-o", "%i %T", "-j", arrays],
            capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(f"squeue does not answer within {TIMEOUT} s; try again") from None
    if answer.returncode != 0:
        if "Invalid job id" in answer.stderr:  # SLURM knows none of the jobs any more
            return {}
        raise UserError(f"squeue: {one_line(answer.stderr)}")
    states = dict(line.split() for line in answer.stdout.splitlines())
    return {job: states[job] for job in jobs if job in states}


def with_queue(state: str, folder: Path, in_queue: str | None) -> str:
    """The state of a run, from the state in its record and its job's state in the queue.

    The lock of a run on another node may not be seen here, but the queue has its job. A job with
    several runs is running before it begins the last of them.
    """
    if in_queue is None or state in ("finished", "running"):
        return state
    if in_queue in WAITING:
        return "queued"
    if state == "failed":
        return state
    return "running" if read_status(folder).get("state") == "running" else "queued"


def one_line(message: str) -> str:
    """The errors of a SLURM command as one line, without the command's name."""
    lines = [line.removeprefix("sbatch: ").removeprefix("squeue: ").removeprefix("slurm_load_jobs ")
             for line in message.splitlines()]  # fmt: skip
    return "; ".join(line.removeprefix("error: ").strip() for line in lines if line.strip())
