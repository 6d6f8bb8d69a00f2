"""results/tuning.md: the η_1 that the validation images choose, from the runs of study_tuning."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from lab.study.records import Run

LAST = 5
LEFT_OUT = ("experiment", "dataset.samples", "dataset.validation", "learning_rate", "seed")
Accuracies = dict[str, dict[str, dict[float, float]]]  # in %, by experiment, setting and η_1


def setting_of(run: Run) -> tuple[str, str, float]:
    """The experiment, the typed settings beside it, and η_1."""
    settings = [word for word in shlex.split(run.status["command"]) if "=" in word]
    typed = dict(word.split("=", 1) for word in settings)
    tuned = [f"{k}={v}" for k, v in typed.items() if k not in LEFT_OUT and not k.endswith("_dir")]
    return typed["experiment"], " ".join(tuned), float(typed["learning_rate"])


def validation(runs: Iterable[Run]) -> Accuracies:
    """Mean validation accuracy in % of the last five epochs, where evaluated, and all seeds."""
    accuracies: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    for run in runs:
        last_epochs = [record.get("validation/accuracy") for record in run.epochs[-LAST:]]
        if evaluated := [accuracy for accuracy in last_epochs if accuracy is not None]:
            accuracies[setting_of(run)].append(100 * float(np.mean(evaluated)))
    means: Accuracies = {}
    for (experiment, setting, rate), of_seeds in sorted(accuracies.items()):
        by_rate = means.setdefault(experiment, {}).setdefault(setting, {})
        by_rate[rate] = float(np.mean(of_seeds))
    return means


def best(rates: Mapping[float, float]) -> float:
    """The η_1 of highest accuracy; of equal accuracies, the smallest η_1."""
    return max(sorted(rates), key=lambda rate: round(rates[rate], 6))


def table(accuracies: Accuracies) -> str:
    """A table for each experiment, with a line for each setting."""
    sections = (
        f"`experiment={name}`\n\n{_table(by_setting)}" for name, by_setting in accuracies.items()
    )
    return "\n".join(["# η₁ of each setting, chosen on held-out images\n", *sections])


def _table(by_setting: Mapping[str, Mapping[float, float]]) -> str:
    rates = sorted({rate for by_rate in by_setting.values() for rate in by_rate})
    lines = [
        f"| setting | {' | '.join(f'η₁ = {rate:g}' for rate in rates)} | chosen |",
        f"|---|{'---|' * (len(rates) + 1)}",
    ]
    for setting, by_rate in by_setting.items():
        cells = [f"{by_rate[rate]:.2f}" if rate in by_rate else "–" for rate in rates]
        lines.append(f"| `{setting}` | {' | '.join(cells)} | {best(by_rate):g} |")
    return "\n".join(lines) + "\n"
