"""Which η_1 the validation images choose: results/tuning.md, from the records of study_tuning."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from study.records import Run

LAST = 5
LEFT_OUT = ("experiment", "dataset.samples", "dataset.validation", "learning_rate", "seed")


def setting_of(run: Run) -> tuple[str, float]:
    """What was tuned, as it is typed, and its η_1."""
    words = [word for word in shlex.split(run.status["command"]) if "=" in word]
    typed = dict(word.split("=", 1) for word in words)
    own = [f"{k}={v}" for k, v in typed.items() if k not in LEFT_OUT and not k.endswith("_dir")]
    return " ".join(own), float(typed["learning_rate"])


def validation(runs: Iterable[Run]) -> dict[str, dict[float, float]]:
    """Mean validation accuracy in % of the last five epochs and all seeds, by setting and η_1."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if "validation/accuracy" in run.epochs[-1]:
            setting, rate = setting_of(run)
            last = [record["validation/accuracy"] for record in run.epochs[-LAST:]]
            found[setting][rate].append(100 * float(np.mean(last)))
    return {
        setting: {rate: float(np.mean(some)) for rate, some in sorted(rates.items())}
        for setting, rates in sorted(found.items())
    }


def best(rates: Mapping[float, float]) -> float:
    """The η_1 of highest accuracy, the smaller one in a tie."""
    return max(sorted(rates), key=lambda rate: round(rates[rate], 6))


def table(found: Mapping[str, Mapping[float, float]]) -> str:
    """A line a setting."""
    rates = sorted({rate for own in found.values() for rate in own})
    lines = [
        f"| setting | {' | '.join(f'η₁ = {rate:g}' for rate in rates)} | chosen |",
        f"|---|{'---|' * (len(rates) + 1)}",
    ]
    for setting, own in found.items():
        cells = [f"{own[rate]:.2f}" if rate in own else "–" for rate in rates]
        lines.append(f"| `{setting}` | {' | '.join(cells)} | {best(own):g} |")
    return "\n".join(lines) + "\n"
