"""Study: does falling noise leave other minima where plain descent and constant noise stay?

f(x) = Σ g(x_i), where g is a ripple with three minima. Starts are uniform in [−1, 1]^d. The ball's
radius grows as √((d + 2)/3), so that the noise of a coordinate has the same variance for every d.
Every SGD method has one number to tune, its first noise level: on one grid, refined at its best
point, by chains of another seed. Algorithm 3 has M by M^p = 1/(α_0 ε), and stages as long as
T_F = H_4/ε_m (H_3 = 0). Stages of one length are another algorithm: *equal stages*.

``measure`` gives the lines of each table of STUDY. A function under ``STUDY.statement`` has a
statement of the source as its docstring, and checks it in these tables. Its ``Seen`` has in order:
how the statement was run, its checks, the same checks where they must fail, and a note.
"""

from itertools import product

import numpy as np

from igo.plans.algorithm3 import stages_for
from lab.theory.functions import Ripple
from lab.theory.propositions import optimal_levels
from lab.theory.row import Check, Frames, Seen, Study, Tables, rate, rate_gap
from lab.theory.smoothing import Array, in_ball

STUDY = Study("escape")
PROBLEM = Ripple(wave_slope=0.6, frequency=15.0)
BASIN = np.arccos(-0.5) / PROBLEM.frequency  # g's first maximum: right + Aω·cos ωx = 0
CHAINS = {1: 1000, 2: 1000, 10: 300}  # chains by dimension
ETA, STEPS = 0.01, 4000
LAST = 400  # steps of plain descent at the end of every method: Algorithm 3's stage M + 1
SMALL = {10: 4}  # in this dimension η is so much smaller, and the steps are so many more
GRID = (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)  # first noise levels, in units of the domain
ACCURACY = 20  # 1/(α_0 ε): M = 400 for p = 1/2, 20 for p = 1, 5 for p = 2
POWERS = (0.5, 1.0, 2.0)  # Algorithm 3 has p ≤ 1
EQUAL = ((0.5, 20), (0.5, 400), (1.0, 20), (2.0, 20))  # p and M of equal stages
WHOLE, TUNED = "whole domain", "tuned"  # first noise levels
DESCENT, CONSTANT, GROWING = "gradient descent", "constant noise", "growing noise"
Method = tuple[Array, Array]  # noise and learning rate of each step, over their first values


def falling(p: float, stages: int | None = None) -> Array:
    """Return φ of each step: of Algorithm 3, or of so many equal stages."""
    phi = optimal_levels(1.0, stages or stages_for(1 / ACCURACY, 1.0, p), p)
    lengths = np.ones_like(phi) if stages else phi**-2  # T_F ∝ 1/ε_m, ε_m = σ²δ_m²
    ends = np.round(STEPS * lengths.cumsum() / lengths.sum()).astype(int)
    return np.repeat(phi, np.diff(ends, prepend=0))


def methods() -> dict[str, Method]:
    """Return the methods with a noise level; all have the same number of steps."""
    ones = np.ones(STEPS)
    return {
        CONSTANT: (ones, ones),
        **{named(p): (falling(p), ones) for p in POWERS},
        **{named(p, "η falls"): (falling(p), falling(p)) for p in POWERS[:2]},
        **{f"{m} equal stages, p = {p:g}": (falling(p, m), ones) for p, m in EQUAL},
        GROWING: (falling(1, ACCURACY)[::-1], ones),
    }


def named(p: float, way: str = "b grows") -> str:
    """Return the name of Algorithm 3."""
    return f"Algorithm 3, {way}, p = {p:g}"


def successes(method: Method, delta_1: float, d: int, seed: int) -> int:
    """Count the chains in dimension d that end in the global basin: the method, then plain descent.

    The method's first noise level is `delta_1`; 0 is no noise. Starts and noise have this seed.
    """
    rng = np.random.default_rng(seed)
    x = np.random.default_rng(seed).uniform(-1, 1, (CHAINS[d], d))
    slow = SMALL.get(d, 1)
    radius = delta_1 * np.sqrt((d + 2) / 3)
    for level, speed in np.repeat(method, slow, axis=1).T:
        noise = radius * level * in_ball(len(x), d, rng) if delta_1 > 0 else 0.0
        x = x - ETA / slow * speed * PROBLEM.gradient(x - noise)
    for _ in range(LAST * slow):
        x = x - ETA / slow * method[1][-1] * PROBLEM.gradient(x)
    return int((np.abs(x) < BASIN).all(1).sum())


def tuned(method: Method, d: int, seed: int) -> float:
    """Return the best first noise level: of the grid, then of four levels round its best."""

    def best(levels: list[float]) -> float:
        return max(levels, key=lambda level: successes(method, level, d, seed))

    coarse = best(list(GRID))
    return best([coarse * 2**step for step in (0, -0.5, -0.25, 0.25, 0.5)])


def measure(seed: int) -> Tables:
    """Run every method in every dimension from δ_1 = 1, and tuned, on chains of another seed."""
    records = []
    for d, chains in CHAINS.items():
        still = (np.zeros(STEPS), np.ones(STEPS))
        runs = [(DESCENT, "none", still, 0.0)]
        runs += [(name, WHOLE, method, 1.0) for name, method in methods().items()]
        runs += [
            (name, TUNED, method, tuned(method, d, seed + 1)) for name, method in methods().items()
        ]
        for name, level, method, delta_1 in runs:
            records.append(
                {
                    "d": d,
                    "method": name,
                    "level": level,
                    "delta_1": delta_1,
                    "chains": chains,
                    "successes": successes(method, delta_1, d, seed),
                }
            )
    return (records,)


def _wins(frames: Frames, d: int, name: str) -> tuple[int, int]:
    """The successes of a method with its tuned noise level, and its chains."""
    level = "none" if name == DESCENT else TUNED
    row = frames["escape"].filter(d=d, method=name, level=level).row(0, named=True)
    return row["successes"], row["chains"]


def _success(frames: Frames, d: int, name: str) -> Check:
    """Check that nine of ten chains reach the global basin."""
    return rate(f"{name}, d = {d}", *_wins(frames, d, name), low=0.9)


def _gap(frames: Frames, d: int, name: str, rival: str) -> Check:
    """Check that more chains succeed than those of the rival, whose name is cut to its end."""
    quantity = f"{name} less {rival.rpartition(', ')[2]}, d = {d}"
    return rate_gap(quantity, _wins(frames, d, name), _wins(frames, d, rival))


AGAIN = "the ripples of row 17"


@STUDY.statement("定理 3.4, Algorithm 3")
def reaches_the_global_minimum(frames: Frames) -> Seen:
    """the global minimiser is reached from all over the domain, past other minima"""
    cases = product(("η falls", "b grows"), POWERS[:2], CHAINS)
    return Seen(
        f"ripples with three minima, not new σ-nice; M^p = {ACCURACY}, δ_1 tuned",
        [_success(frames, d, named(p, way)) for way, p, d in cases],
        [_success(frames, d, DESCENT) for d in CHAINS],
    )


@STUDY.statement("SGDの挙動についての理論的洞察")
def falling_beats_constant(frames: Frames) -> Seen:
    """falling noise reaches the global minimiser more often than none and constant noise"""
    cases = product(("b grows", "η falls"), POWERS[:2], (DESCENT, CONSTANT), CHAINS)
    return Seen(
        AGAIN,
        [_gap(frames, d, named(p, way), rival) for way, p, rival, d in cases],
        [_gap(frames, d, GROWING, CONSTANT) for d in (1, 2)],
    )


@STUDY.statement("最適なノイズスケジューリング")
def powers_up_to_one_are_best(frames: Frames) -> Seen:
    """the optimal decay of the noise has p in (0, 1]"""
    return Seen(
        AGAIN,
        [_gap(frames, d, named(p), named(2)) for d in CHAINS for p in POWERS[:2]],
        note="[Success rates](../../docs/choose-settings.md#p-on-a-test-function)",
    )
