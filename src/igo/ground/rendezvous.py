"""Where the processes of a run meet: as torchrun says, or under srun at the step's first node."""

from __future__ import annotations

import functools
import os
import subprocess
from typing import Any

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@functools.cache  # all runs of this process share the store, whose port can be opened once
def store(rank: int, size: int) -> Any:
    """The store, which torchrun's agent holds; under srun rank 0 holds it."""
    from torch.distributed.rendezvous import rendezvous

    if not os.environ.get(TORCHRUN[0]):
        address, port = slurm_address()
        os.environ.setdefault("MASTER_ADDR", address)
        os.environ.setdefault("MASTER_PORT", str(port))
    rendezvous_store, _, _ = next(rendezvous("env://", rank, size))
    return rendezvous_store


def slurm_address() -> tuple[str, int]:
    """The step's first node, where rank 0 is, and a port that follows from job and step.

    SLURM_LAUNCH_NODE_IPADDR may be wrong: salloc starts srun on a node that has no rank.
    """
    nodes = os.environ["SLURM_STEP_NODELIST"]
    if "[" in nodes or "," in nodes:
        command = ["scontrol", "show", "hostnames", nodes]
        nodes = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ["SLURM_STEP_ID"])
    return nodes.split()[0], 20000 + (job + 997 * step) % 10000
