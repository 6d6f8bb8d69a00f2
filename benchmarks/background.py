"""The cost of records and checkpoints, written in the background or not.

`python -m benchmarks.background`: whole runs by igo.runs.session take turns. They train a ResNet18
with momentum, whose checkpoint has 90 MB.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from benchmarks import report
from benchmarks.cells import configure
from benchmarks.ratios import Row

EPOCHS, ROUNDS = 4, 2
RUN = (
    "dataset=digits", "model=resnet18", "optimizer=shb", "dataset.samples=512", "batch_size=128",
    "schedule=constant", "noise.batches=2", "noise.batch_size=8",
    "tracking=none", f"epochs={EPOCHS}",
)  # fmt: skip


def measure(rounds: int = ROUNDS, *overrides: str) -> list[Row]:
    """For each setting: the seconds that training waits for an epoch's record, and their share."""
    waited: dict[str, list[float]] = {"false": [], "true": []}
    epochs: dict[str, list[float]] = {"false": [], "true": []}
    for _ in range(rounds):
        for setting in waited:
            stalls, seconds = _run(setting, *overrides)
            waited[setting] += stalls
            epochs[setting] += seconds
    return [
        {
            "engine.background": setting,
            "waited s": median(waited[setting]),
            "most s": max(waited[setting]),
            "epoch s": median(epochs[setting]),
            "share": sum(waited[setting]) / (sum(waited[setting]) + sum(epochs[setting])),
        }
        for setting in waited
    ]


def _run(setting: str, *overrides: str) -> tuple[list[float], list[float]]:
    """Seconds from the end of each epoch to the next one, and of each epoch, without the first."""
    from igo.runs import session
    from igo.runs.terminal import Terminal
    from igo.train import loop

    ends: list[float] = []
    stalls: list[float] = []
    begin, end = loop._begin_epoch, loop._end_epoch

    def begun(*arguments: Any) -> Any:
        if ends:
            stalls.append(time.perf_counter() - ends[-1])
        return begin(*arguments)

    def ended(*arguments: Any) -> Any:
        result = end(*arguments)
        ends.append(time.perf_counter())
        return result

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(loop, "_begin_epoch", begun),
        mock.patch.object(loop, "_end_epoch", ended),
    ):
        more = (f"engine.background={setting}", f"runs_dir={folder}")
        path = session.run(configure(*RUN, *more, *overrides), Terminal(quiet=True))
        stalls.append(time.perf_counter() - ends[-1])  # a run waits for its last record
        records = [json.loads(line) for line in (Path(path) / "metrics.jsonl").open()]
    return stalls[1:], [record["seconds"] for record in records][1:]


if __name__ == "__main__":
    rows = measure()
    report.show("Records and checkpoints", rows)
    facts = report.facts(f"python -m benchmarks.background {' '.join(sys.argv[1:])}".strip())
    report.save({"facts": facts, "background": rows}, report.RESULTS / "background.json")
