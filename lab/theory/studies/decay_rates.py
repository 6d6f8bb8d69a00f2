"""Study: the allowed band of the decay rate γ_m, and the lengths of Algorithm 3's stages.

``measure`` gives the lines of each table of STUDY. A function under ``STUDY.statement`` has a
statement of the source as its docstring, and checks it in these tables. Its ``Seen`` has in order:
how the statement was run, its checks, the same checks where they must fail, and a note.
"""

import numpy as np

from igo.plans.make import plan
from igo.plans.profiles import PROFILES, Position
from lab.theory import propositions as props
from lab.theory.row import Check, Frames, Records, Seen, Study, Tables
from lab.theory.smoothing import Array

STUDY = Study("decay_rates", "stage_lengths")
STAGES = 200
ROUNDING = 1e-6  # above the rounding of the numbers in the frames
EPOCHS, LENGTHENED = 2000, 20
CASES = ((0.5, 0.0), (0.5, 0.15), (1.0, 0.0), (1.0, 0.03))  # p and h, all decay in η
ALLOWED, OTHERS = (1, 0.9, 0.5, 0.1), (2, 4, 8)  # p


def decay_rates(p: float, stages: int) -> Array:
    """γ_m = φ_{m+1}/φ_m, m = 1..M−1, of the polynomial profile with one stage an epoch."""
    phi = PROFILES["polynomial"]
    levels = np.array([phi(Position(m, stages, m - 1), p=p) for m in range(1, stages + 1)])
    return np.asarray(levels[1:] / levels[:-1])


def stage_lengths(power: float, h: float) -> Records:
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
    return [
        {
            "p": power,
            "h": h,
            "equal": 1 / LENGTHENED,
            "m": m,
            "plan": count / training_plan.updates,
            "formula": share,
        }
        for (m, count), share in zip(updates.items(), lengths / lengths.sum(), strict=True)
    ]


def measure(_seed: int) -> Tables:
    """Return the smallest γ_m of each p, and the lengths of Algorithm 3's stages."""
    rates = [{"p": p, "smallest": decay_rates(p, STAGES).min()} for p in (*ALLOWED, *OTHERS)]
    return rates, [length for power, h in CASES for length in stage_lengths(power, h)]


@STUDY.statement("最適なノイズスケジューリング")
def powers_are_allowed(frames: Frames) -> Seen:
    """γ_m ∈ (1/d_{m+1}, 1) allows γ_m of p ∈ (0, 1]"""
    smallest = dict(frames["decay_rates"].iter_rows())

    def check(p: float) -> Check:
        quantity = f"largest a_m that allows p = {p:g}"
        return Check(quantity, props.largest_a(smallest[p]), 2**0.5 + ROUNDING)

    # The smallest γ_m is 2^−p. The exact bound allows γ_m > 1/d = (a − 1)/a, least at a = √2.
    most = -np.log2(1 - 1 / 2**0.5)
    return Seen(
        f"smallest γ_m of M = {STAGES}, printed bound of row 9",
        [check(p) for p in ALLOWED],
        [check(p) for p in OTHERS],
        f"It allows every p > 0, the exact one p up to {most:.2f} [derived]",
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
                f"least T_F over that of the stage before, {name}",
                (shares[1:] / shares[:-1]).min(),
                low=1,
            )
        )
        gap = EPOCHS * np.abs(plan_shares - shares).max()
        parts.append(Check(f"plan less formula, in epochs of {EPOCHS:,}, {name}", gap, high=1.5))
        equal = EPOCHS * np.abs(rows["equal"].to_numpy() - shares).max()  # the last case's stays
    return Seen(
        f"M = {LENGTHENED}, plans with `schedule.lengths=algorithm3`",
        parts,
        [Check("equal lengths less formula, in epochs", equal, high=1.5)],
    )
