"""How many cores this process may use at once, and an environment that PyTorch can compute in."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def allowed_cores(root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """The cores of this process's affinity, fewer where a cgroup has a smaller CPU quota."""
    affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    quotas = [quota for folder in _groups(root, own) if (quota := _quota(folder)) is not None]
    return max(1, int(min([cores, *quotas])))


def _groups(root: Path, own: Path) -> list[Path]:
    """The folders of this process's cgroups and of those above them, where its CPU time is held."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        inner = base / path.lstrip("/")
        found += [one for one in (inner, *inner.parents) if one.is_relative_to(base)]
    return found


def _quota(folder: Path) -> float | None:
    """Cores' worth of time that a cgroup allows: cpu.max of version 2, cpu.cfs_* of version 1."""
    try:
        if (folder / "cpu.max").is_file():
            time, period = (folder / "cpu.max").read_text().split()
        else:
            time, period = ((folder / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
        quota = float(time) / float(period)  # "max" is no number
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return quota if quota > 0 else None  # version 1 has -1 for none


def without_omp_dynamic() -> None:
    """Take OMP_DYNAMIC=true out of the environment, with a warning; before PyTorch is loaded.

    OpenMP then starts fewer threads where the machine is busy, and oneDNN's backward pass of a
    convolution waits for the missing ones without end.
    """
    value = os.environ.get("OMP_DYNAMIC", "false")
    if value.strip().lower() != "false":
        del os.environ["OMP_DYNAMIC"]
        print(
            f"warning: OMP_DYNAMIC={value} is ignored: with it, PyTorch waits for ever for threads"
            " that OpenMP does not start on a busy machine",
            file=sys.stderr,
        )
