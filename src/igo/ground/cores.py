"""The number of cores that this process may use; without OMP_DYNAMIC, with which PyTorch hangs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def allowed_cores(root: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Count the cores that the process's affinity and its cgroups' CPU quotas allow, 1 or more."""
    affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    quotas = map(_quota, _groups(root, membership))
    return max(1, int(min([cores, *(quota for quota in quotas if quota is not None)])))


def _groups(root: Path, membership: Path) -> list[Path]:
    """The folders of this process's cgroups and of their parents, which hold the CPU quotas."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        inner = base / path.lstrip("/")
        folders += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(base)]
    return folders


def _quota(folder: Path) -> float | None:
    """The CPU time that a cgroup allows, in cores: cpu.max of version 2, cpu.cfs_* of version 1."""
    try:
        if (folder / "cpu.max").is_file():
            time, period = (folder / "cpu.max").read_text().split()
        else:
            time, period = ((folder / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
        quota = float(time) / float(period)  # "max" is no number: no quota
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return quota if quota > 0 else None  # -1 in version 1: no quota


def without_omp_dynamic() -> None:
    """Remove OMP_DYNAMIC=true from the environment, with a warning. Call it before PyTorch loads.

    With it OpenMP starts fewer threads on a busy machine, and oneDNN's backward pass of a
    convolution waits for the missing threads forever.
    """
    value = os.environ.get("OMP_DYNAMIC", "false")
    if value.strip().lower() != "false":
        del os.environ["OMP_DYNAMIC"]
        print(
            f"warning: OMP_DYNAMIC={value} is ignored: with it, PyTorch waits forever for threads"
            " that OpenMP does not start on a busy machine",
            file=sys.stderr,
        )
