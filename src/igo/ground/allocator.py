"""Keeps memory that a training step frees: the next step uses it again (Linux).

By default glibc returns freed blocks of 32 MiB and more to the kernel, and free memory at the
heap's end too. Each step then needs new, zeroed pages, see docs/performance.md.
"""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of <malloc.h>
USER_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_",
                 "GLIBC_TUNABLES")  # fmt: skip


def keep_freed_memory() -> None:
    """Set glibc's options, unless the user's environment sets some. Without glibc do nothing."""
    if any(name in os.environ for name in USER_SETTINGS):
        return
    mallopt = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # take large blocks from the heap too
        mallopt(M_TRIM_THRESHOLD, -1)  # never shrink the heap
