"""A plan as text, for a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from igo.method.plan import Plan, Stage

HEADER = ("stage", "epochs", "batches", "updates", "δ_m/δ_1", "η_m", "b_m")
MOST_ROWS = 12


def of_plan(plan: Plan) -> str:
    """One line a stage, the middle ones left out where there are many, and a line of totals."""
    rows = [_row(stage) for stage in plan.stages]
    if len(rows) > MOST_ROWS:
        half = MOST_ROWS // 2
        rows = [*rows[:half], ("…",) * len(HEADER), *rows[-half:]]
    total = f"{plan.epochs:,} epochs of {plan.n:,} samples: {plan.updates:,} updates"
    return "\n".join([*_aligned([HEADER, *rows]), total])


def _row(stage: Stage) -> tuple[str, ...]:
    last = stage.first_epoch + stage.epochs - 1
    span = str(last) if stage.epochs == 1 else f"{stage.first_epoch}-{last}"
    numbers = (f"{stage.phi_m:.4f}", f"{stage.eta_m:.5g}", f"{stage.b_m:,.1f}")
    return (str(stage.stage), span, f"{stage.batches:,}", f"{stage.updates:,}", *numbers)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
