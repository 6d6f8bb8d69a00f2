"""src/train.py as a person starts it, timed from outside."""

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

from igo.errors import UserError

ROOT = Path(__file__).parents[1]
TRAIN = str(ROOT / "src" / "train.py")


@dataclass(frozen=True)
class Ended:
    """A run that ended well: wall seconds, peak memory of its process, and its records."""

    seconds: float
    peak_bytes: int
    records: list[dict[str, Any]]


def environment(**changes: str) -> dict[str, str]:
    """The environment without the user's W&B settings, this checkout's packages first."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**kept, "PYTHONPATH": path, **changes}


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start a program in the folder of this project, its output kept for an error."""
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def output(command: Sequence[str]) -> tuple[str, str]:
    """Run a program to its end; what it wrote to stdout and stderr.

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
        processes = [start([sys.executable, TRAIN, *o, f"runs_dir={folder}"]) for o in runs]
        ends = [process.communicate() for process in processes]
        spent = time.perf_counter() - began
    for process, (_, err) in zip(processes, ends, strict=True):
        if process.returncode:
            raise UserError(f"a run failed: {err.strip()[-2000:]}")
    return spent


def run(*overrides: str) -> Ended:
    """One run to its end, with the most memory that its process held."""
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "stderr"
        began = time.perf_counter()
        with errors.open("w") as sink:
            process = subprocess.Popen(
                [sys.executable, TRAIN, *overrides, f"runs_dir={folder}"],
                cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=sink,
            )  # fmt: skip
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise UserError(f"a run failed: {errors.read_text().strip()[-2000:]}")
        (metrics,) = Path(folder).glob("*/metrics.jsonl")
        records = [json.loads(line) for line in metrics.read_text().splitlines()]
    return Ended(seconds, usage.ru_maxrss * 1024, records)
