"""Programs such as src/train.py, started as by a person and timed from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igo.ground.errors import UserError

ROOT = Path(__file__).parents[1]
TRAIN = str(ROOT / "src" / "train.py")

# Linux keeps the peak memory of a process at exec, so a child of this process would start with this
# process's peak. A child of this small program does not.
WATCH = """
import json, os, subprocess, sys, time
began = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - began
print(json.dumps([seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024]))
sys.exit(min(abs(os.waitstatus_to_exitcode(status)), 1))
"""


@dataclass(frozen=True)
class Usage:
    """The wall seconds, CPU seconds and peak memory of a program."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


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


def together(runs: Sequence[Sequence[str]]) -> float:
    """Wall seconds from the first start to the last end of several runs at once."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        processes = [start([sys.executable, TRAIN, *run, f"runs_dir={folder}"]) for run in runs]
        ends = [process.communicate() for process in processes]
        spent = time.perf_counter() - began
    for process, (_, err) in zip(processes, ends, strict=True):
        if process.returncode:
            raise UserError(f"a run failed: {err.strip()[-2000:]}")
    return spent


def watched(command: Sequence[str]) -> Usage:
    """Run a program to its end; return its usage. Its stdout is dropped.

    Raises:
        UserError: it failed.
    """
    out, _ = output([sys.executable, "-I", "-S", "-c", WATCH, *command])
    return Usage(*json.loads(out))


def run(*overrides: str) -> tuple[Usage, list[dict[str, Any]]]:
    """Run `src/train.py` to its end; return its usage and its records."""
    with tempfile.TemporaryDirectory() as folder:
        usage = watched([sys.executable, TRAIN, *overrides, f"runs_dir={folder}"])
        (metrics,) = Path(folder).glob("*/metrics.jsonl")
        return usage, [json.loads(line) for line in metrics.read_text().splitlines()]
