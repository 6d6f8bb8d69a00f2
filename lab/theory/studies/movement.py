"""Study: Propositions 3.2 and 3.3: how far the minimisers of f̂_δm are from one another and x*.

All functions have closed forms: x²/2 + A sin(ωx + φ) under the ball and the Gaussian kernel, and
dented bowls with a kink at x*, whose x*_δ moves as fast as δ.

``measure`` gives the lines of each table of STUDY. A function under ``STUDY.statement`` has a
statement of the source as its docstring, and checks it in these tables. Its ``Seen`` has in order:
how the statement was run, its checks, the same checks where they must fail, and a note.
"""

import numpy as np
import polars as pl
from scipy import optimize

from lab.theory.functions import Dented, Function, Ripple, tilted_wave
from lab.theory.nice import smallest_curvature
from lab.theory.row import Frames, Seen, Study, Tables, no_lines
from lab.theory.smoothing import BALL, GAUSSIAN
from lab.theory.studies.convexity import RADII, SHARE

STUDY = Study("minimisers_move", "stage_starts")
WAVES, FUNCTIONS = 500, 400  # waves for each r of 3.2, and functions of each kind for 3.3


def wave(rng: np.random.Generator) -> Function:
    """Draw a nonconvex function with an asymmetric wave."""
    frequency = rng.uniform(2, 8)
    amplitude = rng.uniform(0.2, 1.5) / frequency
    kernel = BALL if rng.random() < 0.5 else GAUSSIAN
    return tilted_wave(rng.uniform(0, 2 * np.pi), amplitude, frequency, kernel)


def bowl(rng: np.random.Generator) -> Function:
    """Draw a dented bowl with a kink at its minimum, steeper on the left."""
    kink = Ripple(rng.uniform(0.05, 1), rng.uniform(1, 5), wave_slope=0.0, bowl=1.0)
    return Dented(kink)


def minimiser(function: Function, level: float) -> float:
    """Return x*_δ: the zero of the slope between the neighbours of a fine grid's best point."""
    grid = np.linspace(*function.domain, 4001)
    best = function.value(grid, level)[1:-1].argmin() + 1  # the end points have one neighbour
    low, high = grid[best - 1], grid[best + 1]

    def slope(x: float) -> float:
        return float(function.gradient(np.array(x), level))

    return float(optimize.bisect(slope, low, high, xtol=1e-13))


def case_of_3_2(rng: np.random.Generator, r: float) -> dict[str, float] | None:
    """Draw a function that is σ-strongly convex on B(x*; r), σ sharp, and two noise levels.

    |δ_m| = |δ⁻| for an a_m > √2 and θ < π/2. None where f is not convex near x*. `needed` is the
    proposition's smallest |δ_m|, 2 max‖∇f̂(x*)‖/(σ(1 − γ_m)) over levels m and m + 1.
    """
    function = wave(rng)
    star = np.array(minimiser(function, 0.0))
    sigma = smallest_curvature(function, 0.0, star, r)
    if sigma <= 0:
        return None
    a, gamma = rng.uniform(np.sqrt(2), 6), rng.uniform(0.3, 0.95)
    delta = r * rng.uniform(a - 1, np.sqrt(a**2 - 1))
    next_delta = gamma * delta
    slopes = [abs(function.gradient(star, d).item()) for d in (delta, next_delta)]
    points = [minimiser(function, d) for d in (delta, next_delta)]
    return {
        "delta": delta,
        "gamma": gamma,
        "r": r,
        "a": a,
        "sigma": sigma,
        "needed": 2 * max(slopes) / (sigma * (1 - gamma)),
        "moved": abs(points[0] - points[1]),
        "allowed": delta - next_delta,
        "curvature": smallest_curvature(function, delta, star, a * r),
    }


def cases_of_3_3(rng: np.random.Generator, function: Function) -> list[dict[str, float]]:
    """Draw a noise sequence and one d for it, and compare ‖x*(δ_m) − x*‖ with d δ_{m+1}.

    `moves_little`: (i) of new σ-nice from δ_m down to δ = 0. `convex`: (ii), the smallest
    curvature of f̂ on N(x*; d δ) over all levels.
    """
    levels = rng.uniform(0.05, 1.5) * np.cumprod(rng.uniform(0.3, 0.95, 5))
    width, star = rng.uniform(1, 3), minimiser(function, 0.0)
    points = np.array([*(minimiser(function, d) for d in levels), star])
    moves, allowances = np.abs(np.diff(points)), -np.diff([*levels, 0.0])
    convex = min(smallest_curvature(function, d, star, width * d) for d in levels)
    is_small = moves <= allowances + 1e-9
    return [
        {
            "delta": levels[m],
            "gamma": levels[m + 1] / levels[m],
            "d": width,
            "moves_little": bool(is_small[m:].all()),
            "convex": convex,
            "distance": abs(points[m] - star),
            "bound": width * levels[m + 1],
        }
        for m in range(len(levels) - 1)
    ]


def measure(seed: int) -> Tables:
    """Sample functions and noise levels."""
    rng = np.random.default_rng(seed)
    moves = filter(None, [case_of_3_2(rng, r) for r in RADII for _ in range(WAVES)])
    starts = [
        {"function": name} | case
        for draw, name in ((wave, "wave"), (bowl, "dented bowl"))
        for _ in range(FUNCTIONS)
        for case in cases_of_3_3(rng, draw(rng))
    ]
    return [*moves], starts


@STUDY.statement("命題 3.2")
def noise_is_sufficient(frames: Frames) -> Seen:
    """f σ-strongly convex on a small B(x*; r), 2 max‖∇f̂(x*)‖/(σ(1 − γ_m)) ≤ |δ_m| = |δ⁻| ⇒ f new
    σ-nice
    """
    table = frames["minimisers_move"]
    moves_far = pl.col("moved") > pl.col("allowed") * (1 + 1e-5) + 1e-9  # breaks (i)

    def met(r: float, share: float = SHARE) -> pl.DataFrame:
        """The cases in which the premise holds, where σ is this share of its largest value."""
        return table.filter(pl.col("needed") <= share * pl.col("delta"), r=r)

    def weak(r: float, share: float = SHARE) -> pl.DataFrame:
        """Those of the same cases that break (ii)."""
        return met(r, share).filter(pl.col("curvature") < share * pl.col("sigma") * (1 - 1e-5))

    unmet = table.filter(pl.col("needed") > SHARE * pl.col("delta"))
    small, cases = RADII[-1], {r: f"of {len(met(r))}, r = {r:g}" for r in RADII}
    return Seen(
        "random x²/2 + A sin(ωx + φ)",
        [
            no_lines(f"break (ii) {cases[small]}, σ at its largest", weak(small, 1.0)),
            *(no_lines(f"break (i) {cases[r]}", met(r).filter(moves_far)) for r in RADII),
            *(no_lines(f"break (ii) {cases[r]}", weak(r)) for r in RADII),
        ],
        [no_lines("do not meet it and break (i)", unmet.filter(moves_far))],
        "How small r must be depends on σ [derived]",
    )


@STUDY.statement("命題 3.3, 最適なノイズスケジューリング")
def stages_start_inside(frames: Frames) -> Seen:
    """f new σ-nice ⇒ ‖x*(δ_m) − x*‖ < d_{m+1}|δ_{m+1}|, for which γ_m > 1/d_{m+1} is necessary"""
    table = frames["stage_starts"].filter(pl.col("moves_little") & (pl.col("convex") > 0))
    is_above = pl.col("gamma") > 1 / pl.col("d")
    is_outside = pl.col("distance") >= pl.col("bound")
    below = table.filter(~is_above)
    return Seen(
        f"{len(table):,} stages of random new σ-nice functions, {len(below):,} with such γ_m",
        [
            no_lines("γ_m > 1/d_{m+1}: start outside", table.filter(is_above & is_outside)),
            no_lines("γ_m ≤ 1/d_{m+1}: start inside", below.filter(~is_outside)),
        ],
        [no_lines("γ_m ≤ 1/d_{m+1}: start outside", below.filter(is_outside))],
        "γ_m > 1/d_{m+1} is sufficient [derived], and necessary only for all such f at once",
    )
