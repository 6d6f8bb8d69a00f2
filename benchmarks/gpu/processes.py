"""The programs of `make gpu`: each has a time limit, and none of its processes is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from benchmarks.programs import ROOT

MARK = "IGO_MAKE_GPU"  # environment variable: the calls of ``run`` that a process belongs to


def run(
    command: Sequence[str], seconds: float, *, capture: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; then kill all processes that it started, in any session.

    Raises:
        subprocess.TimeoutExpired: it took longer; ``output`` has its text until then.
    """
    mark = uuid.uuid4().hex
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        MARK: f"{os.environ.get(MARK, '')} {mark}",
    }
    pipe = subprocess.PIPE if capture else None
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=pipe, stderr=pipe,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=max(seconds, 1))
    except subprocess.TimeoutExpired as late:
        _end(mark)
        late.output = "".join(part or "" for part in process.communicate())
        raise
    finally:
        _end(mark)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _end(mark: str) -> None:
    """Kill every process whose environment has the mark (Linux)."""
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # the process has ended, or it is another user's
            if mark.encode() in file.read_bytes():
                os.kill(int(file.parent.name), signal.SIGKILL)
