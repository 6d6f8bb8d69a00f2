"""Does it do its work: graduated and constant runs, killed and continued, many side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.part import Found, Part
from benchmarks.programs import ROOT, TRAIN
from igo.data.readers import DEBIAN_FASHION_MNIST


def items(part: Part, folder: Path) -> None:
    """Whole runs by the command line."""
    part.item("killed and continued", lambda: resumed(part, folder), least=20)
    if part.dry:
        return
    for schedule in ("graduated", "constant"):
        part.item(f"resnet18, {schedule}", lambda s=schedule: trained(part, folder, s), least=30)
    for at_once in (1, 4):
        part.item(f"8 runs, {at_once} at once", lambda k=at_once: sweep(part, folder, k), least=60)


def data(part: Part, folder: Path) -> tuple[str, ...]:
    """Fashion-MNIST where it is, else the patterns in noise."""
    there = DEBIAN_FASHION_MNIST.is_dir() or (ROOT / "data" / "FashionMNIST").is_dir()
    if part.dry or not there:
        return ("dataset=arrays", f"dataset.file={folder / 'images.npz'}")
    return ("dataset=fashion_mnist", f"data_dir={ROOT / 'data'}")


def command(part: Part, folder: Path, runs: str, *overrides: str) -> list[str]:
    flags = [one for one in overrides if one.startswith("-")]
    rest = [one for one in overrides if not one.startswith("-")]
    model = ["model=resnet8", "model.width=4"] if part.dry else []
    return [
        sys.executable, TRAIN, *flags, *data(part, folder), "tracking=none", *rest, *model,
        f"engine.device={part.device}", f"runs_dir={folder / runs}",
    ]  # fmt: skip


def start(part: Part, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Within the time that is left."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        timeout=max(part.left, 1),
    )  # fmt: skip


def records(folder: Path) -> list[dict[str, Any]]:
    """Of the one run in a folder."""
    (file,) = folder.glob("*/metrics.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def trained(part: Part, folder: Path, schedule: str) -> Found:
    """Accuracy and speed of a run as a user starts it."""
    words = ("model=resnet18", f"schedule={schedule}", "epochs=10", "batch_size=64")
    done = start(part, command(part, folder, schedule, *words))
    if done.returncode:
        return {"ok": False, "tail": (done.stdout + done.stderr)[-2000:]}
    rows = records(folder / schedule)
    return {"test accuracy": rows[-1]["test/accuracy"], "images/s": rows[-1]["images_per_second"],
            "epochs": len(rows), "s an epoch": rows[-1]["seconds"]}  # fmt: skip


def resumed(part: Part, folder: Path) -> Found:
    """Killed in its second epoch and continued: the records of a run that was not."""
    words = ("model=resnet8", "schedule=graduated", "epochs=4", "batch_size=32")
    start(part, command(part, folder, "whole", *words))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    torn = command(part, folder, "torn", *words)
    with subprocess.Popen(
        torn, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not _begun(folder / "torn") and part.left > 10:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    killed = len(records(folder / "torn"))
    done = start(part, torn)
    rows = [_without_times(one) for one in (folder / "whole", folder / "torn")]
    return {"ok": done.returncode == 0 and rows[0] == rows[1], "epochs at the kill": killed}


def _begun(runs: Path) -> bool:
    return any(runs.glob("*/checkpoint.pt"))


def _without_times(runs: Path) -> list[dict[str, Any]]:
    times = ("seconds", "images_per_second")
    return [{k: v for k, v in one.items() if k not in times} for one in records(runs)]


def sweep(part: Part, folder: Path, at_once: int) -> Found:
    """Eight small runs, so many at a time on the GPU."""
    runs = f"sweep{at_once}"
    words = command(
        part, folder, runs, "-m", "model=resnet8", "seed=0,1,2,3,4,5,6,7", "epochs=2",
        "batch_size=32", "dataset.samples=10000", "hydra/launcher=local",
        f"hydra.launcher.runs_per_gpu={at_once}",
    )  # fmt: skip
    began = time.perf_counter()
    done = start(part, words)
    if done.returncode:
        return {"ok": False, "tail": (done.stdout + done.stderr)[-2000:]}
    seconds = time.perf_counter() - began
    return {"runs": 8, "all s": seconds, "images/s in all": 8 * 2 * 10_000 / seconds}
