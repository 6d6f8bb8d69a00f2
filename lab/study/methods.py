"""Of results/cifar100.md: the tuning, a table of the arms in both regimes, and how they trained."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from igo.ground.files import Record
from lab.figures import COLOURS, drawn
from lab.study import rows as study
from lab.study import table
from lab.study.records import Arm, Run, name_of, reverses
from lab.study.rows import Row

EXPERIMENTS = {"cifar100_many": "many passes", "cifar100_few": "few passes"}
COLUMNS = {
    "accuracy, %": "anew_accuracy", "loss": "anew_log_loss", "training loss": "anew_train_loss",
    "annealed: accuracy": "annealed_accuracy", "annealed: loss": "annealed_log_loss",
    "augmented: accuracy": "anew_augmented_accuracy",
    "annealed, augmented: accuracy": "annealed_augmented_accuracy",
    "running: accuracy": "end_accuracy",
}  # fmt: skip
FIGURE = (
    "![Accuracy, loss, η/√b and δ by epoch and by update, with running statistics](cifar100.png)\n"
)


def tuning(runs: Iterable[Run]) -> str:
    """-100 ln of the loss on held-out images, with new statistics, by schedule and η_1.

    Chosen is the η_1 of the highest.
    """
    scores: dict[str, dict[float, float]] = {}
    for run in runs:
        words = shlex.split(run.status["command"])
        typed = dict(word.split("=", 1) for word in words if "=" in word)
        of_method = scores.setdefault(typed["schedule"], {})
        of_method[float(typed["learning_rate"])] = -run.after["anew_validation_log_loss"]
    rates = sorted({rate for found in scores.values() for rate in found})
    lines = []
    for name, found in sorted(scores.items()):
        cells = [f"{found[rate]:.2f}" if rate in found else "–" for rate in rates]
        lines.append([name, *cells, f"{max(found, key=found.__getitem__):g}"])
    return table.markdown(["schedule", *(f"η₁ = {rate:g}" for rate in rates), "chosen"], lines)


def title(arm: Arm) -> str:
    """The arm's name."""
    return f"Method {arm['schedule'][-1]}{' reversed' * reverses(arm)}"


def trained(
    experiment: str, rows: Sequence[Row], runs: Mapping[str, Run]
) -> list[tuple[Arm, list[Run]]]:
    """The arms of an experiment, with the runs of its whole seeds."""
    of_it = [row for row in rows if row["experiment"] == experiment]
    seeds = study.seeds_of(of_it, runs)
    arms = study.arms(of_it) if seeds else []
    return [(arm, [runs[name_of(experiment, arm, seed)] for seed in seeds]) for arm in arms]


def summary(rows: Sequence[Row], runs: Mapping[str, Run]) -> str:
    """A table of means over seeds; "loss" is 100 ln of the test loss."""
    lines = []
    for experiment, regime in EXPERIMENTS.items():
        for arm, of_arm in trained(experiment, rows, runs):
            updates = f"{of_arm[0].epochs[-1]['updates']:,}"
            means = [_mean(of_arm, name) for name in COLUMNS.values()]
            lines.append([f"{regime}, {len(of_arm)}", title(arm), updates, *means])
    if lines:
        head = ("regime, seeds", "arm", "updates", *COLUMNS)
        return f"{table.markdown(head, lines)}\n{FIGURE}"
    many = [row for row in rows if row["experiment"] == "cifar100_many"]
    done = len(study.whole_seeds(many, runs)) // len(study.arms(many))
    return f"**{done} seeds have run; {many[0]['least']} are needed.**\n"


def _mean(runs: Sequence[Run], name: str) -> str:
    try:
        return f"{np.mean([study.endpoint(run, name) for run in runs]):.2f}"
    except KeyError:  # it was not measured
        return "–"


def draw(rows: Sequence[Row], runs: Mapping[str, Run], path: Path) -> None:
    """Accuracy, loss, η/√b and δ by epoch and by update, means over the seeds of many passes."""
    if not (arms := trained("cifar100_many", rows, runs)):
        return
    panels: dict[str, Callable[[Record], float]] = {
        "test accuracy, %": lambda e: 100 * e["test/accuracy"],
        "test loss": lambda e: e["test/loss"],
        "η/√b": lambda e: e["eta_m"] / e["b_m"] ** 0.5,
        "δ measured": lambda e: e["delta_measured"],
    }  # fmt: skip
    with drawn(path, 2, 4.7, 1.7, rows=len(panels)) as axes:
        for place, (label, value) in enumerate(panels.items()):
            for (arm, of_arm), colour in zip(arms, COLOURS, strict=False):
                shown = [e["epoch"] - 1 for e in of_arm[0].epochs if e["test/accuracy"] is not None]
                y = np.mean([[value(run.epochs[i]) for i in shown] for run in of_arm], axis=0)
                for column, name in enumerate(("epoch", "updates")):
                    x, ax = [of_arm[0].epochs[i][name] for i in shown], axes[2 * place + column]
                    ax.plot(x, y, color=colour, lw=1.3, label=title(arm))
                    ax.set_ylabel(label)
                    ax.set_xlabel(name.rstrip("s") if place == len(panels) - 1 else "")
                    ax.set_yscale("log" if place > 1 else "linear")
        axes[0].legend()
