"""The η_1 that held-out images choose, from the runs of a sweep that tunes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable

import numpy as np
import polars as pl

from lab.study.records import Run
from lab.study.rows import LAST

LEFT_OUT = ("experiment", "dataset.samples", "dataset.validation", "learning_rate", "seed",
            "engine.threads", "epochs", "evaluate_every")  # fmt: skip


def held_out(run: Run) -> dict[str, object]:
    """A run's settings beside those of the whole sweep, its η_1, and its score.

    The score is the accuracy on held-out images in %, mean of the last five epochs. If they were
    measured with new statistics of BatchNorm, it is -100 ln of their loss, which varies less.
    """
    settings = [word for word in shlex.split(run.status["command"]) if "=" in word]
    typed = dict(word.split("=", 1) for word in settings)
    tuned = [f"{k}={v}" for k, v in typed.items() if k not in LEFT_OUT and not k.endswith("_dir")]
    score = -run.after.get("anew_validation_log_loss", math.nan)
    if math.isnan(score):
        score = 100 * float(np.mean([e["validation/accuracy"] for e in run.epochs[-LAST:]]))
    rate = float(typed["learning_rate"])
    return {"setting": " ".join(tuned), "rate": rate, "score": score}


def table(runs: Iterable[Run]) -> str:
    """A line for each setting: means over seeds.

    Chosen is the η_1 of the highest score, the smaller in a tie.
    """
    found = pl.DataFrame([held_out(run) for run in runs]).group_by("setting", "rate").mean()
    found = found.sort("setting", "rate")
    rates = found["rate"].unique().sort()
    lines = [
        f"| setting | {' | '.join(f'η₁ = {rate:g}' for rate in rates)} | chosen |",
        f"|---|{'---|' * (len(rates) + 1)}",
    ]
    for (setting,), of_setting in found.group_by("setting", maintain_order=True):
        by_rate = dict(of_setting.select("rate", "score").iter_rows())
        cells = [f"{by_rate[rate]:.2f}" if rate in by_rate else "–" for rate in rates]
        best = max(by_rate, key=lambda rate: round(by_rate[rate], 6))
        lines.append(f"| `{setting}` | {' | '.join(cells)} | {best:g} |")
    return "\n".join(lines) + "\n"
