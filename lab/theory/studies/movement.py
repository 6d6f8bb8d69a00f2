"""Study: Proposition 3.2: how far the minimisers of f̂_δm move."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lab.theory import propositions as props
from lab.theory import smoothed
from lab.theory.functions import Array
from lab.theory.kernels import Kernel
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, statement
from lab.theory.studies import style

PICTURE = "minimisers_move.png"
COUNT = 600


def _case(rng: np.random.Generator) -> tuple[smoothed.Smoothed, Array]:
    """Draw a nonconvex function with an asymmetric wave, and five decreasing noise levels."""
    frequency = rng.uniform(2, 8)
    amplitude = rng.uniform(0.2, 1.5) / frequency
    kernel = Kernel("ball" if rng.random() < 0.5 else "gaussian")
    function = smoothed.tilted_wave(rng.uniform(0, 2 * np.pi), amplitude, frequency, kernel)
    levels = rng.uniform(0.2, 1.5) * np.cumprod(rng.uniform(0.3, 0.95, 5))
    return function, np.asarray(levels, float)


def _minimiser(function: smoothed.Smoothed, level: float, grid: Array) -> float:
    """Return x*_δ by Newton's method from the best point of a fine grid."""
    x = grid[function.value(grid, level).argmin()][None]
    for _ in range(4):
        curvature = function.curvature(x, level)[:, None]
        x = x - np.where(curvature > 0, function.gradient(x, level) / curvature, 0.0)
    return float(x[0, 0])


def movement_checks(rng: np.random.Generator, count: int) -> list[dict[str, float]]:
    """Sample (function, δ_m, γ_m); return a record of each with the terms of Proposition 3.2.

    σ is the smallest curvature of both f̂ on the interval that holds x*, x*_δm and x*_δm+1, as the
    proposition presupposes; cases without one (σ ≤ 0) are left out.
    """
    records = []
    for _ in range(count):
        function, levels = _case(rng)
        grid = np.linspace(*function.domain, 4001)[:, None]
        best = _minimiser(function, 0.0, grid)
        points = [_minimiser(function, float(level), grid) for level in levels]
        for m in range(len(levels) - 1):
            here, there = float(levels[m]), float(levels[m + 1])
            low, high = min(best, *points), max(best, *points)
            between = np.linspace(low, high, 201)[:, None]
            sigma = min(float(function.curvature(between, d).min()) for d in (here, there))
            if sigma <= 0:
                continue
            star = np.array([[best]])
            slopes = tuple(float(abs(function.gradient(star, d)[0, 0])) for d in (here, there))
            needed = props.sufficient_noise_level((slopes[0], slopes[1]), sigma, there / here)
            records.append(
                {
                    "delta": here,
                    "gamma": there / here,
                    "needed": needed,
                    "moved": abs(points[m] - points[m + 1]),
                    "allowed": here - there,
                }
            )
    return records


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Sample functions and noise sequences."""
    return {"minimisers_move": frame(movement_checks(np.random.default_rng(settings.seed), COUNT))}


def draw(frames: Frames) -> Figure:
    """Draw the moves of the minimisers, divided by their bounds."""
    table = frames["minimisers_move"]
    figure, (axis,) = style.panels(1, width=4.6)
    met = pl.col("needed") <= pl.col("delta")
    chosen = ((met, style.BLUE, "condition met"), (~met, style.ORANGE, "not met"))
    for condition, colour, label in chosen:
        rows = table.filter(condition)
        moved = (rows["moved"] / rows["allowed"]).clip(1e-6)
        dots = {"markersize": 2, "color": colour, "label": label}
        axis.loglog(rows["needed"] / rows["delta"], moved, ".", **dots)
    axis.axhline(1, color=style.BLACK, linewidth=0.8)
    axis.axvline(1, color=style.BLACK, linewidth=0.8)
    axis.set(
        title="Proposition 3.2",
        xlabel=r"sufficient $|\delta_m|$ / $|\delta_m|$",
        ylabel=r"$\|x^*_{\delta_m} - x^*_{\delta_{m+1}}\|\,/\,(|\delta_m| - |\delta_{m+1}|)$",
    )
    axis.legend(markerscale=5)
    return figure


def _violations(table: pl.DataFrame, condition: pl.Expr) -> int:
    """Count the cases that meet a condition and move farther than (i) allows."""
    too_far = pl.col("moved") > pl.col("allowed") * (1 + 1e-5) + 1e-9
    return len(table.filter(condition & too_far))


@statement(
    "命題 3.2",
    "2 max‖∇f̂(x*)‖/(σ(1 − γ_m)) ≤ |δ_m| is sufficient for condition (i) of new σ-nice",
    PICTURE,
)
def slope_bounds_the_move(frames: Frames) -> Seen:
    """Count violations of (i) where the condition is met, and where it is not."""
    table = frames["minimisers_move"]
    met = pl.col("needed") <= pl.col("delta")
    return Seen(
        f"{len(table):,} (function, δ_m, γ_m): x²/2 + A sin(ωx + φ) at random, ball and Gaussian "
        "kernels, closed forms",
        [
            Check("cases that meet the condition", len(table.filter(met)), low=1000),
            Check("of these, cases that break (i)", _violations(table, met), high=0),
        ],
        [Check("cases that do not meet it and break (i)", _violations(table, ~met), high=0)],
    )


STUDY = Study(
    measure,
    ("minimisers_move",),
    {PICTURE: draw},
    (slope_bounds_the_move,),
)
