"""Of results/cifar100.md: the tuning, the arms in both regimes, and how they trained."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from igo.ground.statistics import reach
from lab.figures import COLOURS, drawn, forests
from lab.study import rows as study
from lab.study import table
from lab.study.records import Arm, Run, name_of, reverses
from lab.study.rows import Row

EXPERIMENTS = {"cifar100_many": "many passes", "cifar100_few": "few passes"}
COLUMNS = {
    "running": "end_accuracy",
    "augmented": "anew_augmented_accuracy",
    "plain": "anew_accuracy",
    "augmented, annealed": "annealed_augmented_accuracy",
    "plain, annealed": "annealed_accuracy",
    "loss": "anew_log_loss",
    "annealed": "annealed_log_loss",
    "train loss": "end_train_loss",
}
FAMILIES = {
    "cifar_running": "running statistics",
    "cifar_augmented": "fresh, augmented images",
    "cifar_anew": "fresh, plain images",
}
JUDGED = ("cifar_anew", "cifar_anew_equal", "cifar_annealed")
FIGURE = "![The differences by endpoint; accuracy and η/√b by epoch](cifar100.png)\n"


def tuning(runs: Iterable[Run]) -> str:
    """-100 ln of the loss on held-out images, with new statistics, by schedule and η_1.

    Chosen is the η_1 of the highest.
    """
    scores: dict[str, dict[float, float]] = {}
    for run in runs:
        words = shlex.split(run.status["command"])
        settings = dict(word.split("=", 1) for word in words if "=" in word)
        of_method = scores.setdefault(settings["schedule"], {})
        of_method[float(settings["learning_rate"])] = -run.after["anew_validation_log_loss"]
    rates = sorted({rate for score_by_rate in scores.values() for rate in score_by_rate})
    lines = []
    for name, score_by_rate in sorted(scores.items()):
        cells = [f"{score_by_rate[rate]:.2f}" if rate in score_by_rate else "–" for rate in rates]
        lines.append([name, *cells, f"{max(score_by_rate, key=score_by_rate.__getitem__):g}"])
    return table.markdown(["schedule", *(f"η₁ = {rate:g}" for rate in rates), "chosen"], lines)


def title(arm: Arm) -> str:
    """The arm's name."""
    return f"Method {arm['schedule'][-1]}{' reversed' * reverses(arm)}"


def difference(row: Row) -> str:
    """The arms of a row by their numbers: ``3 − 1``."""
    name, other_name = (title(row[name]).removeprefix("Method ") for name in ("first", "second"))
    return f"{name} − {other_name}"


def trained(
    experiment: str, rows: Sequence[Row], runs: Mapping[str, Run]
) -> list[tuple[Arm, list[Run]]]:
    """The arms of an experiment, with the runs of its whole seeds."""
    of_it = [row for row in rows if row["experiment"] == experiment]
    seeds = study.seeds_of(of_it, runs)
    arms = study.arms(of_it) if seeds else []
    return [(arm, [runs[name_of(experiment, arm, seed)] for seed in seeds]) for arm in arms]


def means(rows: Sequence[Row], runs: Mapping[str, Run]) -> str:
    """Means over the seeds, as CSV, where "loss" is 100 ln of the test loss."""
    lines = []
    for experiment, regime in EXPERIMENTS.items():
        for arm, of_arm in trained(experiment, rows, runs):
            cells = {name: _mean(of_arm, field) for name, field in COLUMNS.items()}
            updates = of_arm[0].epochs[-1]["updates"]
            lines.append(
                {
                    "regime": regime,
                    "seeds": len(of_arm),
                    "arm": title(arm),
                    "updates": updates,
                    **cells,
                }
            )
    return pl.DataFrame(lines).write_csv(float_precision=2)


def _mean(runs: Sequence[Run], name: str) -> float | None:
    try:
        return float(np.mean([study.endpoint(run, name) for run in runs]))
    except KeyError:  # it was not measured
        return None


def summary(rows: Sequence[Row]) -> str:
    """The figure, and the rows that have a verdict."""
    return f"{FIGURE}\n{table.table([row for row in rows if row['family'] in JUDGED])}"


def draw(rows: Sequence[Row], runs: Mapping[str, Run], path: Path) -> None:
    """The differences by endpoint, and accuracy and η/√b by epoch, of many passes."""
    if not (arms := trained("cifar100_many", rows, runs)):
        return
    n = len(arms[0][1])
    with drawn(path, 3, 3.3, 3.1) as (forest, accuracy, noise):
        estimates = {
            name: [row["found"] for row in rows if row["family"] == family]
            for family, name in FAMILIES.items()
        }
        claims = [difference(row) for row in rows if row["family"] in list(FAMILIES)[:1]]
        forests(forest, claims, estimates)
        forest.set_xlabel(f"points of test accuracy, 95 %, {n} seeds")
        for (arm, of_arm), colour in zip(arms, COLOURS, strict=False):
            records = [e for e in of_arm[0].epochs if e["test/accuracy"] is not None]
            epochs = [e["epoch"] for e in records]
            y = 100 * np.array(
                [[run.epochs[i - 1]["test/accuracy"] for i in epochs] for run in of_arm]
            )
            mean, half = y.mean(axis=0), reach(y.std(axis=0, ddof=1), n)
            accuracy.plot(epochs, mean, color=colour, lw=1.3, label=title(arm))
            accuracy.fill_between(epochs, mean - half, mean + half, color=colour, alpha=0.15, lw=0)
            levels = [e["eta_m"] / e["b_m"] ** 0.5 for e in of_arm[0].epochs]
            noise.step(range(1, len(levels) + 1), levels, color=colour, lw=1.3, where="mid")
        accuracy.set(xlabel="epoch", ylabel="test accuracy, %")
        accuracy.legend()
        noise.set(xlabel="epoch", ylabel="η/√b", yscale="log")
