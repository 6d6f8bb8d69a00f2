"""Run a command, and leave nothing of it behind: ``python tests/guard.py [--seconds N] COMMAND …``.

A test that crashes its process, or is killed for hanging, cannot end what it started. This process
adopts whatever loses its parent (Linux's child subreaper), so that processes in sessions of their
own, ranks and data loaders are found too, and kills what is left when the command has ended or its
time is over. It exits as the command does: its code, 128 + n after signal n, 124 out of time.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PR_SET_CHILD_SUBREAPER = 36
GRACE = 3.0  # seconds for what ends by itself, such as W&B's service
OUT_OF_TIME = 124


class OutOfTime(Exception):
    """The command has had all of its time."""


def main(arguments: list[str]) -> int:
    """Run a command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seconds", type=int, default=0, help="time in all; 0 = without end")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = subprocess.Popen(given.command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Control-C reaches the command, too
    signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number))
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(given.seconds)
    try:
        code = _wait(child.pid)
    except OutOfTime:
        print(f"\nended after {given.seconds} seconds: {' '.join(given.command)}", file=sys.stderr)
        code = OUT_OF_TIME
        child.kill()
        _end_children(0)
    finally:
        signal.alarm(0)
    _end_children(GRACE)
    return code


def _stop(number: int, frame: FrameType | None) -> None:
    raise OutOfTime


def _wait(child: int) -> int:
    """The exit code of one child, once it has ended; what it orphaned is buried meanwhile."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _end_children(grace: float) -> None:
    """Kill and name the children that are still there. Theirs come to this process: to the last."""
    end = time.monotonic() + grace
    killed: set[int] = set()
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            ended, _ = os.waitpid(-1, os.WNOHANG)
            if ended:
                killed.discard(ended)
                continue
            left = set(_children()) - killed if time.monotonic() >= end else set()
            for child in left:
                print(f"killed, as a test left it: {child} {_line(child)}", file=sys.stderr)
                os.kill(child, signal.SIGKILL)
            killed |= left
            time.sleep(0.05)


def _children() -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(after_name[1]) == os.getpid():
            found.append(int(entry.parent.name))
    return found


def _line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
