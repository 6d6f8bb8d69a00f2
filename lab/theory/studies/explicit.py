"""Study: Algorithm 1 with its printed rule and with Hazan et al.'s rule; Theorem 5.1's rate.

``measure`` gives the lines of each table of STUDY. A function under ``STUDY.statement`` has a
statement of the source as its docstring, and checks it in these tables. Its ``Seen`` has in order:
how the statement was run, its checks, the same checks where they must fail, and a note.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from lab.theory.functions import Dented
from lab.theory.nice import check_sigma_nice
from lab.theory.propositions import fitted_exponent
from lab.theory.row import Check, Frames, Seen, Study, Tables
from lab.theory.smoothing import Array, in_ball

STUDY = Study("algorithm1")
FIRST, CONSTANT, CHAINS, SIGMA, STAGES = 0.5, 0.05, 200, 0.7, 7
PROBLEM = Dented()  # nonconvex and σ-nice, and f(x*_δ) is proportional to δ


def hazan_steps(noise_level: float) -> int:
    """Return c·L²/(σ ε_m), ε_m = σδ_m²/32: the steps of SGD to accuracy ε_m. It grows as 1/δ_m².

    Hazan et al. 2016 use this rate of SGD with suffix averaging on a σ-strongly convex function
    (Rakhlin et al. 2012). c is CONSTANT, which the slides do not have.
    """
    return math.ceil(CONSTANT * PROBLEM.lipschitz**2 / (SIGMA * SIGMA * noise_level**2 / 32))


def algorithm1(
    gradient: Callable[[Array], Array],
    start: Array,
    levels: Array,
    steps: Sequence[int],
    sigma: float,
    seed: int = 0,
) -> list[Array]:
    """Run Algorithm 1 from `start` (n, d) on n independent chains; return the points of each stage.

    A stage is `steps` steps of SGD on f̂_δm with ∇f(x − δ_m u) and step 1/(σt). Points are projected
    into the ball of radius 1.5 δ_m about the stage's start. The result of a stage is the mean of
    its last half (Hazan et al. 2016, GradOpt_G; suffix averaging of Rakhlin et al. 2012).
    """
    rng = np.random.default_rng(seed)
    x, results = np.array(start, float), []
    for level, count in zip(levels, steps, strict=True):
        centre, total, first_kept = x.copy(), np.zeros_like(x), count // 2
        for t in range(1, count + 1):
            u = in_ball(len(x), x.shape[1], rng)
            move = x - gradient(x - level * u) / (sigma * t) - centre
            length = np.linalg.norm(move, axis=1, keepdims=True)
            x = centre + move * np.minimum(1, 1.5 * level / np.maximum(length, 1e-300))
            if t > first_kept:
                total += x
        x = total / (count - first_kept)
        results.append(x)
    return results


def measure(seed: int) -> Tables:
    """Run Algorithm 1 on a σ-nice function with both iteration rules."""
    levels = np.array([FIRST / 2**m for m in range(STAGES)])
    nice = all(level.holds for level in check_sigma_nice(PROBLEM, levels, SIGMA))
    start = np.random.default_rng(seed).uniform(-FIRST, FIRST, (CHAINS, 1))
    records = []
    rules: dict[str, Any] = {
        "printed": SIGMA * levels**2 / 32,  # in Hazan et al. an accuracy, ε_m
        "hazan": [*map(hazan_steps, levels)],
    }
    for rule, lengths in rules.items():
        steps = [math.ceil(length) for length in lengths]
        results = algorithm1(PROBLEM.gradient, start, levels, steps, SIGMA, seed)
        for m, errors in enumerate(map(PROBLEM.value, results)):
            records.append(
                {
                    "rule": rule,
                    "stage": m + 1,
                    "sigma_nice": nice,
                    "delta": levels[m],
                    "steps_asked": float(lengths[m]),
                    "total_steps": sum(steps[: m + 1]),
                    "mean_error": errors.mean(),
                    "standard_error": errors.std() / np.sqrt(CHAINS),
                }
            )
    return (records,)


@STUDY.statement("Algorithm 1")
def printed_step_rule(frames: Frames) -> Seen:
    """stage m has T_m := σδ_m²/32 SGD steps"""
    rows = frames["algorithm1"].filter(rule="printed")
    fall = rows["mean_error"][-1] / rows["mean_error"][0] / 0.5 ** (STAGES - 1)
    return Seen(
        f"the dented bowl, {STAGES} halvings",
        [
            Check("fewest steps", rows["steps_asked"].to_numpy().min(), low=1),
            Check("fall of the error over that of δ", fall, high=2),
        ],
        note="A misprint: in Hazan et al. this is the accuracy ε_m, with c·L²/(σε_m) steps",
    )


@STUDY.statement("定理 5.1")
def theorem_5_1(frames: Frames) -> Seen:
    """O(1/ε²) iterations of Algorithm 1 reach f(x) − f(x*) ≤ ε"""
    # The first stages still feel the start.
    hazan = frames["algorithm1"].filter(pl.col("stage") > 2, rule="hazan")
    error = hazan["mean_error"].to_numpy()
    slope, spread = fitted_exponent(hazan["total_steps"].to_numpy(), error)
    # The steps of all stages grow as 4^m, and the error falls as 2^−m. So 2^m has the exponent 1.
    stages, _ = fitted_exponent(2.0 ** hazan["stage"].to_numpy(), error)
    interval = (slope - 1.96 * spread, slope + 1.96 * spread)
    return Seen(
        "the dented bowl, c·L²/(σε_m) steps in a stage",
        [Check("fitted exponent", slope, 1.7, 2.3, interval)],
        [Check("exponent of 2^m, rounds, instead of steps", stages, 1.7, 2.3)],
    )
