"""Run a command for so many seconds at most: ``python tests/guard.py SECONDS COMMAND …``.

A test whose process crashes or is killed cannot end the programs that it started. On Linux this
process adopts them (as a child subreaper), also those in sessions of their own. It kills those that
are left when the command has ended. The exit code is the command's: 128 + n after signal n, and 124
when its time was over.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE = 3.0  # seconds for programs that end by themselves, such as W&B's service
OUT_OF_TIME = 124


def run(seconds: int, command: list[str]) -> int:
    """Run the command to its end, or kill it; return the exit code."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = os.posix_spawnp(command[0], command, os.environ)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Control-C reaches the command, too
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(seconds)
    ended = status = 0
    while ended != child:  # an adopted process may end first
        ended, status = os.waitpid(-1, 0)
    if not signal.alarm(0):
        print(f"\nended after {seconds} seconds: {' '.join(command)}", file=sys.stderr)
        return OUT_OF_TIME
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def kill_children() -> None:
    """Kill the adopted processes. The children of a killed process are adopted in turn."""
    patience = time.monotonic() + GRACE
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            if time.monotonic() > patience:
                for process in children():
                    line = Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
                    print(f"killed, as a test left it: {process} {line}", file=sys.stderr)
                    os.kill(process, signal.SIGKILL)
                    os.waitpid(process, 0)
            time.sleep(0.05)


def children() -> list[int]:
    """The processes whose parent is this one."""
    processes = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parent = stat.read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                processes.append(int(stat.parent.name))
    return processes


if __name__ == "__main__":
    result = run(int(sys.argv[1]), sys.argv[2:])
    kill_children()
    sys.exit(result)
