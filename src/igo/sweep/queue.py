"""What SLURM's queue says of a sweep's runs, beside their own records."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from igo.errors import UserError
from igo.runs.folder import read_status

TIMEOUT = 10  # seconds for squeue to answer
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


def queue_states(ids: Iterable[str]) -> dict[str, str]:
    """SLURM's state of each job that is still there, from one call of squeue.

    Args:
        ids: as SLURM writes them, ``123`` or, of an array, ``123_4``.
    """
    wanted = set(ids)
    if not wanted or shutil.which("squeue") is None:  # records that were copied from a cluster
        return {}
    arrays = ",".join(sorted({one.split("_")[0] for one in wanted}))
    try:
        asked = subprocess.run(
            ["squeue", "-h", "-r", "-o", "%i %T", "-j", arrays],
            capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(f"squeue does not answer within {TIMEOUT} s; try again") from None
    if asked.returncode != 0:
        if "Invalid job id" in asked.stderr:  # none of them is known any more
            return {}
        raise UserError(f"squeue: {one_line(asked.stderr)}")
    found = dict(line.split() for line in asked.stdout.splitlines())
    return {one: found[one] for one in wanted if one in found}


def with_queue(state: str, folder: Path, in_queue: str | None) -> str:
    """How a run stands, from its own record's state and its job's in the queue.

    The queue knows of jobs on other nodes, whose locks may not be seen here. A job that has
    several runs is running before it comes to the last of them.
    """
    if in_queue is None or state in ("finished", "running"):
        return state
    if in_queue in WAITING:
        return "queued"
    if state == "failed":
        return state
    return "running" if read_status(folder).get("state") == "running" else "queued"


def one_line(message: str) -> str:
    """What a SLURM command printed on stderr, without its name before each line."""
    lines = [line.removeprefix("sbatch: ").removeprefix("squeue: ").removeprefix("slurm_load_jobs ")
             for line in message.splitlines()]  # fmt: skip
    return "; ".join(line.removeprefix("error: ").strip() for line in lines if line.strip())
