"""What results/cifar100.md shows: the arms in both regimes, and how they trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from igo.ground.statistics import Estimate, reach
from igo.report.draw import plain_log
from lab.figures import COLOURS, drawn, forests
from lab.study.design import Runs
from lab.study.rows import Row, studies, table, title

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


def difference(row: Row) -> str:
    """The arms of a row: ``Method 3 − Method 1``."""
    return f"{title(row['first'])} − {title(row['second'])}"


def means(rows: Sequence[Row], runs: Runs) -> str:
    """Means over the seeds, as CSV, where "loss" is 100 ln of the test loss."""
    lines = []
    for experiment, study in studies(rows).items():
        for arm, records in study.arms(runs).items():
            line = {
                "regime": EXPERIMENTS[experiment],
                "seeds": len(records),
                "arm": arm,
                "updates": records[0]["epochs"][-1]["updates"],
            }
            for name, field in COLUMNS.items():
                is_measured = field in records[0]
                line[name] = np.mean([run[field] for run in records]) if is_measured else None
            lines.append(line)
    return pl.DataFrame(lines).write_csv(float_precision=2)


def summary(rows: Sequence[Row]) -> str:
    """The figure, and the rows that have a verdict."""
    return f"{FIGURE}\n{table([row for row in rows if row['family'] in JUDGED])}"


def draw(rows: Sequence[Row], runs: Runs, path: Path) -> None:
    """The differences by endpoint, and accuracy and η/√b by epoch, of many passes."""
    arms = studies(rows)["cifar100_many"].arms(runs)
    n = len(arms["Method 1"])
    with drawn(path, 3.2, 2.8, 2.8) as (forest, accuracy, noise):
        estimates: dict[str, list[Estimate]] = {}
        for row in rows:
            if row["family"] in FAMILIES:
                numbers = (row["found"][name] for name in ("statistic", "low", "high"))
                estimates.setdefault(FAMILIES[row["family"]], []).append(Estimate(*numbers))
        claims = [difference(row) for row in rows if row["family"] == "cifar_anew"]
        forests(forest, claims, {name: estimates[name] for name in FAMILIES.values()})
        forest.set_xlabel(f"points of test accuracy, 95 %, {n} seeds")
        for (arm, records), colour in zip(arms.items(), COLOURS, strict=False):
            epochs = [
                epoch["epoch"]
                for epoch in records[0]["epochs"]
                if epoch["test/accuracy"] is not None
            ]
            y = 100 * np.array(
                [[run["epochs"][i - 1]["test/accuracy"] for i in epochs] for run in records]
            )
            mean, half = y.mean(axis=0), reach(y.std(axis=0, ddof=1), n)
            accuracy.plot(epochs, mean, color=colour, lw=1.3, label=arm)
            accuracy.fill_between(epochs, mean - half, mean + half, color=colour, alpha=0.15, lw=0)
            levels = [epoch["eta_m"] / epoch["b_m"] ** 0.5 for epoch in records[0]["epochs"]]
            noise.step(range(1, len(levels) + 1), levels, color=colour, lw=1.3, where="mid")
        accuracy.set(xlabel="epoch", ylabel="test accuracy, %")
        accuracy.legend()
        noise.set(xlabel="epoch", ylabel="η/√b", yscale="log")
        plain_log(noise.yaxis)
