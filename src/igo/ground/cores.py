"""The number of cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container, by version 2 of cgroups


def allowed_cores(quota: Path = QUOTA) -> int:
    """Count the cores that affinity and the container's CPU quota allow, 1 or more."""
    affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    time, period = quota.read_text().split() if quota.is_file() else ("max", "")
    return cores if time == "max" else max(1, min(cores, int(time) // int(period)))
