"""On Linux, memory that a training step frees stays with the process: the next step wants it again.

By itself glibc gives each block of 32 MiB and more back to the kernel as soon as it is freed, and
what is free at the heap's end too; every step then pays for new, zeroed pages, see
docs/performance.md.
"""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of <malloc.h>
OWN_CHOICE = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> None:
    """Tell glibc, unless the user's environment tells it something; elsewhere nothing happens."""
    if any(name in os.environ for name in (*OWN_CHOICE, "GLIBC_TUNABLES")):
        return
    mallopt = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # large blocks from the heap as well
        mallopt(M_TRIM_THRESHOLD, -1)  # never shrink it
