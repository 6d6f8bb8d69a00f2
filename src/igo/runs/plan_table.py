"""The plan as a table for a person: a row for each stage, and notes below."""

from __future__ import annotations

from igo.config.schema import Config
from igo.ground.words import aligned, counted
from igo.method import batches
from igo.method.plan import Plan
from igo.method.profiles import paper_method

MOST_ROWS = 24  # of the plan of a run that trains; a longer plan shows its first and last rows
TITLES = ("stage", "epochs", "batches", "δ_m/δ_1", "γ_m", "κ_m", "λ_m", "η_m", "b_m")
LOWER_THE_RATE = ("cosine", "cosine_power", "exponential", "linear", "polynomial", "diminishing")
ROUNDING = 1e-12  # of κ_m


def lines(plan: Plan, *, cut: bool) -> list[str]:
    """A heading and a line for each stage; ``cut``: the first and the last with "…" between.

    ``batches`` are those of an epoch. γ_m, κ_m and λ_m lead from stage m to m + 1.
    """
    rows = [
        (
            row.cells[0], row.span, f"{row.batches:,}", f"{row.phi_m:.4f}",
            *("" if rate is None else f"{rate:.4f}"
              for rate in (row.gamma_m, row.kappa_m, row.lambda_m)),
            f"{row.eta_m:.5g}", f"{row.b_m:,.1f}",
        )
        for row in plan.joined
    ]  # fmt: skip
    if cut:
        half = MOST_ROWS // 2
        rows = [*rows[:half], ("…",) * len(TITLES), *rows[-half:]]
    return aligned([TITLES, *rows])


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
    texts = []
    profile, optimizer = config.schedule.profile, config.optimizer
    decaying = [stage for stage in plan.stages if stage.phi_m > 0]
    first, last = decaying[0], decaying[-1]
    grows = last.b_m > first.b_m * (1 + ROUNDING)
    if len(decaying) == 1 and profile != "constant":
        texts.append("one stage (M = 1): the noise stays at δ_1, so p and split do nothing")
    if profile in LOWER_THE_RATE and grows:
        usual = f"the usual {profile} schedule lowers η alone: split=1"
        texts.append(f"b grows from {first.b_m:,.1f} to {last.b_m:,.1f}; {usual}")
    # An epoch has at least so many batches. Where it has no more, b cannot grow.
    least = batches.count(plan.n, config.max_batch_size or plan.n)
    free = [stage.eta_m for stage in decaying if stage.batches > least]
    rising = sum(row.kappa_m is not None and row.kappa_m > 1 + ROUNDING for row in plan.stages)
    falls = config.split == 0 and free and min(free) < first.eta_m * (1 - 1e-9)
    if rising or falls:
        where = f"rises after {counted(rising, 'stage')}" if rising else f"falls to {min(free):.5g}"
        texts.append(f"η {where}: an epoch has a whole number of batches, and η keeps η/√b exact")
    capped = next((stage for stage in decaying if stage.batches == least), None)
    if capped and last.phi_m < capped.phi_m and config.split != 1:
        limit = config.max_batch_size
        cap = f"n = {plan.n:,}" if limit is None else f"max_batch_size={limit:,}"
        falling = "from there on η carries the whole decay"
        texts.append(f"b meets its cap, {cap}, in stage {capped.stage}: {falling}")
    if optimizer.name in ("shb", "nshb") and optimizer.momentum and grows:
        texts.append(
            f"δ_m/δ_1 is that of SGD: with {optimizer.name} a growing b does not lower the part of"
            " δ from ‖∇f‖, and the record's delta_m falls less; with split=1 both are equal"
        )
    return [*texts, optimizer.why_null] if optimizer.why_null else texts
