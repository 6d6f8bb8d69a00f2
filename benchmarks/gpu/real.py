"""Whole runs: graduated and constant, killed and continued."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import programs
from benchmarks.gpu.part import Part, Result
from benchmarks.programs import ROOT, TRAIN

# Least accuracy of ten epochs of a ResNet18 on Fashion-MNIST or on the patterns. Chosen.
LEARNED = 0.88


def items(part: Part, folder: Path) -> None:
    """Whole runs by the command line."""
    part.item("killed and continued", lambda: resumed(part, folder), seconds=20)
    if not part.dry:
        for schedule in ("graduated", "constant"):
            name = f"resnet18, {schedule}"
            part.item(name, lambda s=schedule: trained(part, folder, s), seconds=30)


def command(part: Part, folder: Path, runs: str, *settings: str) -> list[str]:
    """The command of a run with these settings, in the folder ``runs`` of the workplace."""
    file = part.data or next(folder.glob("colour-*.npz"))
    images = "dataset=arrays", f"dataset.file={file}"
    places = f"engine.device={part.device}", f"runs_dir={folder / runs}"
    words = (*images, "tracking=none", *settings, *part.small_model, *places)
    return [sys.executable, TRAIN, *words]


def start(part: Part, command: list[str]) -> str:
    """Run a program within the time that is left; return its error, empty if there was none."""
    process = programs.run(command, part.left)
    return (process.stdout + process.stderr)[-2000:] if process.returncode else ""


def records(folder: Path) -> list[dict[str, Any]]:
    """The records of the only run in a folder."""
    (file,) = folder.glob("*/metrics.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def trained(part: Part, folder: Path, schedule: str) -> Result:
    """Accuracy and speed of a run as a user starts it."""
    epochs = 10
    settings = ("model=resnet18", f"schedule={schedule}", f"epochs={epochs}", "batch_size=64")
    if failure := start(part, command(part, folder, schedule, *settings)):
        return {"ok": False, "tail": failure}
    rows = records(folder / schedule)
    accuracy = rows[-1]["test/accuracy"]
    right = len(rows) == epochs and (part.data is not None or accuracy >= LEARNED)
    speed = {"images/s": rows[-1]["images_per_second"], "s an epoch": rows[-1]["seconds"]}
    return {"ok": right, "test accuracy": accuracy, **speed}


def resumed(part: Part, folder: Path) -> Result:
    """Kill a run in its second epoch, continue it, and compare the records with a whole run's."""
    settings = ("model=resnet8", "schedule=graduated", "epochs=4", "batch_size=32")
    if failure := start(part, command(part, folder, "whole", *settings)):
        return {"ok": False, "tail": failure}
    torn = command(part, folder, "torn", *settings)
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(torn, cwd=ROOT, env=programs.environment(), **silent) as process:
        # Ten seconds are left for the rest of this item.
        while process.poll() is None and not _begun(folder / "torn") and part.left > 10:
            time.sleep(0.01)
        process.kill()
    if not _begun(folder / "torn"):
        return {"ok": False, "tail": "no checkpoint was written before the run was killed"}
    killed = len(records(folder / "torn"))
    if failure := start(part, torn):
        return {"ok": False, "tail": failure}
    rows = [_without_times(folder / name) for name in ("whole", "torn")]
    return {"ok": rows[0] == rows[1], "epochs at the kill": killed}


def _begun(runs: Path) -> bool:
    """Whether a run in this folder has written a checkpoint."""
    return any(runs.glob("*/checkpoint.pt"))


def _without_times(runs: Path) -> list[dict[str, Any]]:
    """The records of the only run in a folder, without what differs from run to run."""
    costs = ("seconds", "images_per_second", "max_memory_allocated", "max_memory_reserved")
    return [{k: v for k, v in record.items() if k not in costs} for record in records(runs)]
