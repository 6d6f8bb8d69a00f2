"""A sweep and its record, RUNS_DIR/sweeps/NAME/sweep.json: its runs and their SLURM jobs."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from igo.ground.errors import UserError
from igo.ground.files import make_writable, write_atomically
from igo.runs.folder import read_status, state_of
from igo.runs.manifest import command, now
from igo.sweep.jobs import Job

IN_SLURM = "in SLURM"  # a job of SLURM's queue, waiting or running, has the run
STATES = ("finished", "running", IN_SLURM, "interrupted", "failed", "new")


class Sweep:
    """A set of runs. Its name comes from the set, as a run's name comes from its configuration.

    Args:
        choice: the first part of the name.
        runs: all runs; those to train are put into ``jobs``.
        console: where to print.
    """

    def __init__(self, choice: str, runs: Sequence[Job], console: Console) -> None:
        names = sorted(job.name for job in runs)
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        self.name = f"{choice}-{digest[:8]}"
        self.runs, self.console = runs, console
        self.jobs: list[Job] = []
        self.folder = Path(runs[0].config.runs_dir) / "sweeps" / self.name
        known: dict[str, str] = {}  # the newest SLURM job of each run, whichever sweep submitted it
        files = self.folder.parent.glob("*/sweep.json")
        for file in sorted(files, key=lambda path: path.stat().st_mtime):
            with suppress(OSError, ValueError, TypeError, LookupError):
                known |= json.loads(file.read_bytes())["queue"]
        self.queue = {run: known[run] for run in names if run in known}
        there = _jobs_in_queue() if self.queue and shutil.which("squeue") else set()
        self.in_slurm = {run for run, job_id in self.queue.items() if job_id in there}

    def write(self) -> None:
        """Write sweep.json."""
        runs = [
            {"run": job.name, "overrides": job.overrides, "label": job.label} for job in self.runs
        ]
        content = {"name": self.name, "command": command(), "started": now(), "runs": runs}
        make_writable(self.folder)
        text = json.dumps({**content, "queue": self.queue}, indent=1)
        write_atomically(self.folder / "sweep.json", text + "\n")

    def states(self) -> dict[str, str]:
        """The state of each run: one of STATES."""
        states = {job.name: state_of(job.folder.path) for job in self.runs}  # in their order
        waiting = {run for run in self.in_slurm if states[run] != "finished"}
        return states | dict.fromkeys(waiting, IN_SLURM)


def counts(states: Mapping[str, str]) -> str:
    """``12 finished, 2 running, …``, in the order of STATES, without states that no run has."""
    values = list(states.values())
    return ", ".join(
        f"{values.count(state)} {'to go' if state == 'new' else state}"
        for state in STATES
        if state in values
    )


def why(folder: Path) -> str:
    """The reason, by its record, why a run has not finished."""
    status = read_status(folder)
    stopped = f"stopped by {status['signal']}" if "signal" in status else "its process is gone"
    return str(status.get("error") or stopped)


def _jobs_in_queue() -> set[str]:
    """The ids of this user's jobs in SLURM's queue, ``123`` or, in an array, ``123_4``."""
    ask = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    answer = subprocess.run(ask, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise UserError(f"squeue does not say what is queued: {answer.stderr.strip()}")
    return set(answer.stdout.split())
