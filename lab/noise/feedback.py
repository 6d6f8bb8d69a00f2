"""Does ``schedule.feedback=measured`` keep δ on its curve, and what does that do to training?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from igo.analysis import statistics
from igo.config.schema import Config
from igo.ground.files import Record
from igo.runs.folder import read_records
from igo.runs.session import run as run_program
from lab.noise import Findings, Row, Study


def feedback(study: Study, config: Config) -> Findings:
    """Train without feedback and with ``schedule.feedback=measured``, for the same seeds."""
    rows: list[Row] = []
    for seed in range(config.seed, config.seed + study.seeds):
        for kind in ("none", "measured"):
            schedule = replace(config.schedule, feedback=kind)
            run_config = replace(config, seed=seed, schedule=schedule)
            rows += [
                feedback_row(run_config, record) for record in read_records(run_program(run_config))
            ]
    return Findings({"feedback": rows, "feedback_seeds": by_seed(rows)}, feedback_facts(rows), {})


def feedback_row(config: Config, record: Record) -> Row:
    """The numbers of an epoch. The feedback and δ_measured come from different samples."""
    names = ("epoch", "stage", "updates", "eta_m", "b_m", "delta_measured", "train/loss",
             "test/accuracy")  # fmt: skip
    return {
        "seed": config.seed, "feedback": config.schedule.feedback,
        **{name: record[name] for name in names},
        "delta_target": record["delta_m"], "c2": record["gradient_variance"],
        "deviation": record["delta_measured"] / record["delta_m"] - 1,
    }  # fmt: skip


def by_seed(rows: list[Row]) -> list[Row]:
    """Each run's largest deviation over stages 2..M, and the numbers of its last epoch."""
    result = []
    for seed, kind in sorted({(row["seed"], row["feedback"]) for row in rows}):
        of_run = [row for row in rows if (row["seed"], row["feedback"]) == (seed, kind)]
        later = [row for row in of_run if row["stage"] > 1 and row["delta_target"] > 0]
        result.append({
            "seed": seed, "feedback": kind,
            "largest_deviation": max(abs(row["deviation"]) for row in later),
            "mean_deviation": np.mean([row["deviation"] for row in later]),
            "updates": of_run[-1]["updates"], "last_b_m": of_run[-1]["b_m"],
            "train/loss": of_run[-1]["train/loss"], "test/accuracy": of_run[-1]["test/accuracy"],
        })  # fmt: skip
    return result


def feedback_facts(rows: list[Row]) -> Row:
    """Means with intervals, paired differences measured - none, and the growth of C²."""
    ends = by_seed(rows)
    facts: Row = {"means": {}, "differences": {}, "p": {}, "growth": {}}
    names = ("largest_deviation", "mean_deviation",
             "test/accuracy", "train/loss", "updates")  # fmt: skip
    for name in names:
        by_kind = {
            kind: np.array([row[name] for row in ends if row["feedback"] == kind], dtype=float)
            for kind in ("none", "measured")
        }
        for kind, values in by_kind.items():
            facts["means"][name, kind] = statistics.mean_of(values)
        if name in ("test/accuracy", "train/loss"):
            differences = by_kind["measured"] - by_kind["none"]
            facts["differences"][name] = statistics.mean_of(differences)
            facts["p"][name] = statistics.sign_flip(differences)
    reference = {
        row["seed"]: (row["delta_target"] / row["eta_m"]) ** 2 * row["b_m"]
        for row in rows
        if row["epoch"] == 1
    }
    last = max(row["epoch"] for row in rows)
    for kind in ("none", "measured"):
        facts["growth"][kind] = statistics.mean_of([
            row["c2"] / reference[row["seed"]]
            for row in rows if (row["epoch"], row["feedback"]) == (last, kind)
        ])  # fmt: skip
    worst = [row["largest_deviation"] for row in ends if row["feedback"] == "measured"]
    facts["worst"] = max(worst)
    return facts
