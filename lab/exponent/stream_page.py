"""The page results/exponent/stream.md. Every number on it is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from igo.analysis.statistics import LEVEL, Array, Estimate
from igo.report.phrases import p_value
from lab.exponent import trainings
from lab.exponent.stream import (
    CELLS,
    DRAWS,
    ETA,
    STUDIES,
    TRAININGS,
    B,
    Judged,
    fit_of,
    judge,
)
from lab.study.records import Run

LOSS = "test/loss"  # the file's test images are training images that no run trained on
PAGE = """# One pass over Fashion-MNIST: one exponent for η and b?

    python -m lab.exponent question=stream
    python -m lab.exponent question=stream first_seed=100 output=…    # again, with other seeds

**{first}**

Question (ii) of the [protocol](protocol.md), judged arm, with its amendments. Every image of a
run is new, Σ η = 80. The loss is that of the last parameters on 8,000 training images that no
run trained on. The fit is ln loss = g(ln η − ρ ln b), g a cubic, ρ in [−1, 3].

| claim | n | ρ̂ [interval] | p | p (Holm) | {power} | verdict |
|---|---|---|---|---|---|---|---|---|
{constants}

- ρ̂ = {rho} (95 %). The curve explains {explained:.1f} % of the variance of the 16 means.
- Lack of fit: F = {f:.3g}, p {p_fit}. Without what the cells of a seed share, p {within}; this
  second one does not judge.
- η ≤ 0.2 alone: ρ̂ = {slow}. η ≥ 0.4 alone: ρ̂ = {fast}. g is a parabola there.
- The interval of a claim is at the level that Holm gives it. A claim is *refuted* where its
  interval leaves it out. It is *confirmed* where the interval has it, is narrower than 0.4 and has
  not the other. Else it is *undecided*. Where lack of fit has p ≤ 0.05 both are *undecided*.
- The shares are of {studies} simulated studies in which a cubic fits and the spread between seeds
  is as here. The claim is true in them, or, under "false", the other claim.
- This arm is not stationary. It neither confirms nor refutes the law of question (i).

Mean loss over seeds, and the standard deviation between seeds:

| η | b = 8 | 16 | 32 | 64 |
|---|---|---|---|---|
{losses}

{hardware}{together}
"""
TOGETHER = """

All {n} seeds together, with the {first} of the first study, which were seen before the others were
run: ρ̂ = {rho}, lack of fit p {p_fit}. This has no verdict."""
POWER = "confirmed if true | refuted if true | refuted if false"


def text(runs: Mapping[str, Run], seeds: Sequence[int]) -> str:
    """The page of these seeds."""
    losses = np.array(list(TRAININGS.values(runs, seeds, LOSS).values()))
    judged = judge(losses)
    fit = judged.fit
    slow, fast = (_interval(half) for half in judged.halves.values())
    return PAGE.format(
        first=_first(judged), power=POWER, studies=STUDIES,
        constants="\n".join(_claims(judged)), rho=_interval(fit.exponent),
        explained=100 * fit.explained, f=fit.f, p_fit=p_value(fit.p_fit),
        within=p_value(judged.within), slow=slow, fast=fast,
        losses="\n".join(_losses(losses)),
        hardware=trainings.hardware(runs, TRAININGS.names(seeds)),
        together=_together(runs, seeds) if seeds[0] else "",
    )  # fmt: skip


def _together(runs: Mapping[str, Run], seeds: Sequence[int]) -> str:
    """The fit to the seeds of the first study and of a repetition together."""
    first = TRAININGS.complete(runs, range(TRAININGS.seeds))
    values = TRAININGS.values(runs, [*first, *seeds], LOSS)
    fit = fit_of(np.log(np.array(CELLS).T), np.log(np.array(list(values.values()))), DRAWS, 0)
    n = len(first) + len(seeds)
    rho, p_fit = _interval(fit.exponent), p_value(fit.p_fit)
    return TOGETHER.format(n=n, first=len(first), rho=rho, p_fit=p_fit)


def _first(judged: Judged) -> str:
    sentences = [
        f"ρ = {name}: {TRAININGS.verdict(judged.n, constant.verdict)}"
        for name, constant in judged.fit.constants.items()
    ]
    if judged.fit.p_fit <= LEVEL:
        sentences.append("no one exponent describes this grid")
    rho, planned = _interval(judged.fit.exponent), max(judged.n, TRAININGS.seeds)
    return f"{'; '.join(sentences)} (ρ̂ = {rho}, {judged.n} of {planned} seeds)."


def _claims(judged: Judged) -> list[str]:
    lines = []
    for name, constant in judged.fit.constants.items():
        power = judged.power[name]
        cells = [
            f"ρ = {name}", str(judged.n),
            _interval(Estimate(judged.fit.exponent.value, constant.low, constant.high)),
            p_value(constant.p), p_value(constant.adjusted), f"{power.confirms:.2f}",
            f"{power.errs:.2f}", f"{power.refutes:.2f}",
            TRAININGS.verdict(judged.n, constant.verdict),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _losses(losses: Array) -> list[str]:
    rows = losses.reshape(len(ETA), len(B), -1)
    return [
        f"| {eta:g} | "
        + " | ".join(f"{cell.mean():.4f} ± {cell.std(ddof=1):.4f}" for cell in row)
        + " |"
        for eta, row in zip(ETA, rows, strict=True)
    ]


def _interval(value: Estimate) -> str:
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]".replace("-", "−")
