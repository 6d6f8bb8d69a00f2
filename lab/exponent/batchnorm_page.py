"""Question (iii): the verdict on BatchNorm's four cells by the protocol's rule, and the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.console import Console
from scipy import stats

from igo.analysis.statistics import LEVEL, Array, holm
from igo.ground.errors import UserError
from igo.ground.files import write_atomically
from lab.exponent import batchnorm, judge
from lab.exponent.chains import CENTRE
from lab.exponent.judge import Test

GAP = 0.25
MOST_FAILED = 1  # of four cells
NEGATIVE = "excess not above 0"


@dataclass(frozen=True)
class Judged:
    """The cells and the verdict; if the law's regime was reached, tests and squared errors."""

    cells: list[dict[str, Any]]
    n: int
    tests: list[Test]
    rivals: dict[str, float]
    verdict: str
    why: str

    @property
    def first_line(self) -> str:
        """The verdict, after a warning if the best constant is nearer than the law."""
        text = f"the law on a network with BatchNorm: {self.verdict} ({self.why})"
        if self.rivals and self.rivals["the best constant"] < self.rivals["the law"]:
            return f"a constant ρ is nearer than the law; {text}"
        return text


def run(folder: Path, seeds: range, data_dir: Path, stage: str, console: Console) -> None:
    """Predict, run the cells without a record, judge, and write the page.

    Raises:
        UserError: fewer than two seeds have all cells.
    """
    torch.set_num_threads(1)
    kept = folder / batchnorm.RESULTS
    if stage != "judge":
        batchnorm.predict(kept, data_dir, console)
    if stage in ("all", "runs"):
        batchnorm.run(kept, seeds, data_dir, console)
    if stage in ("all", "judge"):
        page = page_of(kept, seeds)
        write_atomically(folder / "batchnorm.md", page)
        console.print(page.split("**")[1], markup=False)


def together(records: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One record for each cell, of these seeds up to the first that a cell lacks.

    Raises:
        UserError: fewer than two seeds.
    """
    by_key = {(r["eta_lambda_max"], r["seeds"][0]): r for r in records}
    whole = []
    for seed in seeds:
        if any((h, seed) not in by_key for h in batchnorm.STEPS):
            break
        whole.append(seed)
    if len(whole) < 2:
        raise UserError(f"batchnorm: {len(whole)} seeds have all cells; a test needs 2 or more")
    cells = []
    for h in batchnorm.STEPS:
        each = [by_key[h, seed] for seed in whole]
        cells.append({
            **each[0],
            "seeds": whole,
            "halves": [[record["halves"][half][0] for record in each] for half in range(2)],
            "returned": {
                point: sum(record["returned"][point] for record in each)
                for point in each[0]["returned"]
            },
            "norms": [record["norms"] for record in each],
            "seconds": sum(record["seconds"] for record in each),
        })  # fmt: skip
    return cells


def decide(records: Sequence[dict[str, Any]], predicted: pl.DataFrame) -> Judged:
    """Judge the records of the cells by the protocol's rule for (iii)."""
    random = np.random.default_rng(0)
    cells = []
    for record in records:
        with np.errstate(invalid="ignore", divide="ignore"):  # resampled means may be below 0
            cell = judge.cell_of(record, predicted, random, len(records))[0]
        halves = np.array(record["halves"], dtype=np.float64)
        if "measured" not in cell and np.isfinite(halves).all():
            cell["why_out"] = NEGATIVE
        cells.append(cell)
    n, inside = len(records[0]["seeds"]), [cell for cell in cells if cell["passed"]]
    if len(cells) - len(inside) > MOST_FAILED:
        failed = f"{len(cells) - len(inside)} of {len(cells)} cells fail a guard"
        why = f"the regime of the law was not reached: {failed}"
        return Judged(cells, n, [], {}, "undecided", why)
    measured, expected, errors = (
        np.array([cell[key] for cell in inside]) for key in ("measured", "predicted", "error")
    )
    tests, rivals = _tests(measured, expected, errors)
    verdict, why = _verdict(cells, tests)
    return Judged(cells, n, tests, rivals, verdict, why)


def _tests(measured: Array, expected: Array, errors: Array) -> tuple[list[Test], dict[str, float]]:
    best = float((measured / errors**2).sum() / (errors**-2).sum())
    rivals = {
        "the law": judge.squared(measured - expected, errors),
        "the best constant": judge.squared(measured - best, errors),
        "ρ = ½": judge.squared(measured - 0.5, errors),
        "ρ = 1": judge.squared(measured - 1.0, errors),
    }
    names = ("ρ = ½", "ρ = 1")
    p = [float(stats.chi2.sf(rivals[name], len(measured))) for name in names]
    adjusted = [float(value or 0.0) for value in holm(p)]
    numbers = [f"χ² = {rivals[name]:.4g} on {len(measured)}" for name in names]
    return [Test(*fields) for fields in zip(names, numbers, p, adjusted, strict=True)], rivals


def _verdict(cells: Sequence[dict[str, Any]], tests: Sequence[Test]) -> tuple[str, str]:
    inside = [cell for cell in cells if cell["passed"]]
    outside = [cell for cell in inside if abs(cell["gap"]) - cell["reach"] > GAP]
    if outside:
        where = ", ".join(f"{cell['eta_lambda_max']:g}" for cell in outside)
        return "refuted", f"the gap is beyond ±{GAP:g} at ηλ_max {where}"
    parts = {
        f"a gap's interval reaches beyond ±{GAP:g}": all(
            abs(cell["gap"]) + cell["reach"] <= GAP for cell in inside
        ),
        "a constant is not rejected": all(test.adjusted <= LEVEL for test in tests),
        "a cell diverged": not any(cell["why_out"] == "diverged" for cell in cells),
    }
    missing = [reason for reason, holds in parts.items() if not holds]
    if missing:
        return "undecided", "; ".join(missing)
    return "confirmed", "all gaps within the criterion, both constants rejected"


PAGE = """# Exponents of a network with BatchNorm: predicted, then measured

    python -m lab.exponent question=batchnorm

**{first}.**

Question (iii) of the [protocol](protocol.md) with its amendment 7, which says what was reduced.
ResNet-8 of width 8, digits, no L2 term. The checkpoint is after 40 epochs, where the objective is
{checkpoint:.4g} and λ_max is {largest:.3g}. The predictions in
[predictions.csv](batchnorm/predictions.csv) were committed before the runs; their records are in
[runs.jsonl](batchnorm/runs.jsonl).

| ηλ_max | η | n | ρ measured | ρ predicted | gap | drift | no barrier | in the tests |
|---|---|---|---|---|---|---|---|---|
{rows}

- ρ measured, with its 95 % interval over seeds; predicted, at the same five points. `gap`:
  measured − predicted with its simultaneous half-width. Criterion: ±{gap:g}.
- `drift`: of the excess, from the first to the second half of the average, as an interval.
- `no barrier`: ends, of n, from which the segment to the checkpoint has no loss above both, by 1 %;
  the fewer of two points. A cell that fails a guard is not in the tests.

Where the runs went, at the central point of each cell:

| ηλ_max | excess predicted | first half | second half | range | ‖w‖ | λ_max |
|---|---|---|---|---|---|---|
{went}

The halves are the objective less that of the checkpoint, averaged over time and seeds, and `range`
is that over seeds. Below 0 the network has learned further. ‖w‖ is that of all parameters at the
end, as a share of the checkpoint's. λ_max is that of the objective's Hessian at the end of seed 0.
{tests}
## How

{n} seeds a point; {runs} runs of {updates:,} updates of burn-in and as many again, in which the
objective is averaged over {evaluations} evaluations; {seconds:,.0f} s of CPU. One thread, no GPU;
Python {python}, PyTorch {torch}; commit {commits}.
"""
TESTS = """
## Tests

| test | result | p | p (Holm) |
|---|---|---|---|
{tests}

| rival | squared error over squared standard error, summed over cells |
|---|---|
{rivals}
"""


def page_of(kept: Path, seeds: Sequence[int]) -> str:
    """The page, of the first seeds that all cells have."""
    records = together(batchnorm.recorded(kept), seeds)
    predicted = pl.read_csv(kept / "predictions.csv")
    judged = decide(records, predicted)
    n = judged.n
    if 2 * n < batchnorm.SEEDS:
        raise UserError(
            f"batchnorm: {n} seeds; with fewer than {batchnorm.SEEDS // 2} it is not run"
        )
    tests = ""
    if judged.tests:
        tests = TESTS.format(
            tests="\n".join(
                f"| {t.name} | {t.number} | {t.p:.2g} | {t.adjusted:.2g} |" for t in judged.tests
            ),
            rivals="\n".join(f"| {name} | {value:,.1f} |" for name, value in judged.rivals.items()),
        )
    first, constant = records[0], predicted.row(0, named=True)
    return PAGE.format(
        first=judged.first_line, checkpoint=constant["checkpoint_loss"],
        largest=constant["lambda_max"], gap=GAP, n=n, runs=n * len(records) * 5,
        rows="\n".join(_row(cell, r) for cell, r in zip(judged.cells, records, strict=True)),
        went="\n".join(_went(r, predicted) for r in records), tests=tests,
        updates=first["updates"], evaluations=first["evaluations"],
        seconds=sum(r["seconds"] for r in records), python=first["python"],
        torch=first["versions"]["torch"], commits=first["commit"][:7],
    )  # fmt: skip


def _row(cell: dict[str, Any], record: dict[str, Any]) -> str:
    measured, gap, drift = "none", "–", "–"
    if "measured" in cell:
        measured = f"{cell['measured']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"
        gap = f"{cell['gap']:+.3f} ± {cell['reach']:.3f}"
        drift = f"{cell['drift_low']:+.1%} to {cell['drift_high']:+.1%}"
    fields = [
        f"{cell['eta_lambda_max']:g}", f"{record['points'][CENTRE][0]:.3g}", str(cell["n"]),
        measured, f"{cell['predicted']:.3f}", gap, drift, str(min(record["returned"].values())),
        cell["why_out"] or "yes",
    ]  # fmt: skip
    return f"| {' | '.join(fields)} |".replace("-", "−")


def _went(record: dict[str, Any], predicted: pl.DataFrame) -> str:
    h = record["eta_lambda_max"]
    expected = predicted.filter(eta_lambda_max=h, point="centre")["predicted_loss"].item()
    halves = np.array(record["halves"], dtype=np.float64)[..., CENTRE]
    norms = np.array(record["norms"], dtype=np.float64)[:, CENTRE]
    low, high = halves.mean(0).min(), halves.mean(0).max()
    curved = record["lambda_max"]
    fields = [
        f"{h:g}", f"{expected:+.2g}", *(f"{half.mean():+.2g}" for half in halves),
        f"{low:+.2g} to {high:+.2g}", f"{norms.mean():.3f}",
        "–" if curved is None else f"{curved:.3g}",
    ]  # fmt: skip
    return f"| {' | '.join(fields)} |".replace("-", "−")
