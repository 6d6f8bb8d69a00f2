"""The page results/exponent/README.md, from the judged cells."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from igo.ground.files import write_atomically
from lab.exponent.judge import GAP, SLOPE, Judged

PROGRAM = "python -m lab.exponent"
HEAD = """# Exponents of networks: predicted, then measured

    {command}
    {command} first_seed=100 output=…    # again, with other seeds

**{first}.**

Question (i) of the [protocol](protocol.md) with its amendments, which say what was reduced, and
why. Question (ii), judged arm, is in [stream.md](stream.md), its repetition
in [stream_again.md](stream_again.md), its second arm in [sizes.md](sizes.md),
(iv), cut to two epochs, in [momentum.md](momentum.md), (iii)
in [batchnorm.md](batchnorm.md), (v) in [critical.md](critical.md),
(vi) in [methods.md](methods.md).
The predictions in
[predictions.csv](predictions.csv) were committed before the runs. Each cell's record is in
[cells/](cells/), and [stationary.csv](stationary.csv) has the table with more digits.

"""
AFTER = """
- ρ measured, with its 95 % interval over seeds; predicted, at the same five points; `alone` is
  1 − ηλ_max/2.
- `gap`: measured − predicted with its simultaneous half-width. Criterion: ±{gap:g}.
- `excess`: the time-averaged excess objective at the central point, divided by the predicted one.
- `drift`: from the first to the second half of the average, as an interval.
- `back`: ends, of n, from which a descent returns to the checkpoint's loss within 1 %; the fewer
  of two points. A cell that fails a guard is not in the tests.

## Tests

| test | result | p | p (Holm) |
|---|---|---|---|
{tests}

The law is *confirmed* where the slope's interval is within [{low:g}, {high:g}], every gap is
within its criterion and both constants are rejected.

| rival | squared error over squared standard error, summed over cells |
|---|---|
{rivals}

The best constant is ρ = {best}. It is fitted to the measured values.

## How

{n} seeds a point; {updates} updates, each of all seeds and the five points of a cell together;
{seconds:.0f} s of CPU. {hardware}
"""


def write(folder: Path, judged: Judged) -> None:
    """Write the page beside the records."""
    records = judged.records
    first = records[0]
    versions = first["versions"]
    text = HEAD.format(
        command=f"{PROGRAM} question=stationary seeds={len(first['seeds'])}",
        first=judged.first_line,
    )
    text += _table(judged.cells)
    tests = [f"| {t.name} | {t.number} | {_p(t.p)} | {_p(t.adjusted)} |" for t in judged.tests]
    rivals = [f"| {name} | {value:,.1f} |" for name, value in judged.rivals.items()]
    best = judged.best_constant
    text += AFTER.format(
        gap=GAP, tests="\n".join(tests), low=SLOPE[0], high=SLOPE[1], rivals="\n".join(rivals),
        best="none" if best is None else f"{best:.3f}", n=len(first["seeds"]),
        updates=f"{sum(2 * record['updates'] for record in records):,}",
        seconds=sum(record["seconds"] for record in records),
        hardware=f"One thread of an {first['processor']} CPU, no GPU; Python {first['python']},"
        f" PyTorch {versions['torch']}, NumPy {versions['numpy']}.",
    )  # fmt: skip
    write_atomically(folder / "README.md", text)


def _p(value: float) -> str:
    return "< 1e-300" if value < 1e-300 else f"{value:.2g}"


def _table(cells: pl.DataFrame) -> str:
    names = ("task", "ηλ_max", "n", "ρ measured", "ρ predicted", "alone", "gap", "excess", "drift",
             "back", "in the tests")  # fmt: skip
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for c in cells.iter_rows(named=True):
        start = [c["task"], f"{c['eta_lambda_max']:g}", str(c["n"])]
        if c.get("measured") is None:
            middle = ["none", f"{c['predicted']:.3f}", f"{c['largest_alone']:.3f}"] + ["-"] * 4
        else:
            middle = [
                f"{c['measured']:.3f} [{c['low']:.3f}, {c['high']:.3f}]",
                f"{c['predicted']:.3f}",
                f"{c['largest_alone']:.3f}",
                f"{c['gap']:+.3f} ± {c['reach']:.3f}",
                f"{c['excess'] / c['predicted_excess']:.3f}",
                f"{c['drift_low']:+.1%} to {c['drift_high']:+.1%}",
                str(c["returned"]),
            ]
        lines.append("| " + " | ".join([*start, *middle, c["why_out"] or "yes"]) + " |")
    return "\n".join(lines) + "\n"
