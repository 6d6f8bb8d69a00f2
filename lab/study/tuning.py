"""The η_1 that held-out images choose, from the runs of a sweep that tunes."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from lab.study.records import Run
from lab.study.rows import LAST

LEFT_OUT = ("experiment", "dataset.samples", "dataset.validation", "learning_rate", "seed",
            "engine.threads")  # fmt: skip
Accuracies = dict[str, dict[float, float]]  # in %, by setting and η_1


def setting_of(run: Run) -> tuple[str, float]:
    """The typed settings beside those that every run of the sweep has, and η_1."""
    settings = [word for word in shlex.split(run.status["command"]) if "=" in word]
    typed = dict(word.split("=", 1) for word in settings)
    tuned = [f"{k}={v}" for k, v in typed.items() if k not in LEFT_OUT and not k.endswith("_dir")]
    return " ".join(tuned), float(typed["learning_rate"])


def validation(runs: Iterable[Run]) -> Accuracies:
    """Mean accuracy on held-out images, in %, over seeds.

    Of a run it is the one with new statistics of BatchNorm if that was measured, else the mean of
    the last five epochs.
    """
    accuracies: dict[tuple[str, float], list[float]] = defaultdict(list)
    for run in runs:
        value = run.after.get("anew_validation")
        if value is None:
            value = 100 * float(np.mean([e["validation/accuracy"] for e in run.epochs[-LAST:]]))
        accuracies[setting_of(run)].append(value)
    means: Accuracies = {}
    for (setting, rate), of_seeds in sorted(accuracies.items()):
        means.setdefault(setting, {})[rate] = float(np.mean(of_seeds))
    return means


def table(accuracies: Accuracies) -> str:
    """A line for each setting. Chosen is the η_1 of highest accuracy, the smaller in a tie."""
    rates = sorted({rate for by_rate in accuracies.values() for rate in by_rate})
    lines = [
        f"| setting | {' | '.join(f'η₁ = {rate:g}' for rate in rates)} | chosen |",
        f"|---|{'---|' * (len(rates) + 1)}",
    ]
    for setting, by_rate in accuracies.items():
        cells = [f"{by_rate[rate]:.2f}" if rate in by_rate else "–" for rate in rates]
        best = max(sorted(by_rate), key=lambda rate: round(by_rate[rate], 6))
        lines.append(f"| `{setting}` | {' | '.join(cells)} | {best:g} |")
    return "\n".join(lines) + "\n"
