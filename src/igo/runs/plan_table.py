"""The plan as a table for a person: a row for each stage, and notes below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from igo.config.schema import Config
from igo.ground.words import counted
from igo.method import batches
from igo.method.plan import Plan
from igo.method.profiles import paper_method
from igo.method.stages import Row

MOST_ROWS = 24  # of the plan of a run that trains; a longer plan shows its first and last rows
LOWER_THE_RATE = ("cosine", "cosine_power", "exponential", "linear", "polynomial", "diminishing")
ROUNDING = 1e-12  # of κ_m
RATES = "γ_m, κ_m, λ_m: factors of δ, η and b from stage m to m + 1"


@dataclass(frozen=True)
class Column:
    """A title and its cells. For lack of room the lowest ``leaves`` is hidden first, 0 never."""

    title: str
    cell: Callable[[Row], str]
    leaves: int = 0


def columns() -> list[Column]:
    """All columns of a plan."""
    return [
        Column("stage", lambda s: s.cells[0]),
        Column("epochs", lambda s: s.span),
        Column("updates", lambda s: f"{s.updates:,}", leaves=2),
        Column("batches/epoch", lambda s: f"{s.batches:,}"),
        Column("δ_m/δ_1", lambda s: f"{s.phi_m:.4f}"),
        Column("γ_m", lambda s: _rate(s.gamma_m), leaves=1),
        Column("κ_m", lambda s: _rate(s.kappa_m), leaves=1),
        Column("λ_m", lambda s: _rate(s.lambda_m), leaves=1),
        Column("η_m", lambda s: f"{s.eta_m:.5g}"),
        Column("b_m", lambda s: f"{s.b_m:,.1f}"),
    ]


def rows(columns: Sequence[Column], plan: Plan, most: int | None) -> list[list[str]]:
    """The plan's rows; if there are more than ``most``, the first and the last with "…" between."""
    rows: list[Row | None] = list(plan.joined)
    if most is not None and len(rows) > most:
        rows = [*rows[: most // 2], None, *rows[-(most // 2) :]]
    return [["…" if row is None else c.cell(row) for c in columns] for row in rows]


def title(config: Config, plan: Plan) -> str:
    """The run as a line, with the paper's name of its method if it has one."""
    schedule = config.schedule
    p = "" if config.p is None else f", p {config.p:.5g}"
    method = paper_method(schedule.profile, schedule.gamma, config.split)
    return (
        f"{f'{method}: ' if method else ''}{schedule.profile} noise{p}, split {config.split:.5g},"
        f" on {config.dataset.name} (n = {plan.n:,}) with {config.model.name} and"
        f" {config.optimizer.name}:"
        f" {counted(plan.epochs, 'epoch')}, {counted(plan.updates, 'update')}"
    )


def notes(config: Config, plan: Plan) -> list[str]:
    """What the numbers of a plan do not say by themselves."""
    texts = [_one_stage(config, plan), _usual(config, plan), _rising(plan), _rounded(config, plan),
             _cap(config, plan), _heavy_ball(config, plan),
             config.optimizer.why_null]  # fmt: skip
    return [text for text in texts if text]


def _one_stage(config: Config, plan: Plan) -> str:
    decaying = [stage for stage in plan.stages if stage.phi_m > 0]
    if len(decaying) > 1 or config.schedule.profile == "constant":
        return ""
    knob = "the schedule" if config.p is None else "p"
    return f"one stage (M = 1): the noise stays at δ_1, so {knob} and split do nothing"


def _usual(config: Config, plan: Plan) -> str:
    """A note if a schedule that usually lowers η alone raises b, as split is below 1."""
    name, first, last = config.schedule.profile, plan.stages[0].b_m, plan.stages[-1].b_m
    if name not in LOWER_THE_RATE or last <= first:
        return ""
    usual = f"the usual {name} schedule lowers η alone: split=1"
    return f"b grows from {first:,.1f} to {last:,.1f}; {usual}"


def _rising(plan: Plan) -> str:
    rising = sum(row.kappa_m is not None and row.kappa_m > 1 + ROUNDING for row in plan.stages)
    if not rising:
        return ""
    rises = f"η rises after {counted(rising, 'stage')} (κ_m > 1)"
    return f"{rises}: a whole number of batches cannot follow δ_m closer, and η makes up for it"


def _rounded(config: Config, plan: Plan) -> str:
    """A note if split=0 and η falls before b meets its cap: an epoch has whole batches."""
    least = batches.count(plan.n, config.max_batch_size or plan.n)
    free = [s.eta_m for s in plan.stages if s.phi_m > 0 and s.batches > least]
    if config.split or not free:
        return ""
    eta, first = min(free), plan.stages[0].eta_m
    if eta > first * (1 - 1e-9):
        return ""
    return (
        f"with split=0 only rounding changes η: it falls to {eta:.5g}, {1 - eta / first:.2%} below"
        " η_1. An epoch has a whole number of batches, and η makes up for it, so that η/√b is exact"
    )


def _cap(config: Config, plan: Plan) -> str:
    """A note on the stage from which on b_m cannot grow, so that η carries the whole decay."""
    decaying = [stage for stage in plan.stages if stage.phi_m > 0]
    least = batches.count(plan.n, config.max_batch_size or plan.n)
    meets = next((stage.stage for stage in decaying if stage.batches == least), None)
    falls = meets is not None and decaying[-1].phi_m < decaying[meets - 1].phi_m
    if meets is None or not falls or config.split == 1:
        return ""
    limit = config.max_batch_size
    cap = f"n = {plan.n:,}" if limit is None else f"max_batch_size={limit:,}"
    return f"b meets its cap, {cap}, in stage {meets}: from there on η carries the whole decay"


def _heavy_ball(config: Config, plan: Plan) -> str:
    """A note that the table has SGD's δ, if b grows under momentum: b lowers only a part of δ."""
    grows = plan.stages[-1].b_m > plan.stages[0].b_m * (1 + ROUNDING)
    if config.optimizer.name not in ("shb", "nshb") or not config.optimizer.momentum or not grows:
        return ""
    return (
        f"δ_m/δ_1 is that of SGD: with {config.optimizer.name} a growing b does not lower the part"
        " of δ from ‖∇f‖, and the record's delta_m falls less; with split=1 both are equal"
    )


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.4f}"
