"""Study: Propositions 3.2 and 3.3: how far the minimisers of f̂_δm move."""

import numpy as np

from igo.theory import propositions as props
from igo.theory import smoothed
from igo.theory.functions import Array
from igo.theory.kernels import Kernel
from igo.theory.studies import style
from igo.theory.studies.report import Row, Settings, write_csv


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
    """Sample (function, δ_m, γ_m) and return what Propositions 3.2 and 3.3 compare, a record each.

    σ is the smallest curvature of both f̂ on the interval that holds x*, x*_δm and x*_δm+1, as the
    propositions presuppose; cases without one (σ ≤ 0) are left out.
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
                    "from_optimum": abs(points[m] - best),
                    "stage": float(m),
                    "steps_hold": float(
                        all(
                            abs(points[k] - points[k + 1]) <= levels[k] - levels[k + 1]
                            for k in range(m, len(levels) - 1)
                        )
                        and abs(points[-1] - best) <= levels[-1]
                    ),
                }
            )
    return records


def run(settings: Settings) -> list[Row]:
    """Sample functions and noise sequences, and look for violations."""
    records = movement_checks(np.random.default_rng(settings.seed), 3000)
    r = {key: np.array([rec[key] for rec in records]) for key in records[0]}
    premise = r["needed"] <= r["delta"]
    conclusion = r["moved"] <= r["allowed"] + 1e-9
    figure, (left, right) = style.panels(2, width=4.6)
    for chosen, colour, label in (
        (premise, style.BLUE, "condition met"),
        (~premise, style.ORANGE, "not met"),
    ):
        left.loglog(
            r["needed"][chosen] / r["delta"][chosen],
            np.maximum(r["moved"] / r["allowed"], 1e-6)[chosen],
            ".",
            markersize=2,
            color=colour,
            label=label,
        )
    left.axhline(1, color=style.BLACK, linewidth=0.8)
    left.axvline(1, color=style.BLACK, linewidth=0.8)
    left.set(
        title="Proposition 3.2",
        xlabel=r"sufficient $|\delta_m|$ / $|\delta_m|$",
        ylabel=r"$\|x^*_{\delta_m} - x^*_{\delta_{m+1}}\|\,/\,(|\delta_m| - |\delta_{m+1}|)$",
    )
    left.legend(markerscale=5)
    held = r["steps_hold"] > 0
    ratio = r["from_optimum"] / r["delta"]
    right.plot(r["gamma"][held], ratio[held], ".", markersize=2, color=style.BLUE)
    right.axhline(1, color=style.BLACK, linewidth=0.8)
    right.set(
        title="Proposition 3.3",
        xlabel=r"$\gamma_m$",
        ylabel=r"$\|x^*_{\delta_m} - x^*\|\,/\,|\delta_m|$",
    )
    style.save(figure, settings.output / "minimisers_move.png")
    write_csv(settings.output / "minimisers_move.csv", records[:2000])
    violated = int((premise & ~conclusion).sum())
    beyond = int((ratio[held] > 1 + 1e-9).sum())
    return [
        Row(
            "命題 3.2",
            "2 max‖∇f̂(x*)‖/(σ(1 − γ_m)) ≤ |δ_m| is sufficient for condition (i) of new σ-nice",
            f"{len(records):,} (function, δ_m, γ_m): x²/2 + A sin(ωx + φ) at random (CSV: 2,000), "
            "ball and Gaussian kernels, closed forms",
            f"the condition was met {premise.sum():,} times and (i) failed {violated} times then. "
            f"(i) held in {(~premise & conclusion).sum():,} of the {(~premise).sum():,} cases in "
            "which it was not met: sufficient, not necessary",
            "agrees" if violated == 0 else "disagrees",
            "minimisers_move.png minimisers_move.csv",
        ),
        Row(
            "命題 3.3",
            "‖x*_δm − x*‖ < d_{m+1}|δ_{m+1}|: a stage starts in the next strongly convex region",
            f"the {int(held.sum()):,} of them in which (i) held from stage m to the end",
            f"‖x*_δm − x*‖ exceeded |δ_m| {beyond} times (largest ratio {ratio[held].max():.3f}); "
            "with γ_m > 1/d_{m+1} that is the proposition, since then d_{m+1}|δ_{m+1}| > |δ_m|",
            "agrees" if beyond == 0 else "disagrees",
            "minimisers_move.png",
        ),
    ]
