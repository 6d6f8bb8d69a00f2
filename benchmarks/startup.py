"""The time from the start of the process to the end of the first update.

It is compared with importing torch alone, plus reading the data set after all imports. A second
comparison also makes an optimizer, which imports torch._dynamo: every training with torch.optim has
this cost. `python -m benchmarks.startup SECONDS OVERRIDES` is the process that is timed.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import programs
from benchmarks.ratios import Row, Spread

DATASETS = ("digits", "fashion_mnist")
TRACKING = ("wandb", "none")
BOUND = 1.5
READ = """
import sys, time
from pathlib import Path
from igo.data import readers
from igo.data.source import Place
readers.read(sys.argv[1], Place(Path("data")))
started = time.perf_counter()
readers.read(sys.argv[1], Place(Path("data")))
print(time.perf_counter() - started)
"""
OPTIMIZER = "import torch; torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)"


def measure(datasets: Sequence[str], repeats: int) -> list[Row]:
    """For each data set, with and without W&B: the ratios, and the seconds of each step."""
    rows: list[Row] = []
    for dataset in datasets:
        marks_by_tracking: dict[str, list[Row]] = {tracking: [] for tracking in TRACKING}
        for _ in range(repeats):
            torch_s = _wall([sys.executable, "-c", "import torch"])
            optimizer_s = _wall([sys.executable, "-c", OPTIMIZER])
            read_s = float(programs.output([sys.executable, "-c", READ, dataset])[0])
            for tracking in TRACKING:
                marks = first_update(f"dataset={dataset}", f"tracking={tracking}")
                marks_by_tracking[tracking].append(
                    {**marks, "import torch": torch_s, "with an optimizer": optimizer_s,
                     "read": read_s}
                )  # fmt: skip
        for tracking, repeated in marks_by_tracking.items():
            ratio, fair_ratio = (
                [marks["first update"] / (marks[imports] + marks["read"]) for marks in repeated]
                for imports in ("import torch", "with an optimizer")
            )
            medians = {
                name: Spread.of([marks[name] for marks in repeated]).median for name in repeated[0]
            }
            rows.append(
                {"dataset": dataset, "tracking": tracking, "ratio": Spread.of(ratio),
                 "bound": BOUND, "over_torch_with_an_optimizer": Spread.of(fair_ratio),
                 "seconds": medians}
            )  # fmt: skip
    return rows


def first_update(*overrides: str) -> dict[str, float]:
    """Seconds from the start of the process to each step before the first update."""
    command = [sys.executable, "-m", "benchmarks.startup", repr(time.time()), *overrides]
    out, _ = programs.output(command)
    marks: dict[str, float] = json.loads(out.splitlines()[-1])
    return marks


def _wall(command: list[str]) -> float:
    began = time.perf_counter()
    programs.output(command)
    return time.perf_counter() - began


def _child() -> None:
    """Train until the end of the first update; print the time of each step."""
    started = float(sys.argv.pop(1))
    marks = {"interpreter": time.time() - started}

    def marked(name: str, function: Callable[..., Any], last: bool = False) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            marks.setdefault(name, time.time() - started)
            if last:
                sys.__stdout__.write("\n" + json.dumps(marks) + "\n")  # type: ignore[union-attr]
                sys.__stdout__.flush()  # type: ignore[union-attr]
                os._exit(0)
            return result

        return wrapped

    from igo.runs import tracking
    from igo.train import (
        datasets,  # a run imports these anyway
        engine,
        measure,
        models,
    )

    marks["imports of the loop"] = time.time() - started
    for module, function, name in (
        (datasets, "open_data", "data"), (models, "build", "model"), (tracking, "start", "W&B"),
        (measure, "mini_batch", "C²"),
    ):  # fmt: skip
        setattr(module, function, marked(name, getattr(module, function)))
    step: Any = engine.Engine
    step.step = marked("first update", step.step, last=True)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        sys.argv = [programs.TRAIN, *sys.argv[1:], f"runs_dir={Path(folder)}"]
        runpy.run_path(programs.TRAIN, run_name="__main__")


if __name__ == "__main__":
    _child()
