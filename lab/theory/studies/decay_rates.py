"""Study: the allowed band of the decay rate γ_m, and the rates of every schedule."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from igo.plans.make import plan
from igo.plans.profiles import PROFILES, Position
from lab.figures import GREEN, INK, drawn
from lab.theory import propositions as props
from lab.theory.row import Check, Frames, Seen, Study, Tables
from lab.theory.smoothing import Array

STUDY = Study("decay_rates", "stage_lengths")
STAGES = 200
ROUNDING = 1e-6  # above the rounding of the numbers in the frames
EPOCHS, LENGTHENED = 2000, 20
CASES = ((0.5, 0.0), (0.5, 0.15), (1.0, 0.0), (1.0, 0.03))  # p and h, all decay in η
SCHEDULES: dict[str, tuple[str, dict[str, Any]]] = {  # profiles with their parameters
    **{f"p = {p:g}": ("polynomial", {"p": p}) for p in (0.1, 0.5, 0.9, 1, 2, 4, 8)},
    "cosine": ("cosine", {}),
}


def decay_rates(profile: str, stages: int, **parameters: Any) -> Array:
    """γ_m = φ_{m+1}/φ_m, m = 1..M−1, of a profile with one stage an epoch."""
    phi = PROFILES[profile]
    levels = np.array([phi(Position(m, stages, m - 1), **parameters) for m in range(1, stages + 1)])
    return np.asarray(levels[1:] / levels[:-1])


def stage_lengths(power: float, h: float) -> list[dict[str, Any]]:
    """Return the share of updates of each stage: equal, of a training plan, and by the formula.

    T_F = H_4/(ε_m − H_3 η_m) with ε_m = σ²δ_m² is ∝ 1/(φ_m² − h·η_m/η_1), h ≥ 0 [derived].
    """
    phi = props.optimal_levels(1.0, LENGTHENED, power)  # η_m/η_1 as well
    lengths = 1 / (phi**2 - h * phi)
    training_plan = plan(
        "graduated",
        n=50_000,
        epochs=EPOCHS,
        learning_rate=0.1,
        batch_size=128,
        split=1.0,
        stages=LENGTHENED,
        algorithm3={"h": h},
        p=power,
    )
    updates = dict.fromkeys(range(1, LENGTHENED + 1), 0)
    for row in training_plan.rows:  # a stage that begins inside an epoch has several
        updates[row.stage] += row.updates
    case = {"p": power, "h": h, "equal": 1 / LENGTHENED}
    return [
        case | {"m": m, "plan": count / training_plan.updates, "formula": share}
        for (m, count), share in zip(updates.items(), lengths / lengths.sum(), strict=True)
    ]


def measure(_seed: int) -> Tables:
    """Return γ_m of every schedule, and the lengths of Algorithm 3's stages."""
    rates = [
        {"schedule": name, "m": m, "gamma": gamma}
        for name, (profile, parameters) in SCHEDULES.items()
        for m, gamma in enumerate(decay_rates(profile, STAGES, **parameters), 1)
    ]
    return rates, [length for power, h in CASES for length in stage_lengths(power, h)]


def smallest_rates(frames: Frames) -> dict[str, float]:
    """Return the smallest γ_m of each schedule."""
    rates = frames["decay_rates"].group_by("schedule", maintain_order=True)
    return dict(rates.agg(pl.col("gamma").min()).iter_rows())


def draw(frames: Frames, path: Path) -> None:
    """The smallest γ_m of p (cosine: that of p = 2), which must exceed 1/d_{m+1} (shaded)."""
    smallest = smallest_rates(frames)
    with drawn(path, 3.6) as (axis,):
        a = np.linspace(np.sqrt(2) + 1e-6, 6, 300)
        low, high = (1 / bound for bound in props.exact_width_bounds(a)[::-1])
        axis.fill_between(a, low, high, color=GREEN, alpha=0.15)
        axis.text(4, 0.81, "range of $1/d_{m+1}$", color=GREEN, ha="center")
        for name in ("p = 0.1", "p = 0.5", "p = 1", "p = 2", "p = 8"):
            axis.hlines(smallest[name], 1.2, 6, color=INK, linestyle="--", linewidth=1.2)
            axis.text(6.1, smallest[name], name, va="center", fontsize=9)
        axis.set(xlim=(1.2, 7), xticks=range(2, 7), xlabel="$a_m$", ylabel=r"smallest $\gamma_m$")


STUDY.figures |= {"decay_rate_band.png": draw}


@STUDY.statement("最適なノイズスケジューリング")
def powers_are_allowed(frames: Frames) -> Seen:
    """γ_m ∈ (1/d_{m+1}, 1) allows γ_m of p ∈ (0, 1]"""
    smallest = smallest_rates(frames)

    def check(p: float) -> Check:
        largest = props.largest_a(smallest[f"p = {p:g}"])
        return Check(f"largest a_m that allows p = {p:g}", largest, 2**0.5 + ROUNDING)

    most = -np.log2(1 - 1 / 2**0.5)  # 2^{−p} = (a − 1)/a at a = √2
    return Seen(
        f"smallest γ_m, 2^−p, m < M = {STAGES}, against the printed floor (√(a_m² − 1) − 1)/a_m",
        [check(p) for p in (1, 0.9, 0.5, 0.1)],
        [check(p) for p in (2, 4, 8)],
        "As this floor is 0 at √2, it allows every p > 0. The exact one, (a_m − 1)/a_m (row 9), "
        f"allows p up to {most:.2f} [derived]",
    )


@STUDY.statement("Algorithm 3")
def later_stages_are_longer(frames: Frames) -> Seen:
    """T_F = H_4/(ε_m − H_3 η_m): later stages are longer, and plans have these lengths"""
    parts, equal = [], 0.0
    for (p, h), rows in frames["stage_lengths"].group_by(["p", "h"], maintain_order=True):
        shares, plan_shares = rows["formula"].to_numpy(), rows["plan"].to_numpy()
        name = f"p = {p:g}, h = {h:g}"
        parts.append(
            Check(
                f"least T_F of a stage over the one before, {name}",
                (shares[1:] / shares[:-1]).min(),
                low=1,
            )
        )
        gap = EPOCHS * np.abs(plan_shares - shares).max()
        parts.append(Check(f"plan less formula, in epochs of {EPOCHS:,}, {name}", gap, high=1.5))
        equal = EPOCHS * np.abs(rows["equal"].to_numpy() - shares).max()
    return Seen(
        f"M = {LENGTHENED}, decay in η, shares of the updates ∝ 1/(φ_m² − h·η_m/η_1), and plans "
        "with `schedule.lengths=algorithm3`",
        parts,
        [Check("equal lengths less formula, in epochs", equal, high=1.5)],
    )
