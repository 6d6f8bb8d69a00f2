"""Question (v): from the runs to results/exponent/critical.md and its figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console

from igo.analysis import style
from igo.analysis.statistics import Array, Estimate
from igo.ground.errors import UserError
from igo.ground.files import write_atomically
from igo.report.phrases import p_value
from lab.exponent import critical_runs
from lab.exponent.critical import FACTOR, SEEDS, STUDIES, Judged, judge
from lab.exponent.critical_runs import (
    ETA,
    MEASURED_B,
    TARGET,
    TUNING_SEEDS,
    B,
    Runs,
    Training,
    name_of,
)

Record = Mapping[str, Any]
Records = Mapping[str, Record]

PAGE = """# Updates to a target loss, and the critical batch

    python -m lab.exponent question=critical

**{first}**

Question (v) of the [protocol](protocol.md) with its amendments. K(b) is the number of updates until
the training loss, smoothed over the last 8,192 samples, is below {target}: Fashion-MNIST at 14×14
pixels, one stream of shuffled epochs, ResNet-8 of width 8, constant η, no momentum. The η of each b
was chosen with seeds 1000 and 1001; above b = 128 with 1000 alone; above 256 of three η.

![K(b) of every run, the fitted curve, and the measured B_simple](critical.png)

| b | η | K, mean over seeds | fit | samples | K of each seed |
|---|---|---|---|---|---|
{rows}

| quantity | value [95 %] |
|---|---|
| K_min | {least:.1f} |
| b_crit | {critical} |
| B_simple, the median of the runs at b = {measured_b} | {scale} |
| b_crit/B_simple | {ratio} |
| b_crit, with K counted to the middle of the window; not judged | {off} |

- The fit is least squares of ln K, averaged over seeds, to ln(K_min(1 + b_crit/b)). Means are
  geometric. Intervals are of 10,000 bootstrap draws of whole seeds. They do not have the chance in
  the choice of η, and {n} seeds make them too narrow rather than too wide.
- *Confirmed*: the interval of b_crit/B_simple is within [1/{factor:g}, {factor:g}]. *Refuted*: it
  is wholly outside. Else *undecided*, as where more than two b have a censored run.
  Here {censored}.
- Lack of fit: F = {f:.3g}, p {p}. It compares the means with the spread between seeds, and judges
  nothing.
- Of {studies} simulated studies with this curve and spread, {equal:.0%} confirm a true b_crit =
  B_simple and {wrong:.0%} refute it. If b_crit is 4 · B_simple, {right:.0%} refute and {missed:.0%}
  confirm.
- B_simple is `noise_scale` of an `igo.NoiseMeter`: at every 32nd update 8 batches of 32 images,
  drawn for this alone; half-life 2,048 of these images. Medians of the runs: {scales}.
- The smoothed loss is that of 4,096 samples before, on average. This lag is {lag:.0f} updates at
  b = 8 and 4 at b = 1,024.

Tuning: K by η, seed by seed. `>`: the run stopped there, as the sum of the seeds is above the
least of its b. `–`: a loss was not finite. The choice, with the least sum, is bold. b = 512 and
1,024 tried the choice of the next smaller b, its half and its double.

| b | {etas} |
|---|{dashes}|
{tuning}

{ends}

{hardware}
"""


def run(seeds: range, folder: Path, stage: str, console: Console) -> None:
    """Tune, run, judge or archive, as the stage says; judging writes the page and the figure.

    Raises:
        UserError: tuning is not complete, or fewer than two seeds are complete.
    """
    if stage == "archive":
        critical_runs.archive()
    elif stage != "judge":
        torch.set_num_threads(1)
        images, labels = critical_runs.data()
        runs = Runs(
            lambda b, eta, seed, measured: Training(images, labels, b, eta, seed, measured),
            report=lambda line: console.print(line, markup=False),
        )
        etas = runs.tune_all()
        for seed in seeds if stage != "tuning" else []:
            for b in B:
                runs.run("judged", b, etas[b], seed, critical_runs.end(b))
    if stage in ("all", "judge"):
        records = critical_runs.recorded()
        page = text(records, seeds)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "critical.md", page)
        draw(*judged_of(of_records(records, seeds)[0]), folder / "critical.png")
        console.print(page.split("**")[1], markup=False)


def tuned(records: Records) -> dict[int, float]:
    """The η of each b, from the recorded tuning runs.

    Raises:
        UserError: an η of the grid has no tuning run.
    """
    etas: dict[int, float] = {}
    for b in B:
        tried = critical_runs.grid(b, next(reversed(etas.values()), critical_runs.FIRST_TRIED))
        of_b = [
            dict(records[name])
            for eta in tried
            for seed in TUNING_SEEDS[b]
            if (name := name_of("tuning", b, eta, seed)) in records
        ]
        known = len({record["eta"] for record in of_b})
        if known < len(tried):
            raise UserError(f"b = {b}: {known} of {len(tried)} η have a tuning run")
        etas[b] = critical_runs.chosen(of_b)
    return etas


def of_records(records: Records, seeds: Sequence[int]) -> tuple[list[list[Record]], list[int]]:
    """The judged runs, (8, seeds), of the first seeds that all b have, and these seeds.

    Raises:
        UserError: fewer than two seeds are complete; a run has another η or target.
    """
    etas, complete = tuned(records), []
    for seed in seeds:
        if any(name_of("judged", b, etas[b], seed) not in records for b in B):
            break
        complete.append(seed)
    if len(complete) < 2:
        raise UserError(f"{len(complete)} seeds have all b; an interval needs 2 or more")
    runs = [[records[name_of("judged", b, etas[b], seed)] for seed in complete] for b in B]
    for b, of_b in zip(B, runs, strict=True):
        if {(r["eta"], r["target"]) for r in of_b} != {(etas[b], TARGET)}:
            raise UserError(f"judged runs of b = {b} have another η or target than now")
    return runs, complete


def judged_of(runs: list[list[Record]]) -> tuple[Judged, Array]:
    """The judgement of these runs, and their K; a run that diverged has its limit as K."""
    updates = np.array([
        [float(r["limit"] if r["state"] == "diverged" else r["updates"]) for r in of_b]
        for of_b in runs
    ])  # fmt: skip
    censored = np.array([[r["state"] != "arrived" for r in of_b] for of_b in runs])
    scales = np.array([median_scale(record) for record in runs[B.index(MEASURED_B)]])
    return judge(updates, censored, scales), updates


def median_scale(record: Mapping[str, Any]) -> float:
    """The median B_simple of a run. A measurement with ‖∇f‖² ≤ 0 counts as ∞."""
    return float(np.median([math.inf if s is None else s for s in record["scales"]]))


def text(records: Records, seeds: Sequence[int]) -> str:
    """The page of the first seeds that all b have."""
    runs, _ = of_records(records, seeds)
    judged, updates = judged_of(runs)
    etas = tuned(records)
    rows = []
    for b, of_b in zip(B, updates, strict=True):
        mean = math.exp(np.log(of_b).mean())
        fit = judged.least * (1 + judged.critical.value / b)
        each = ", ".join(f"{k:,.0f}" for k in of_b)
        rows.append(
            f"| {b:,} | {etas[b]:g} | {mean:,.0f} | {fit:,.0f} | {mean * b:,.0f} | {each} |"
        )
    scales = [median_scale(record) for record in runs[B.index(MEASURED_B)]]
    return PAGE.format(
        first=_first(judged), target=TARGET, rows="\n".join(rows),
        least=judged.least, critical=_wide(judged.critical), measured_b=MEASURED_B,
        scale=_wide(judged.scale), ratio=_ratio(judged.ratio), off=_wide(judged.off),
        n=judged.n, factor=FACTOR, f=judged.f, p=p_value(judged.p_fit),
        censored=f"{judged.censored} b have one" if judged.censored else "no run is censored",
        equal=judged.power.confirmed_if_equal, wrong=judged.power.refuted_if_equal,
        right=judged.power.refuted_if_fourfold, missed=judged.power.confirmed_if_fourfold,
        scales=", ".join(f"{s:,.0f}" for s in scales), lag=4096 / B[0], studies=STUDIES,
        etas=" | ".join(f"{eta:g}" for eta in ETA), dashes="|".join(["---"] * len(ETA)),
        tuning="\n".join(_tuning(records, b, etas[b]) for b in B), ends=_ends(etas),
        hardware=_hardware(records),
    )  # fmt: skip


def _first(judged: Judged) -> str:
    verdict = judged.verdict if 2 * judged.n >= SEEDS else "not run"
    return (
        f"B_simple predicts b_crit: {verdict} (b_crit/B_simple = {_ratio(judged.ratio)},"
        f" {judged.n} of {SEEDS} seeds)."
    )


def _wide(value: Estimate) -> str:
    return f"{value.value:,.0f} [{value.low:,.0f}, {value.high:,.0f}]"


def _ratio(value: Estimate) -> str:
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _tuning(records: Records, b: int, chosen: float) -> str:
    shapes = {"arrived": "{:,}", "limit": "> {:,}", "diverged": "–"}
    cells = []
    for eta in ETA:
        names = [name_of("tuning", b, eta, seed) for seed in TUNING_SEEDS[b]]
        known = [records[name] for name in names if name in records]
        shown = " + ".join(shapes[r["state"]].format(r["updates"]) for r in known)
        cells.append(f"**{shown}**" if eta == chosen else shown)
    return f"| {b:,} | {' | '.join(cells)} |"


def _ends(etas: Mapping[int, float]) -> str:
    at_end = [f"{b:,}" for b, eta in etas.items() if eta in (ETA[0], ETA[-1])]
    if not at_end:
        return "No choice is at an end of the grid."
    return f"At an end of the grid: b = {', '.join(at_end)}. A better η may lie beyond it there."


def _hardware(records: Records) -> str:
    kinds = {f"{r['cpu']}, {r['threads']} thread, PyTorch {r['versions']['torch']}"
             for r in records.values()}  # fmt: skip
    commits = sorted({str(r["commit"])[:7] for r in records.values()})
    seconds = sum(r["seconds"] for r in records.values())
    return (
        f"{len(records)} runs on {'; '.join(sorted(kinds))}, float32; {seconds:,.0f} s of a core,"
        f" at commit {', '.join(commits)}."
    )


def draw(judged: Judged, updates: Array, path: Path) -> None:
    """K(b) of every run, the fitted curve, b_crit with its interval, and B_simple."""
    measured, fitted, scale = (c.light for c in (style.BLUE, style.INK, style.VERMILION))
    with mpl.rc_context(style.STYLE):
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.subplots()
        for k in range(judged.n):
            axes.plot(B, updates[:, k], "o", color=measured, ms=3, label="runs" if not k else None)
        b = np.geomspace(B[0], B[-1], 200)
        curve = judged.least * (1 + judged.critical.value / b)
        axes.plot(b, curve, color=fitted, label=r"$K_{\min}(1 + b_{\rm crit}/b)$")
        lines = (("b_{crit}", judged.critical, fitted, ":"),
                 ("B_{simple}", judged.scale, scale, "--"))  # fmt: skip
        for name, value, colour, dashes in lines:
            axes.axvspan(value.low, value.high, color=colour, alpha=0.12, lw=0)
            axes.axvline(value.value, color=colour, ls=dashes, label=f"$\\mathrm{{{name}}}$")
        axes.set(xscale="log", yscale="log", xlabel="b", ylabel=f"updates to a loss of {TARGET}")
        axes.legend()
        figure.savefig(path, dpi=150, metadata={"Software": None})
