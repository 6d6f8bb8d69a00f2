"""The time of a run's other work beside its updates: C², evaluation, checkpoint, record, W&B.

`python -m benchmarks.apart OVERRIDES` is the process that is measured: a whole run by
igo.runs.session with clocks around these calls.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import programs
from benchmarks.ratios import Row
from benchmarks.worker import synchronise

RUN = ("dataset=fashion_mnist", "schedule=graduated", "schedule.stages=5", "batch_size=32")


def measure(epochs: int, samples: int) -> list[Row]:
    """Seconds, calls and share of the whole run, for each part."""
    out, _ = programs.output(
        [sys.executable, "-m", "benchmarks.apart", *RUN, f"epochs={epochs}",
         f"dataset.samples={samples}"]
    )  # fmt: skip
    rows: list[Row] = json.loads(out.splitlines()[-1])
    return rows


def _timed(spent: dict[str, list[float]], name: str, owner: Any, attribute: str) -> None:
    """Put a clock around a function or method; its seconds go to ``spent``."""
    function: Callable[..., Any] = getattr(owner, attribute)

    def wrapped(*args: Any, **options: Any) -> Any:
        synchronise()
        began = time.perf_counter()
        result = function(*args, **options)
        synchronise()
        spent[name].append(time.perf_counter() - began)
        return result

    setattr(owner, attribute, wrapped)


def _child(overrides: list[str]) -> None:
    import torch

    from benchmarks.cells import configure
    from igo.runs import assemble, background, session, tracking
    from igo.train import engine, online
    from igo.train import measure as measuring

    spent: dict[str, list[float]] = defaultdict(list)
    timed = partial(_timed, spent)
    timed("finite or not, each update", torch, "_amp_foreach_non_finite_check_and_unscale_")
    timed("C² at the start of stages", measuring, "mini_batch")
    timed("C² online", online, "measured")
    timed("evaluation", engine.Engine, "evaluate")
    timed("checkpoint, copying the state", assemble, "state_of")
    timed("record and checkpoint, waited for", background.Writer, "do")
    timed("W&B, start", tracking, "start")
    timed("W&B, log", tracking.WandbTracker, "log")
    timed("W&B, finish", tracking.WandbTracker, "finish")
    with tempfile.TemporaryDirectory() as folder:
        config = configure(*overrides, f"runs_dir={folder}")
        began = time.perf_counter()
        path = session.run(config)
        whole = time.perf_counter() - began
        records = [json.loads(line) for line in (Path(path) / "metrics.jsonl").open()]
    epochs = sum(config.dataset.samples / record["images_per_second"] for record in records)
    spent["updates, data and bar"] = [
        epochs - sum(spent["C² online"]) - sum(spent["finite or not, each update"])
    ]
    spent["all else (reading data, building the model, …)"] = [
        whole - sum(sum(times) for times in spent.values())
    ]
    rows = [
        {"part": name, "calls": len(times), "seconds": sum(times), "share": sum(times) / whole}
        for name, times in spent.items()
    ]
    print("\n" + json.dumps(rows))


if __name__ == "__main__":
    _child(sys.argv[1:])
