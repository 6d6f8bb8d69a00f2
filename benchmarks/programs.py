"""The programs of `make gpu`: each has a time limit, and its process group ends with it."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TRAIN = str(ROOT / "src" / "train.py")


def environment() -> dict[str, str]:
    """The variables of this process without W&B's, and with this checkout's packages first."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    paths = str(ROOT / "src"), str(ROOT), variables.get("PYTHONPATH", "")
    return {**variables, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run(
    command: Sequence[str], seconds: float, *, capture: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end in ``environment()``; then kill what is left of its process group.

    Raises:
        subprocess.TimeoutExpired: the program took longer; ``output`` of the error has its text.
    """
    pipe = subprocess.PIPE if capture else None
    options: dict[str, Any] = {"stdout": pipe, "stderr": pipe, "start_new_session": True}
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), text=True, **options)
    try:
        out, err = process.communicate(timeout=max(seconds, 1))
    except subprocess.TimeoutExpired as late:
        os.killpg(process.pid, signal.SIGKILL)
        late.output = "".join(part or "" for part in process.communicate())
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, out, err)
