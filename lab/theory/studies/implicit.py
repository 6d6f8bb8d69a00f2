"""Study: Algorithms 3 and 4, and Theorem 3.4's rounds and steps against ε.

For the ripple x*_δ = κδ − (μ/ω) sin ωδ cos ωx*_δ, κ = (left − right)/(left + right) and
μ = 2Aω/(left + right) [derived]. So condition (i) of new σ-nice functions holds between all levels
if κ + μ ≤ 1, and between levels at least 2μ/(ω(1 − κ)) apart in any case. (ii) always holds.

``measure`` gives the lines of each table of STUDY. A function under ``STUDY.statement`` has a
statement of the source as its docstring, and checks it in these tables. Its ``Seen`` has in order:
how the statement was run, its checks, the same checks where they must fail, and a note.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import polars as pl
from scipy import stats

from igo.plans.algorithm3 import alpha_0, stages_for
from lab.theory.functions import Ripple
from lab.theory.nice import check_new_sigma_nice
from lab.theory.propositions import fitted_exponent, optimal_levels
from lab.theory.row import Check, Frames, Records, Seen, Study, Tables, checks, rate
from lab.theory.smoothing import Array

STUDY = Study(
    "theorem_3_4",
    "algorithm3",
    "stage_lengths_exist",
    "inside_class",
    "inside_rates",
    "inside_success",
)
ROUNDS = {
    0.25: (25, 70, 200, 550, 1500),
    0.5: (25, 50, 100, 200, 400, 800),
    0.75: (20, 35, 60, 100, 180),
    1.0: (15, 25, 40, 65, 100),
}
EPSILONS = {0.25: (0.1, 0.09), 0.5: (0.08, 0.03), 0.75: (0.08, 0.03), 1.0: (0.08, 0.02)}
H3 = (0.0, 0.01, 0.1, 1.0)
MOST, CHAINS = 1_000_000, 200


@dataclass(frozen=True)
class Case:
    """A function with η_1, C and b_1."""

    problem: Ripple
    eta: float = 0.1
    noise: float = 4.0
    batch: float = 4.0

    @property
    def delta(self) -> float:
        """δ_1."""
        return float(self.eta * self.noise / self.batch**0.5)

    @property
    def alpha_0(self) -> float:
        """α_0 of Algorithm 3, d_m = 1."""
        return alpha_0(
            learning_rate=self.eta,
            batch_size=self.batch,
            variance=self.noise**2,
            width=1.0,
            lipschitz=self.problem.lipschitz,
            sigma=self.problem.sigma(self.delta),
        )


RIPPLE = Case(Ripple())
# Plain descent stays where f is larger: ε can be below it, and M still small.
HILLY = Case(Ripple(left=0.5, frequency=30.0), noise=1.6)
VALLEY = Case(Ripple(wave_slope=0.29))  # κ + μ = 0.994: new σ-nice for every M; one minimum
NARROW = Case(Ripple(left=0.7, wave_slope=0.4, frequency=550.0), eta=0.004, noise=500.0)
STAGES = {0.5: 100, 1.0: 10, 2.0: 4}  # M of NARROW, M^p = 10: levels far enough apart
LOOSE = 1.3  # largest slope over 1/p that counts as 1/p
MODES = ("exact", "sgd", "constant noise", "no noise")


def bracket(phi: Array | float, h3: float = 0.0) -> Array:
    """Return ε_m − H_3 η_m, ε_m = σ²δ_m², for φ_m = δ_m/δ_1 and all of the decay in η."""
    sigma, delta = RIPPLE.problem.sigma(RIPPLE.delta), RIPPLE.delta
    return np.asarray((sigma * delta * phi) ** 2 - h3 * RIPPLE.eta * phi)


def plan(rounds: int, power: float, first_steps: int = 10) -> Array:
    """Return φ_m = δ_m/δ_1 = η_m/η_1 of each step of rounds m = 1..M of Algorithm 3.

    T_F = ⌈H_4/(ε_m − H_3 η_m)⌉. The slides give no H_3, H_4: here H_3 = 0, and H_4 gives
    stage 1 `first_steps`. Round M + 1 is left out: it has η = 0 and does not move.
    """
    phi = optimal_levels(1.0, rounds, power)
    # Rounding must not raise a whole number of steps to the next one.
    return np.repeat(phi, np.ceil(first_steps * bracket(1.0) / bracket(phi) - 1e-9).astype(int))


def run(phi: Array, start: Array, mode: str, seed: int = 0, case: Case = RIPPLE) -> Array:
    """Run Algorithm 3 from `start` (n,), with φ of each step, and return the last points (n,).

    The mode `exact` is Algorithm 4: gradient descent on the closed form of f̂_δm. The mode `sgd` is
    SGD on f with ω = (C/√b) u, u uniform on the ball; it follows y_t, the points before the noise,
    so that f is evaluated at y_t − δ_m u only. The modes `constant noise`, δ_1, and `no noise` have
    the same η_m.
    """
    rng = np.random.default_rng(seed)
    x = np.array(start, float)
    for share in phi.tolist():
        level = {"constant noise": case.delta, "no noise": 0.0}.get(mode, case.delta * share)
        if mode in ("exact", "no noise"):
            slope = case.problem.gradient(x, level)
        else:
            slope = case.problem.gradient(x - level * rng.uniform(-1, 1, x.shape))
        x = x - case.eta * share * slope
    return x


def starts(seed: int, chains: int = CHAINS) -> Array:
    """Return starts uniform in the domain [−1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, chains)


def rounds_and_errors(
    power: float, mode: str, rounds: tuple[int, ...], seed: int, case: Case = RIPPLE
) -> Records:
    """Return for each M the mean f(x_{M+2}) − f(x*) over the chains, and the total steps."""
    records = []
    start = starts(seed, 20 if mode == "exact" else CHAINS)  # Without noise few chains suffice.
    for m in rounds:
        phi = plan(m, power)
        error = case.problem.value(run(phi, start, mode, seed, case)).mean()
        records.append({"p": power, "mode": mode, "rounds": m, "error": error, "steps": len(phi)})
    return records


def measure(seed: int) -> Tables:
    """Measure error against rounds for each p, then run Algorithm 3 with M and T_F from ε."""
    errors = [
        record
        for power, mode in product(ROUNDS, MODES)
        for record in rounds_and_errors(power, mode, ROUNDS[power], seed)
    ]
    arrivals = []
    for (power, epsilons), mode in product(EPSILONS.items(), ("sgd", "no noise")):
        for epsilon in epsilons:
            m = stages_for(epsilon, HILLY.alpha_0, power)
            value = HILLY.problem.value(run(plan(m, power), starts(seed), mode, seed, HILLY))
            arrivals.append(
                {
                    "p": power,
                    "mode": mode,
                    "epsilon": epsilon,
                    "rounds": m,
                    "mean_error": value.mean(),
                    "within": (value <= epsilon).sum(),
                }
            )
    # If p = 1, the last of M stages has φ = 1/M, and the least bracket.
    last_phi = 1 / np.arange(1, MOST + 1)
    largest_rounds = [
        {"h3": h3, "rounds": (bracket(last_phi, h3) > 0).sum()}
        for h3 in (*H3, RIPPLE.problem.lipschitz**2 / 2)
    ]
    return errors, arrivals, largest_rounds, *inside(seed)


def inside(seed: int) -> Tables:
    """Return three tables of functions that are new σ-nice.

    They have the levels at which a function breaks the definition, the errors of the valley against
    rounds, and the chains in the narrow hills that arrive.
    """
    classes, arrivals = [], []
    cases = [("valley", VALLEY, 0.5, 50), *(("narrow", NARROW, p, m) for p, m in STAGES.items())]
    for name, case, power, rounds in cases:
        levels, sigma = optimal_levels(case.delta, rounds, power), case.problem.sigma(case.delta)
        checked_levels = check_new_sigma_nice(case.problem, levels, sigma)
        broken = sum(not level.holds for level in checked_levels)
        classes.append({"function": name, "p": power, "levels": rounds, "broken": broken})
    rates = [
        record
        for power, mode in (*product(ROUNDS, ("exact", "sgd")), (1.0, "constant noise"))
        for record in rounds_and_errors(power, mode, ROUNDS[power][:4], seed, VALLEY)
    ]
    for (power, rounds), mode in product(STAGES.items(), MODES[1:]):
        phi = plan(rounds, power, first_steps=100)
        end = run(phi, starts(seed), mode, seed, NARROW)
        is_within = np.abs(end) <= NARROW.delta * phi[-1]
        arrivals.append({"p": power, "mode": mode, "within": is_within.sum()})
    return classes, rates, arrivals


def _slopes(
    table: pl.DataFrame, column: str = "rounds", modes: Sequence[str] = ("exact", "sgd")
) -> list[Check]:
    """Check for each p that the exponent of rounds or steps against 1/error, times p, is near 1.

    Several modes are named in the quantity.
    """
    checks = []
    for power, mode in product(ROUNDS, modes):
        rows = table.filter(p=power, mode=mode)
        slope, error = fitted_exponent(rows[column].to_numpy(), rows["error"].to_numpy())
        reach = stats.t.ppf(0.975, len(rows) - 2) * error
        interval = ((slope - reach) * power, (slope + reach) * power)
        quantity = f"slope times p, p = {power:g}" + (f", {mode}" if len(modes) > 1 else "")
        checks.append(Check(quantity, slope * power, high=LOOSE, interval=interval))
    return checks


def _fall(table: pl.DataFrame, mode: str) -> Check:
    """Check that from the fewest to the most rounds the error falls as M^−p, within a factor of 2.

    p is 1.
    """
    rows = table.filter(p=1.0, mode=mode)
    error, rounds = rows["error"], rows["rounds"]
    fall = error[-1] / error[0] * (rounds[-1] / rounds[0])
    return Check(f"fall of the error over that of M^−p, {mode}, p = 1", fall, high=2)


def _arrivals(table: pl.DataFrame, quantity: str) -> list[Check]:
    """Check in each line that 95 % of the chains arrive; the quantity has columns in braces."""
    return [
        rate(quantity.format(**line), line["within"], CHAINS, low=0.95)
        for line in table.iter_rows(named=True)
    ]


@STUDY.statement("定理 3.4")
def rounds_against_error(frames: Frames) -> Seen:
    """O(1/ε^{1/p}) rounds reach f(x_{M+2}) − f(x*) ≤ ε, p ∈ (0, 1]"""
    table = frames["theorem_3_4"]
    return Seen(
        "the ripple, closed-form ∇f̂ and SGD",
        _slopes(table),
        [_fall(table, mode) for mode in ("constant noise", "no noise")],
    )


@STUDY.statement("定理 3.4")
def steps_against_error(frames: Frames) -> Seen:
    """O(1/ε^{1/p}) gradient steps reach f(x_{M+2}) − f(x*) ≤ ε"""
    return Seen(
        "the ripple, closed-form ∇f̂",
        _slopes(frames["theorem_3_4"], "steps", ["exact"]),
        note="Steps grow as 1/ε^max(2, 1/p) [derived]",
    )


@STUDY.statement("Algorithms 3, 4")
def epsilon_is_reached(frames: Frames) -> Seen:
    """M^p = 1/(α_0 ε) rounds with T_F steps each reach ε"""
    sgd, no_noise = (frames["algorithm3"].filter(mode=mode) for mode in ("sgd", "no noise"))
    quantity = "chains within ε = {epsilon:g}, p = {p:g}, M = {rounds:,}, {mode}"
    worst = (sgd["mean_error"] / sgd["epsilon"]).to_numpy().max()
    return Seen(
        f"a ripple with five other minima, {CHAINS} chains",
        _arrivals(sgd, quantity),
        _arrivals(no_noise, quantity),
        f"The mean error is at most {worst:.2g} ε",
    )


@STUDY.statement("Algorithm 3")
def stage_lengths_exist(frames: Frames) -> Seen:
    """T_F := H_4/(ε_m − H_3 η_m) exists for every stage, however small ε"""
    return Seen(
        "p = 1, decay in η",
        checks(frames["stage_lengths_exist"], "largest M, H_3 = {h3:.3g}", "rounds", low=MOST),
        note="ε_m falls as δ_m², H_3 η_m as δ_m",
    )


def _class(frames: Frames, name: str) -> list[Check]:
    """Check that no level breaks the definition, d_m = 1, of the function of this name."""
    quantity = "broken of {levels} levels, p = {p:g}"
    return checks(frames["inside_class"].filter(function=name), quantity, "broken", high=0)


@STUDY.statement("定理 3.4")
def rounds_inside_the_class(frames: Frames) -> Seen:
    """f new σ-nice at all levels ⇒ O(1/ε^{1/p}) rounds reach ε"""
    table = frames["inside_rates"]
    return Seen(
        "a ripple with one minimum",
        [*_class(frames, "valley"), *_slopes(table)],
        [_fall(table, "constant noise")],
        "In d = 1 no f with another is new σ-nice for every M [derived]",
    )


@STUDY.statement("定理 3.4")
def starts_inside_the_class(frames: Frames) -> Seen:
    """f new σ-nice at its levels, with other minima ⇒ all starts reach N(x*; d_Mδ_M)"""

    def arrive(mode: str) -> list[Check]:
        return _arrivals(frames["inside_success"].filter(mode=mode), "{mode}, p = {p:g}")

    return Seen(
        f"a ripple with 87 other minima, in hills as narrow as the steps of δ, {CHAINS} chains",
        [*_class(frames, "narrow"), *arrive("sgd")],
        [*arrive("constant noise"), *arrive("no noise")],
    )
