"""Programs such as src/train.py, started as by a person and timed from outside."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from igo.ground.errors import UserError

ROOT = Path(__file__).parents[1]
TRAIN = str(ROOT / "src" / "train.py")


def environment(**changes: str) -> dict[str, str]:
    """The environment without the user's W&B settings, with this checkout's packages first."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**kept, "PYTHONPATH": path, **changes}


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start a program in the folder of this project, with its output in pipes."""
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def output(command: Sequence[str]) -> tuple[str, str]:
    """Run a program to its end; return its stdout and stderr.

    Raises:
        UserError: it failed.
    """
    process = start(command)
    out, err = process.communicate()
    if process.returncode:
        raise UserError(f"{' '.join(command)} failed: {err.strip()[-2000:]}")
    return out, err
