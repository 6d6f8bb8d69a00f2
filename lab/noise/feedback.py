"""Does ``schedule.feedback=measured`` keep δ on its curve, and what does that do to training?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from igo.analysis import statistics
from igo.config.schema import Config
from igo.files import Record
from igo.runs.folder import read_records
from igo.runs.session import run as run_program
from lab.noise import Found, Row, Study


def feedback(study: Study, config: Config) -> Found:
    """Open loop and ``schedule.feedback=measured``, the same seeds, by the program itself."""
    rows: list[Row] = []
    for seed in range(config.seed, config.seed + study.seeds):
        for kind in ("none", "measured"):
            schedule = replace(config.schedule, feedback=kind)
            one = replace(config, seed=seed, schedule=schedule)
            rows += [feedback_row(one, record) for record in read_records(run_program(one))]
    return Found({"feedback": rows, "feedback_seeds": by_seed(rows)}, feedback_facts(rows), {})


def feedback_row(config: Config, record: Record) -> Row:
    """An epoch, whose δ_measured is from its own pieces, which the feedback never saw."""
    names = ("epoch", "stage", "updates", "eta_m", "b_m", "delta_measured", "train/loss",
             "test/accuracy")  # fmt: skip
    return {
        "seed": config.seed, "feedback": config.schedule.feedback,
        **{name: record[name] for name in names},
        "delta_target": record["delta_m"], "c2": record["gradient_variance"],
        "deviation": record["delta_measured"] / record["delta_m"] - 1,
    }  # fmt: skip


def by_seed(rows: list[Row]) -> list[Row]:
    """Each run's largest deviation over stages 2..M, and where it ended."""
    result = []
    for seed, kind in sorted({(row["seed"], row["feedback"]) for row in rows}):
        own = [row for row in rows if (row["seed"], row["feedback"]) == (seed, kind)]
        later = [row for row in own if row["stage"] > 1 and row["delta_target"] > 0]
        result.append({
            "seed": seed, "feedback": kind,
            "largest_deviation": max(abs(row["deviation"]) for row in later),
            "mean_deviation": np.mean([row["deviation"] for row in later]),
            "updates": own[-1]["updates"], "last_b_m": own[-1]["b_m"],
            "train/loss": own[-1]["train/loss"], "test/accuracy": own[-1]["test/accuracy"],
        })  # fmt: skip
    return result


def feedback_facts(rows: list[Row]) -> Row:
    """Means with intervals, paired differences measured - none, and how far C² grew."""
    ends = by_seed(rows)
    facts: Row = {"means": {}, "differences": {}, "p": {}, "growth": {}}
    names = ("largest_deviation", "mean_deviation",
             "test/accuracy", "train/loss", "updates")  # fmt: skip
    for name in names:
        kinds = {
            kind: np.array([row[name] for row in ends if row["feedback"] == kind], dtype=float)
            for kind in ("none", "measured")
        }
        for kind, values in kinds.items():
            facts["means"][name, kind] = statistics.mean_of(values)
        if name in ("test/accuracy", "train/loss"):
            differences = kinds["measured"] - kinds["none"]
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
