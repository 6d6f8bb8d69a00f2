"""The number of cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def allowed_cores(root: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Count the cores that the process's affinity and its cgroups' CPU quotas allow, 1 or more.

    Quotas are those of version 2: ``cpu.max`` of the group and of the groups above it.
    """
    affinity = hasattr(os, "sched_getaffinity")
    cores = [len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1]
    lines = membership.read_text().splitlines() if membership.is_file() else []
    inside = next((line[3:].lstrip("/") for line in lines if line.startswith("0::")), "")
    group = root / inside
    for folder in (group, *group.parents):
        if (folder / "cpu.max").is_file():
            time, period = (folder / "cpu.max").read_text().split()
            if time != "max":
                cores.append(int(time) // int(period))
    return max(1, min(cores))
