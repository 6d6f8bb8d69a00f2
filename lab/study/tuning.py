"""Which η_1 the validation images choose: results/tuning.md, from the records of study_tuning."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from lab.study.records import Run

LAST = 5
LEFT_OUT = ("experiment", "dataset.samples", "dataset.validation", "learning_rate", "seed")
Accuracies = dict[str, dict[str, dict[float, float]]]  # by experiment, setting and η_1


def setting_of(run: Run) -> tuple[str, str, float]:
    """The experiment, what was tuned in it, as it is typed, and its η_1."""
    words = [word for word in shlex.split(run.status["command"]) if "=" in word]
    typed = dict(word.split("=", 1) for word in words)
    own = [f"{k}={v}" for k, v in typed.items() if k not in LEFT_OUT and not k.endswith("_dir")]
    return typed["experiment"], " ".join(own), float(typed["learning_rate"])


def validation(runs: Iterable[Run]) -> Accuracies:
    """Mean validation accuracy in % of the last five epochs and all seeds."""
    found: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    for run in runs:
        if "validation/accuracy" in run.epochs[-1]:
            last = [record["validation/accuracy"] for record in run.epochs[-LAST:]]
            found[setting_of(run)].append(100 * float(np.mean(last)))
    means: Accuracies = {}
    for (experiment, setting, rate), of_seeds in sorted(found.items()):
        own = means.setdefault(experiment, {}).setdefault(setting, {})
        own[rate] = float(np.mean(of_seeds))
    return means


def best(rates: Mapping[float, float]) -> float:
    """The η_1 of highest accuracy, the smaller one in a tie."""
    return max(sorted(rates), key=lambda rate: round(rates[rate], 6))


def table(found: Accuracies) -> str:
    """An experiment after the other, a line a setting."""
    parts = (f"`experiment={name}`\n\n{_table(own)}" for name, own in found.items())
    return "\n".join(["# η₁ of each setting, chosen on held-out images\n", *parts])


def _table(found: Mapping[str, Mapping[float, float]]) -> str:
    rates = sorted({rate for own in found.values() for rate in own})
    lines = [
        f"| setting | {' | '.join(f'η₁ = {rate:g}' for rate in rates)} | chosen |",
        f"|---|{'---|' * (len(rates) + 1)}",
    ]
    for setting, own in found.items():
        cells = [f"{own[rate]:.2f}" if rate in own else "–" for rate in rates]
        lines.append(f"| `{setting}` | {' | '.join(cells)} | {best(own):g} |")
    return "\n".join(lines) + "\n"
