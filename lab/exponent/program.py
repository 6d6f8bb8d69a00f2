"""The program of all questions: predict, run the cells without a record, judge, write the page."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import torch
from omegaconf import DictConfig
from polars.testing import assert_frame_equal
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn

from igo.config.load import split_off
from igo.ground.errors import ConfigError, UserError, nearest
from igo.ground.files import output_folder, write_atomically
from igo.method.ranges import AT_LEAST_ONE, Rule, at_least
from igo.runs.provenance import now, provenance
from lab.exponent import (
    answers,
    batchnorm,
    batchnorm_page,
    chains,
    checkpoint,
    critical,
    critical_page,
    judge,
    page,
)  # fmt: skip
from lab.exponent.chains import CENTRE, FASTER, POINTS, Cell
from lab.exponent.checkpoint import Checkpoint
from lab.exponent.tasks import TASKS

STAGES = {
    "stationary": ("all", "predictions", "runs"),
    "stream": ("all", "runs", "judge"),
    "sizes": ("all", "runs", "judge"),
    "momentum": ("all", "runs", "judge"),
    "critical": ("all", "tuning", "runs", "archive", "judge"),
    "batchnorm": ("all", "predictions", "runs", "judge"),
    "methods": ("all", "runs", "judge"),
}
EVEN: Rule = (lambda n: n >= 2 and n % 2 == 0, "it must be even, 2 or more")
SEEDS = 20  # of question (i)
NEAR = 0.01  # largest relative difference of losses of an end that returned to the checkpoint
ROUGHLY = 1e-4  # share of the initial gradient norm at which a descent from an end stops
FACTS = ("command", "commit", "python", "versions")


@dataclass
class Settings:
    """The settings of `python -m lab.exponent`; see exponent.yaml."""

    question: Annotated[str, tuple(STAGES)] = "stationary"
    stage: str = "all"
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    steps: list[float] = field(default_factory=lambda: [0.05, 0.2, 0.6, 1.0, 1.4, 1.8])
    seeds: Annotated[int | None, at_least(2)] = None
    first_seed: int = 0
    evaluations: Annotated[int, EVEN] = 200
    batch_factor: Annotated[int, AT_LEAST_ONE] = 1
    output: str = "results/exponent"
    data_dir: str = "data"

    @property
    def range_of_seeds(self) -> range:
        """The seeds, from the first on; by default as many as the protocol plans."""
        planned = {"critical": critical.SEEDS, "batchnorm": batchnorm.SEEDS}
        planned |= {question: trainings.seeds for question, trainings in answers.OF.items()}
        n = self.seeds or planned.get(self.question, SEEDS)
        return range(self.first_seed, self.first_seed + n)

    @property
    def cells(self) -> list[Cell]:
        """The cells of all tasks and steps."""
        return [Cell(task, h, self.batch_factor) for task in self.tasks for h in self.steps]


def run(composed: DictConfig) -> None:
    """Check the settings, predict, run the cells without a record, judge, write the page.

    Raises:
        UserError: a setting is invalid, or other predictions are on disk.
    """
    settings, _ = split_off(composed, Settings)
    check(settings)
    folder, console = output_folder(settings.output), Console(highlight=False, soft_wrap=True)
    if settings.question in answers.OF:
        answers.run(settings.question, settings.range_of_seeds, folder, settings.stage, console)
        return
    if settings.question == "critical":
        critical_page.run(settings.range_of_seeds, folder, settings.stage, console)
        return
    if settings.question == "batchnorm":
        seeds, data_dir = settings.range_of_seeds, Path(settings.data_dir)
        batchnorm_page.run(folder, seeds, data_dir, settings.stage, console)
        return
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for task in settings.tasks:
        cells = [cell for cell in settings.cells if cell.task == task]
        missing = [c for c in cells if not record_of(folder, c).exists()]
        if settings.stage != "predictions" and not missing:
            console.print(f"{task}: all {len(cells)} cells have their record")
            continue
        console.print(f"{task}: its minimum and Hessian")
        point = checkpoint.make(TASKS[task](Path(settings.data_dir)))
        keep(folder, predictions(point, cells))
        for cell in missing if settings.stage != "predictions" else []:
            record = run_cell(cell, point, settings, console)
            write_atomically(record_of(folder, cell), json.dumps(record, indent=1) + "\n")
            console.print(f"{cell.name}: {record['seconds']:.0f} s of CPU")
    if settings.stage == "all":
        judged = judge.judge(folder)
        page.write(folder, judged)
        console.print(judged.first_line)


def check(settings: Settings) -> None:
    """Check the settings that ``split_off`` does not check.

    Raises:
        ConfigError: a setting is invalid.
    """
    stages = STAGES[settings.question]
    if settings.stage not in stages:
        allowed = f"it must be one of {', '.join(stages)}.{nearest(settings.stage, stages)}"
        raise ConfigError("stage", settings.stage, allowed)
    for task in settings.tasks:
        if task not in TASKS:
            raise ConfigError("tasks", task, f"it must be of {', '.join(TASKS)}")
    if not settings.steps or not all(0 < h < chains.EDGE for h in settings.steps):
        raise ConfigError("steps", settings.steps, "each must be above 0 and below 2")


def record_of(folder: Path, cell: Cell) -> Path:
    """The file of a cell's record."""
    return folder / "cells" / f"{cell.name}.json"


def predicted_losses(point: Checkpoint, settings: list[tuple[float, int]]) -> np.ndarray:
    """Σ_i ηC_i²/(2b(2 − ηλ_i)) at each (η, b)."""
    return np.array([
        (eta * point.noise / (2 * b * (2 - eta * point.curvatures))).sum() for eta, b in settings
    ])  # fmt: skip


def predictions(point: Checkpoint, cells: list[Cell]) -> pl.DataFrame:
    """A row for each point of each cell: its setting and predicted excess objective."""
    largest = float(point.curvatures[0])
    rows = []
    for cell in cells:
        settings = cell.points(largest)
        for name, (eta, b), loss in zip(
            POINTS, settings, predicted_losses(point, settings), strict=True
        ):
            rows.append({
                "task": cell.task, "eta_lambda_max": cell.h, "point": name, "eta": eta, "b": b,
                "predicted_loss": float(loss), "lambda_max": largest,
                "lambda_min": float(point.curvatures[-1]), "l2": point.task.l2,
            })  # fmt: skip
    floats = ("eta", "predicted_loss", "lambda_max", "lambda_min")
    return pl.DataFrame(rows).with_columns(pl.col(floats).round_sig_figs(6))


def keep(folder: Path, predicted: pl.DataFrame) -> None:
    """Add predictions to predictions.csv. Predictions that are in the file must be the same.

    Raises:
        UserError: they differ, so that runs would be judged by others than the recorded ones.
    """
    path, keys = folder / "predictions.csv", ["task", "eta_lambda_max", "point"]
    before = pl.read_csv(path) if path.exists() else predicted.clear()
    known = before.join(predicted, on=keys, how="semi").sort(keys)
    new = predicted.join(before, on=keys, how="anti")
    try:
        recomputed = predicted.join(before, on=keys, how="semi").sort(keys)
        assert_frame_equal(known, recomputed, rel_tol=1e-3)
    except AssertionError:
        raise UserError(f"{path} has other predictions than those computed now") from None
    if len(new):
        write_atomically(path, pl.concat([before.cast(new.schema), new]).write_csv())


def run_cell(cell: Cell, point: Checkpoint, settings: Settings, console: Console) -> dict[str, Any]:
    """Run the five points of a cell with all seeds; return its record."""
    began = time.process_time()
    seeds = list(settings.range_of_seeds)
    length = chains.length(cell, point.curvatures, settings.evaluations)
    task = replace(point.task, x=point.task.x.float(), y=_single(point.task.y))
    bar = Progress(
        *Progress.get_default_columns()[:3], TimeElapsedColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        bar_task = bar.add_task(cell.name, total=2 * length.updates)
        averages = chains.run(
            task, point.at.float(), cell.points(float(point.curvatures[0])), seeds, length,
            cell.name, lambda updates: bar.advance(bar_task, updates),
        )  # fmt: skip
    return {
        "task": cell.task,
        "eta_lambda_max": cell.h,
        "points": [list(setting) for setting in cell.points(float(point.curvatures[0]))],
        "seeds": seeds,
        "updates": length.updates,
        "evaluations": length.evaluations,
        "halves": [[[_number(v) for v in row] for row in half] for half in averages.halves],
        "returned": {
            POINTS[k]: returned(point, averages.ends[:, k]) for k in (CENTRE, FASTER)
        },
        "seconds": time.process_time() - began,
        "written": now(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        **{name: value for name, value in provenance().items() if name in FACTS},
    }  # fmt: skip


def _single(y: torch.Tensor) -> torch.Tensor:
    return y.float() if y.is_floating_point() else y


def _number(value: float) -> float | None:
    return float(f"{value:.7g}") if np.isfinite(value) else None


def returned(point: Checkpoint, ends: torch.Tensor) -> int:
    """The number of ends (seeds, d) that descend to the checkpoint's loss within 1 %."""
    task = point.task
    function = checkpoint.full(task)
    at_checkpoint, first_norm = function(point.at)[0], float(function(task.initial(0))[1].norm())
    count = 0
    for end in ends.double():
        if bool(torch.isfinite(end).all()):
            value, _ = function(checkpoint.descend(task, end, first_norm * ROUGHLY))
            count += abs(value - at_checkpoint) <= NEAR * at_checkpoint
    return count
