"""Study: Algorithms 3 and 4, and Theorem 3.4's rounds and steps against ε."""

from itertools import product
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from igo.method.algorithm3 import alpha_0, stages_for
from lab.theory.functions import Ripple
from lab.theory.propositions import fitted_exponent, optimal_levels
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, rate
from lab.theory.smoothing import Array

STUDY = Study("theorem_3_4", "algorithm3", "stage_lengths_exist")
ROUNDS = {
    0.25: (25, 70, 200, 550, 1500),
    0.5: (25, 50, 100, 200, 400, 800),
    0.75: (20, 35, 60, 100, 180),
    1.0: (15, 25, 40, 65, 100),
}
EPSILONS = {0.25: (1.2, 0.9), 0.5: (0.6, 0.3), 0.75: (0.4, 0.15), 1.0: (0.4, 0.08)}
H3 = (0.0, 0.01, 0.1, 1.0)
MOST, CHAINS = 1_000_000, 200
PROBLEM = Ripple()
ETA, NOISE, BATCH = 0.1, 4.0, 4.0  # η_1, C, b_1
DELTA = ETA * NOISE / BATCH**0.5  # δ_1
ALPHA_0 = alpha_0(
    learning_rate=ETA, batch_size=BATCH, variance=NOISE**2, lipschitz=PROBLEM.lipschitz, width=1.0,
    sigma=PROBLEM.sigma(DELTA),
)  # fmt: skip
LOOSE = 1.3  # largest slope over 1/p that counts as 1/p
MODES = ("exact", "sgd", "constant noise", "no noise")


def bracket(phi: Array | float, h3: float = 0.0) -> Array:
    """Return ε_m − H_3 η_m, ε_m = σ²δ_m², for φ_m = δ_m/δ_1 and all of the decay in η."""
    return np.asarray((PROBLEM.sigma(DELTA) * DELTA * phi) ** 2 - h3 * ETA * phi)


def plan(rounds: int, power: float) -> Array:
    """Return φ_m = δ_m/δ_1 = η_m/η_1 of each step of rounds m = 1..M of Algorithm 3.

    T_F = ⌈H_4/(ε_m − H_3 η_m)⌉. The slides give no H_3, H_4: here H_3 = 0, and H_4 is for ten steps
    in stage 1. Round M + 1 is left out: it has η = 0 and does not move.
    """
    phi = optimal_levels(1.0, rounds, power)
    return np.repeat(phi, np.ceil(10 * bracket(1.0) / bracket(phi) - 1e-9).astype(int))


def run(phi: Array, start: Array, mode: str, seed: int = 0) -> Array:
    """Run Algorithm 3 from `start` (n,), φ by step, and return the last points (n,).

    `exact` is Algorithm 4: gradient descent on the closed form of f̂_δm. `sgd` is SGD on f with
    ω = (C/√b) u, u uniform on the ball. It follows y_t, the points before the noise: f is
    evaluated at y_t − δ_m u only. `constant noise`, δ_1, and `no noise` have the same η_m.
    """
    rng = np.random.default_rng(seed)
    x = np.array(start, float)
    for share in phi.tolist():
        level = {"constant noise": DELTA, "no noise": 0.0}.get(mode, DELTA * share)
        if mode in ("exact", "no noise"):
            slope = PROBLEM.gradient(x, level)
        else:
            slope = PROBLEM.gradient(x - level * rng.uniform(-1, 1, x.shape))
        x = x - ETA * share * slope
    return x


def starts(seed: int, chains: int = CHAINS) -> Array:
    """Return starts uniform in the domain [−1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, chains)


def rounds_and_errors(
    power: float, mode: str, rounds: tuple[int, ...], seed: int
) -> list[dict[str, Any]]:
    """Return for each M the mean f(x_{M+2}) − f(x*) over the chains, and the total steps."""
    records: list[dict[str, Any]] = []
    start = starts(seed, 20 if mode == "exact" else CHAINS)
    for m in rounds:
        phi = plan(m, power)
        error = float(PROBLEM.value(run(phi, start, mode, seed)).mean())
        records.append({"p": power, "mode": mode, "rounds": m, "error": error, "steps": len(phi)})
    return records


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Measure error against rounds for each p, then run Algorithm 3 with M and T_F from ε."""
    seed = settings.seed
    errors = [
        record
        for power, mode in product(ROUNDS, MODES)
        for record in rounds_and_errors(power, mode, ROUNDS[power], seed)
    ]
    reached = []
    for (power, epsilons), mode in product(EPSILONS.items(), ("sgd", "no noise")):
        for epsilon in epsilons:
            m = stages_for(epsilon, ALPHA_0, power)
            value = PROBLEM.value(run(plan(m, power), starts(seed), mode, seed))
            within = int((value <= epsilon).sum())
            case = {"p": power, "mode": mode, "epsilon": epsilon, "rounds": m}
            reached.append(case | {"mean_error": float(value.mean()), "within": within})
    last = 1 / np.arange(1, MOST + 1)  # φ of the last stage for p = 1, whose bracket is the least
    valid = [
        {"h3": h3, "rounds": int((bracket(last, h3) > 0).sum())}
        for h3 in (*H3, PROBLEM.lipschitz**2 / 2)
    ]
    return {
        "theorem_3_4": frame(errors),
        "algorithm3": frame(reached),
        "stage_lengths_exist": frame(valid),
    }


def _slope(frames: Frames, power: float, mode: str, column: str, what: str) -> Check:
    """Check the exponent of rounds or steps against the error, times p."""
    rows = frames["theorem_3_4"].filter(p=power, mode=mode)
    slope, error = fitted_exponent(rows[column].to_numpy(), rows["error"].to_numpy())
    reach = float(stats.t.ppf(0.975, len(rows) - 2)) * error
    interval = ((slope - reach) * power, (slope + reach) * power)
    return Check(f"slope times p, {what}", slope * power, high=LOOSE, interval=interval)


def _fall(frames: Frames, power: float, mode: str) -> float:
    """Return the fall of the error from the fewest to the most rounds, over the fall of M^{−p}."""
    rows = frames["theorem_3_4"].filter(p=power, mode=mode)
    error, rounds = rows["error"], rows["rounds"]
    return float(error[-1] / error[0] * (rounds[-1] / rounds[0]) ** power)


NEAR = "the ε-neighbourhood, f(x_{M+2}) − f(x*) ≤ ε, after O(1/ε^{1/p})"


@STUDY.statement("定理 3.4", f"{NEAR} rounds, p ∈ (0, 1]")
def rounds_against_error(frames: Frames) -> Seen:
    """Fit the exponent of rounds against the error for every p."""
    fall = "fall of the error over that of M^−p"
    return Seen(
        "the ripple (σ, L_f known, other minima on the right), Algorithm 3, H_3 = 0, with "
        "closed-form ∇f̂ and with SGD",
        [
            _slope(frames, power, mode, "rounds", f"p = {power:g}, {mode}")
            for power, mode in product(ROUNDS, ("exact", "sgd"))
        ],
        [
            Check(f"{fall}, {mode}, p = 1", _fall(frames, 1.0, mode), high=2)
            for mode in ("constant noise", "no noise")
        ],
        "f(x*_δ) of the ripple falls as δ, the slowest that a Lipschitz function allows. On either "
        "side of x* f − f* is proportional to ‖x − x*‖ near x*",
    )


@STUDY.statement("定理 3.4", f"{NEAR} gradient steps")
def steps_against_error(frames: Frames) -> Seen:
    """Fit the exponent of gradient steps against the error for every p."""
    return Seen(
        "the ripple, closed-form ∇f̂, Σ T_F of all rounds, T_F = H_4/ε_m",
        [_slope(frames, power, "exact", "steps", f"p = {power:g}") for power in ROUNDS],
        note="T_F grows as (M/(M − m + 1))^2p, so steps grow as 1/ε^max(2, 1/p) [derived]: p > 1/2 "
        "saves rounds but no steps",
    )


@STUDY.statement("Algorithms 3, 4", "M^p = 1/(α_0 ε) rounds with T_F steps each reach ε")
def epsilon_is_reached(frames: Frames) -> Seen:
    """Count the chains that end within ε."""
    table = frames["algorithm3"]

    def checks(mode: str) -> list[Check]:
        rows = table.filter(mode=mode).select("p", "epsilon", "rounds", "within").iter_rows()
        return [
            rate(f"chains within ε = {e:g}, p = {p:g}, M = {m:,}, {mode}", within, CHAINS, low=0.95)
            for p, e, m, within in rows
        ]

    sgd = table.filter(mode="sgd")
    worst = float((sgd["mean_error"] / sgd["epsilon"]).to_numpy().max())
    return Seen(
        f"SGD on the ripple, H_3 = 0, {CHAINS} chains, α_0 = {ALPHA_0:.3g}",
        checks("sgd"),
        [checks("no noise")[-1]],
        f"α_0 is safe and dear: the mean error is at most {worst:.2g} of ε",
    )


@STUDY.statement(
    "Algorithm 3", "T_F := H_4/(ε_m − H_3 η_m) exists for every stage, however small ε"
)
def stage_lengths_exist(frames: Frames) -> Seen:
    """Find the largest M for which every T_F exists, by H_3."""
    rows = frames["stage_lengths_exist"].iter_rows()
    return Seen(
        f"the largest M ≤ {MOST:,} whose T_F exist, p = 1, decay in η; the last H_3 is L_f²/2 "
        "[derived]",
        [Check(f"largest M, H_3 = {h3:.3g}", m, low=MOST) for h3, m in rows],
        note="The slides do not say what H_3 is. ε_m falls as δ_m², H_3 η_m at most as δ_m: for "
        "any H_3 > 0 the formula ends at M = σ²δ_1²/(H_3 η_1)",
    )
