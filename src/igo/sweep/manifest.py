"""The record of a sweep, RUNS_DIR/sweeps/NAME/sweep.json: its runs and their SLURM jobs.

The name of a sweep comes from its set of runs, as a run's name comes from its configuration. The
state of a run comes from the run's own record, and from SLURM's queue.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from igo.config.schema import total_epochs
from igo.ground.errors import UserError
from igo.ground.files import make_writable, write_atomically
from igo.runs.folder import read_status, state_of
from igo.runs.manifest import command, now
from igo.sweep.jobs import Job, labels

FOLDER = "sweeps"  # under runs_dir
TIMEOUT = 10  # seconds for squeue to answer
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
STATES = ("finished", "running", "queued", "interrupted", "failed", "new")


@dataclass(frozen=True)
class Entry:
    """One run of a sweep: its folder's name, its overrides, and its label among the runs."""

    run: str
    overrides: list[str]
    label: str
    epochs: int


@dataclass
class Manifest:
    """A sweep's record. ``queue`` holds the SLURM job of each run that was handed to SLURM."""

    name: str
    command: str
    started: str
    runs: list[Entry]
    queue: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of_jobs(choice: str, runs_dir: Path, jobs: Sequence[Job]) -> Manifest:
        """The manifest of these runs, with the SLURM jobs that any sweep has submitted for them.

        Args:
            choice: the first part of the name.
            runs_dir: the folder of the runs.
            jobs: the runs.
        """
        names = sorted(job.name for job in jobs)
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
        label_of = labels(jobs)
        entries = [
            Entry(job.name, list(job.overrides), label_of[job.name], total_epochs(job.config))
            for job in jobs
        ]
        queue: dict[str, str] = {}  # the newest job of each run
        files = (runs_dir / FOLDER).glob("*/sweep.json")
        for path in sorted(files, key=lambda path: path.stat().st_mtime):
            with contextlib.suppress(UserError):
                queue |= read_manifest(path).queue
        queue = {run: queue[run] for run in names if run in queue}
        return Manifest(f"{choice}-{digest}", command(), now(), entries, queue)

    def folder(self, runs_dir: Path) -> Path:
        """The folder of the sweep itself."""
        return runs_dir / FOLDER / self.name

    def write(self, runs_dir: Path) -> None:
        """Write sweep.json, which makes the sweep the newest one."""
        folder = self.folder(runs_dir)
        make_writable(folder)
        write_atomically(folder / "sweep.json", json.dumps(asdict(self), indent=1) + "\n")

    def states(self, runs_dir: Path, *, with_queue: bool = True) -> dict[str, str]:
        """The state of each run: one of STATES."""
        states = {entry.run: state_of(runs_dir / entry.run) for entry in self.runs}
        waiting = {run: job for run, job in self.queue.items() if states.get(run) != "finished"}
        in_queue = queue_states(waiting.values()) if with_queue else {}
        for run, job in waiting.items():
            if run in states:
                states[run] = state_in_queue(states[run], runs_dir / run, in_queue.get(job))
        return states


def read_manifest(path: Path) -> Manifest:
    """Read a sweep.json. The sweep has the name of its folder."""
    try:
        content = json.loads(path.read_bytes().decode())
        runs = [Entry(**entry) for entry in content.pop("runs")]
        return Manifest(runs=runs, **{**content, "name": path.parent.name})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not the record of a sweep ({error})") from None


def find_manifest(runs_dir: Path, name: str | None) -> Manifest:
    """The newest sweep, or the newest whose name begins with ``name``."""
    manifests = list((runs_dir / FOLDER).glob("*/sweep.json"))
    matching = [path for path in manifests if path.parent.name.startswith(name or "")]
    if not matching:
        known = ", ".join(sorted(path.parent.name for path in manifests))
        hint = f"there are {known}" if known else "no sweep was started there"
        which = f" whose name begins with {name}" if name else ""
        raise UserError(f"runs_dir={runs_dir} holds no sweep{which}; {hint}")
    return read_manifest(max(matching, key=lambda path: path.stat().st_mtime))


def counts(states: Mapping[str, str]) -> str:
    """``12 finished, 2 running, …``, in the order of STATES, without states that no run has."""
    values = list(states.values())
    parts = [
        f"{values.count(state)} {'to go' if state == 'new' else state}"
        for state in STATES
        if state in values
    ]
    return ", ".join(parts)


def why(folder: Path) -> str:
    """The reason, by its record, why a run has not finished."""
    status = read_status(folder)
    if status.get("error"):
        return str(status["error"])
    return f"stopped by {status['signal']}" if "signal" in status else "its process is gone"


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
        reason = answer.stderr.strip().partition("\n")[0].removeprefix("squeue: error: ")
        raise UserError(f"squeue: {reason}")
    states = dict(line.split() for line in answer.stdout.splitlines())
    return {job: states[job] for job in jobs if job in states}


def state_in_queue(state: str, folder: Path, in_queue: str | None) -> str:
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
