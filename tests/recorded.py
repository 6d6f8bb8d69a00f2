"""Folders of runs as training leaves them, their numbers drawn: plans are real, results are not."""

import copy
import json
import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from conftest import TINY, configure, updates_of
from omegaconf import DictConfig, OmegaConf

from igo.config.load import make_plan
from igo.config.schema import Config
from igo.ground.files import sealed
from igo.noise.noise import Noise
from igo.plans.plan import Plan
from igo.runs.folder import RunFolder
from igo.runs.name import path_of
from igo.train.training import Epoch, Progress, record_of

VARIANCE = 40.0  # C² of every run
HARDWARE = {"device": "cpu", "cpu": "A CPU", "cores": 2, "threads": 1, "precision": "bfloat16"}
METHODS = {
    "Method 1 (constant)": ("schedule=constant",),
    "Method 2": ("schedule=step", "schedule.kappa=0.7071067811865476", "schedule.lam=1"),
    "Method 3": ("schedule=step", "schedule.kappa=1", "schedule.lam=2"),
    "Method 4": ("schedule=step", "schedule.kappa=0.8660254037844386", "schedule.lam=1.5"),
}


def record_runs(
    root: Path,
    *overrides: str,
    seeds: Iterable[int] = range(3),
    accuracies: Sequence[float] | None = None,
    tiny: bool = True,
) -> list[Path]:
    """Finished runs of one setting, a folder for each seed; the last accuracies may be given."""
    config = configure(*(TINY if tiny else ()), *overrides, f"runs_dir={root}")
    folders = []
    for index, seed in enumerate(seeds):
        seeded = copy.deepcopy(config)
        seeded.seed = seed
        last_accuracy = None if accuracies is None else accuracies[index]
        folders.append(_write(seeded, overrides, last_accuracy))
    return folders


def _write(config: Config, overrides: Sequence[str], last_accuracy: float | None) -> Path:
    folder, plan = RunFolder(path_of(config)), make_plan(config)
    folder.path.mkdir(parents=True)
    rows = _records(config, plan, random.Random(f"{overrides} {config.seed}"))
    if last_accuracy is not None:
        rows[-1]["test/accuracy"] = last_accuracy
    folder.begin_status(
        state="finished",
        started="2025-01-02T03:04:05+0000",
        commit="c0ffee" * 6,
        host="here",
        command=f"python '/a clone/src/train.py' {' '.join(overrides)} seed={config.seed}",
        python="3.11.0",
        versions={"torch": "2.9.0"},
        hardware=HARDWARE,
        seconds=2.5,
    )
    folder.write_plan(config, plan)
    folder.write_records(rows)
    edit(folder.path, seals=None, epochs=None)  # A test may change the files.
    return folder.path


def _records(config: Config, plan: Plan, draw: random.Random) -> list[dict[str, Any]]:
    """In the program's own form; δ as measured is up to 20 % off."""
    noise = Noise(VARIANCE, None, 1.0, batch_size=32, batches=4, sampling="consecutive")
    progress, rows = Progress(reference=noise), []
    run: Any = Mock(config=config, batches=Mock(updates=0), data=Mock(n=plan.n))
    run.engine.scaler.is_enabled.return_value = False
    run.optimizer.param_groups = [{}]
    for epoch in range(1, plan.epochs + 1):
        updates = [update for update in updates_of(plan) if update.epoch == epoch]
        run.batches.updates += len(updates)
        progress.epoch, progress.samples = epoch, plan.n * epoch
        results = Epoch(
            loss=draw.uniform(1, 1.2) / epoch,
            accuracy=draw.random(),
            skipped=0,
            rates=[update.learning_rate for update in updates],
            sizes=[update.batch_size for update in updates],
            seconds=1.0,
            noise=replace(noise, variance=VARIANCE * draw.uniform(0.8, 1.2) ** 2)
            if len(updates) > 1
            else None,
            twins=[],
        )
        evaluation = {
            "test/loss": draw.uniform(1, 2),
            "test/accuracy": 0.8 + draw.gauss(0, 0.01),
            "seconds": 1.0,
        }
        rows.append(record_of(run, updates[-1].row, results, evaluation, progress))
    return rows


def words_of(runs: Path, output: Path | None = None, target: float | None = None) -> DictConfig:
    """What ``igo table`` and ``igo report`` are told: runs=RUNS output=OUTPUT target=TARGET."""
    names = {"runs": str(runs), "output": output and str(output)}
    return OmegaConf.create(names | {"target": target, "margin": 0.5})


def edit(folder: Path, **changes: object) -> None:
    """Change entries of a run's status, as igo would, with its seal."""
    file = folder / "status.json"
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(sealed(content)))


class Trap:
    """Unpickling it makes a folder: proof that code ran."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)
