"""The tests of question (i): guards, ρ of each cell, the law and its rivals, the verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from igo.analysis.statistics import holm
from igo.ground.files import write_atomically
from lab.exponent.chains import CENTRE, FASTER, LARGER, SLOWER, SMALLER
from lab.theory.functions import Array

DRAWS = 10_000  # of the bootstrap
DRIFT = 0.05  # largest drift of a stationary cell, between the halves of its average
STAYED = 0.9  # smallest share of a cell's ends that return to the checkpoint
SLOPE, GAP = (0.8, 1.2), 0.15  # criteria of the law
LEAST_CELLS = 3  # for a slope with an interval
MOST_FAILED = 3  # of twelve cells; of fewer cells, the same share
LEVEL = 0.05


@dataclass(frozen=True)
class Test:
    """A primary test: its name, its number as text, p, and p adjusted by Holm."""

    name: str
    number: str
    p: float
    adjusted: float


@dataclass(frozen=True)
class Judged:
    """The cells, the primary tests, the squared errors of law and rivals, and the verdict."""

    cells: pl.DataFrame
    tests: list[Test]
    rivals: dict[str, float]
    best_constant: float | None
    verdict: str
    why: str
    records: list[dict[str, Any]]

    @property
    def first_line(self) -> str:
        """The verdict, after a warning if the best constant is nearer than the law."""
        text = f"the law ρ = 1/Σ w_i · 2/(2 − ηλ_i) on these networks: {self.verdict} ({self.why})"
        if self.rivals and self.rivals["the best constant"] < self.rivals["the law"]:
            return f"the best constant ρ = {self.best_constant:.3g} is nearer than the law; {text}"
        return text


def rho(losses: Array, points: list[list[float]]) -> Array:
    """−(Δ ln L/Δ ln b)/(Δ ln L/Δ ln η) of mean losses (…, 5) at points (η, b)."""
    eta, b = np.array(points).T
    logs = np.log(losses)
    along_b = (logs[..., LARGER] - logs[..., SMALLER]) / np.log(b[LARGER] / b[SMALLER])
    along_eta = (logs[..., FASTER] - logs[..., SLOWER]) / np.log(eta[FASTER] / eta[SLOWER])
    return np.asarray(-along_b / along_eta)


def judge(folder: Path) -> Judged:
    """Judge the records of the folder; write stationary.csv, with a row for each cell."""
    predicted = pl.read_csv(folder / "predictions.csv", infer_schema_length=None)
    records = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
    records.sort(key=lambda record: (record["task"], record["eta_lambda_max"]))
    rng = np.random.default_rng(0)
    rows, draws = [], []
    for record in records:
        row, draws_of_cell = cell_of(record, predicted, rng, cells=len(records))
        rows.append(row)
        draws.append(draws_of_cell)
    cells = pl.DataFrame(rows, infer_schema_length=None)
    floats = [name for name, kind in cells.schema.items() if kind.is_float()]
    write_atomically(
        folder / "stationary.csv", cells.with_columns(pl.col(floats).round_sig_figs(5)).write_csv()
    )
    return decide(cells, draws, records)


def cell_of(
    record: dict[str, Any], predicted: pl.DataFrame, rng: np.random.Generator, cells: int
) -> tuple[dict[str, Any], Array]:
    """The row of a cell, and bootstrap draws of its ρ."""
    task, h, points = record["task"], record["eta_lambda_max"], record["points"]
    halves = np.array(record["halves"], dtype=np.float64)
    rows = predicted.filter(task=task, eta_lambda_max=h)
    expected = rows["predicted_loss"].to_numpy()
    cell = {"task": task, "eta_lambda_max": h, "n": len(record["seeds"])}
    cell |= {"predicted": float(rho(expected, points)), "largest_alone": 1 - h / 2}
    if not (np.isfinite(halves).all() and (halves.mean(1) > 0).all()):
        return cell | {"why_out": "diverged", "passed": False}, np.full(DRAWS, np.nan)
    chosen = rng.integers(halves.shape[1], size=(DRAWS, halves.shape[1]))
    means, resampled = halves.mean((0, 1)), halves.mean(0)[chosen].mean(1)
    rho_draws = rho(resampled, points)
    error = float(rho_draws.std(ddof=1))
    drift = np.log(halves[1][chosen].mean(1)[:, CENTRE] / halves[0][chosen].mean(1)[:, CENTRE])
    low, high = np.quantile(drift, [LEVEL / 2, 1 - LEVEL / 2])
    stayed = min(record["returned"].values()) >= STAYED * cell["n"]
    stationary = low > -DRIFT and high < DRIFT
    measured, z = float(rho(means, points)), float(stats.norm.ppf(1 - LEVEL / 2 / cells))
    interval = np.quantile(rho_draws, [LEVEL / 2, 1 - LEVEL / 2])
    why = [reason for ok, reason in ((stationary, "not stationary"), (stayed, "left")) if not ok]
    bend, expected_bend = (
        float(logs[CENTRE] - np.delete(logs, CENTRE).mean()) for logs in np.log([means, expected])
    )
    return cell | {
        "measured": measured, "low": float(interval[0]), "high": float(interval[1]),
        "error": error, "gap": measured - cell["predicted"], "reach": z * error,
        "excess": float(means[CENTRE]), "predicted_excess": float(expected[CENTRE]),
        "centre_to_neighbours": bend, "predicted_centre_to_neighbours": expected_bend,
        "drift_low": float(low), "drift_high": float(high),
        "returned": min(record["returned"].values()), "updates": record["updates"],
        "why_out": ", ".join(why), "passed": not why,
    }, rho_draws  # fmt: skip


def slope_of(measured: Array, predicted: Array, errors: Array) -> Array:
    """Slopes of measured (…, cells) on predicted, with an intercept, weighted by 1/error²."""
    weights = errors**-2 / (errors**-2).sum()
    centred = predicted - weights @ predicted
    return np.asarray((measured * weights) @ centred / (weights @ centred**2))


def decide(cells: pl.DataFrame, draws: list[Array], records: list[dict[str, Any]]) -> Judged:
    """Apply the three primary tests to the cells that pass, compare the rivals, and decide."""
    inside = cells.filter("passed")
    if len(inside) < LEAST_CELLS:
        why = f"{len(inside)} of {len(cells)} cells were in the law's regime"
        return Judged(cells, [], {}, None, "undecided", why, records)
    passed_draws = np.stack(
        [rho_draws for rho_draws, passed in zip(draws, cells["passed"], strict=True) if passed], -1
    )
    measured, predicted, errors, alone = (
        inside[name].to_numpy() for name in ("measured", "predicted", "error", "largest_alone")
    )
    slope = float(slope_of(measured, predicted, errors))
    slopes = slope_of(passed_draws, predicted, errors)
    low, high = (float(v) for v in np.quantile(slopes, [LEVEL / 2, 1 - LEVEL / 2]))
    best = float((measured / errors**2).sum() / (errors**-2).sum())
    squares = {name: squared(measured - rho, errors) for name, rho in (("½", 0.5), ("1", 1.0))}
    p = [2 * float(stats.norm.sf(abs(slope - 1) / slopes.std(ddof=1)))]
    p += [float(stats.chi2.sf(square, len(inside))) for square in squares.values()]
    adjusted = [float(value or 0.0) for value in holm(p)]
    numbers = [f"slope {slope:.3f} [{low:.3f}, {high:.3f}]"]
    numbers += [f"χ² = {square:.4g} on {len(inside)}" for square in squares.values()]
    names = ["the law: slope of measured on predicted ρ is 1", "ρ = ½", "ρ = 1"]
    tests = [Test(*fields) for fields in zip(names, numbers, p, adjusted, strict=True)]
    rivals = {
        "the law": squared(measured - predicted, errors),
        "1 − ηλ_max/2 alone": squared(measured - alone, errors),
        "the best constant": squared(measured - best, errors),
        **{f"ρ = {name}": value for name, value in squares.items()},
    }
    verdict, why = _verdict(cells, (low, high), constants_rejected=max(adjusted[1:]) <= LEVEL)
    return Judged(cells, tests, rivals, best, verdict, why, records)


def squared(gaps: Array, errors: Array) -> float:
    """Σ (gap/error)²."""
    return float(((gaps / errors) ** 2).sum())


def _verdict(
    cells: pl.DataFrame, slope: tuple[float, float], constants_rejected: bool
) -> tuple[str, str]:
    """The verdict by the protocol's rule, and the part of the rule that decides it."""
    failed = cells.filter(~pl.col("passed"))
    if len(failed) > MOST_FAILED * len(cells) / 12:
        return "undecided", f"{len(failed)} of {len(cells)} cells were not in the law's regime"
    inside = cells.filter("passed").with_columns(
        nearest=pl.col("gap").abs() - pl.col("reach"),
        farthest=pl.col("gap").abs() + pl.col("reach"),
    )
    outside = inside.filter(pl.col("nearest") > GAP)
    if len(outside):
        cells_outside = outside.select("task", "eta_lambda_max").rows()
        where = ", ".join(f"{task} {h:g}" for task, h in cells_outside)
        return "refuted", f"the gap is beyond ±{GAP:g} in {where}"
    if slope[1] < SLOPE[0] or slope[0] > SLOPE[1]:
        return "refuted", f"the slope's interval is outside {SLOPE[0]:g} to {SLOPE[1]:g}"
    within = SLOPE[0] <= slope[0] <= slope[1] <= SLOPE[1]
    parts = {
        f"the slope's interval is not within {SLOPE[0]:g} to {SLOPE[1]:g}": within,
        f"a gap's interval reaches beyond ±{GAP:g}": bool((inside["farthest"] <= GAP).all()),
        "a constant is not rejected": constants_rejected,
        "a cell diverged": not (cells["why_out"] == "diverged").any(),
    }
    missing = [reason for reason, holds in parts.items() if not holds]
    if missing:
        return "undecided", "; ".join(missing)
    return "confirmed", "slope and all gaps within the criteria, both constants rejected"
