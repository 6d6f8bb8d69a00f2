"""Folders of runs as training leaves them, their numbers drawn: plans are real, results are not."""

import copy
import json
import os
import random
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from conftest import TINY, configure
from omegaconf import DictConfig, OmegaConf

from igo.config.load import make_plan
from igo.config.schema import Config
from igo.ground.files import sealed
from igo.plans.plan import Plan
from igo.runs.folder import RunFolder
from igo.runs.name import path_of

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
    rows: list[dict[str, Any]] = []
    done = 0
    for epoch in range(1, plan.epochs + 1):
        stage = plan.rows_of_epoch(epoch)[0]
        updates = [plan.at(done + 1 + k) for k in range(plan.batches_of_epoch(epoch))]
        done += len(updates)
        rates = [update.learning_rate for update in updates]
        sizes = [update.batch_size for update in updates]
        eta, b = statistics.mean(rates), statistics.mean(sizes)
        delta = eta * (VARIANCE / b) ** 0.5
        rows.append(
            {
                "epoch": epoch,
                "stage": stage.stage,
                "updates": done,
                "samples": config.dataset.samples * epoch,
                "eta_m": eta,
                "b_m": b,
                "eta_largest": max(rates),
                "b_largest": max(sizes),
                "eta_over_sqrt_b": sum(eta * b**0.5 for eta, b in zip(rates, sizes, strict=True))
                / sum(sizes),
                "gamma_m": stage.gamma_m,
                "delta_m": delta,
                "reference_variance": VARIANCE,
                "delta_measured": delta * draw.uniform(0.8, 1.2) if len(sizes) > 1 else None,
                "gradient_variance": VARIANCE,
                "train/loss": draw.uniform(1, 1.2) / epoch,
                "train/accuracy": draw.random(),
                "test/loss": draw.uniform(1, 2),
                "images_per_second": 1000.0,
                "seconds": 1.0,
                "test/accuracy": 0.8 + draw.gauss(0, 0.01),
            }
        )
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
