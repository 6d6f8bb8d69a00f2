"""Study: Propositions 3.1–3.3, their bounds, and the band allowed for the decay rate."""

import numpy as np

from igo.theory import propositions as props
from igo.theory import smoothed
from igo.theory.functions import Array
from igo.theory.kernels import Kernel
from igo.theory.studies import style
from igo.theory.studies.report import Row, Settings, write_csv

SAMPLES = 200_000
STAGES = 200


def run(settings: Settings) -> list[Row]:
    """Sample every bound, draw it, and look for violations."""
    rng = np.random.default_rng(settings.seed)
    return [
        *_width(settings, rng),
        _strong_convexity(settings),
        _probability(settings, rng),
        *_movement(settings, rng),
        *_band(settings),
    ]


def sample_widths(
    rng: np.random.Generator, a: float, dimension: int = 2
) -> tuple[Array, Array, Array]:
    """Draw x in N(x*; a r), u in the unit ball, r = 1; return |δ⁻|, d_m and cos θ where δ⁻ exists."""
    ball = Kernel("ball")
    offset = a * ball.sample(SAMPLES, dimension, rng)
    u = ball.sample(SAMPLES, dimension, rng)
    distance, length = np.linalg.norm(offset, axis=1), np.linalg.norm(u, axis=1)
    cosine = (offset * u).sum(1) / (distance * length)
    delta = props.delta_minus(distance, length, cosine, 1.0, a)
    exists = np.isfinite(delta)
    return delta[exists], props.width(1.0, a, delta[exists]), cosine[exists]


def _width(settings: Settings, rng: np.random.Generator) -> list[Row]:
    grid = np.linspace(1.42, 6, 60)
    records, below, above, negative, outside = [], 0, 0, 0, 0
    for a in grid:
        delta, d, cosine = sample_widths(rng, float(a))
        low, high = (float(v) for v in props.printed_width_bounds(a))
        exact_low, exact_high = (float(v) for v in props.exact_width_bounds(a))
        front = d[cosine > 0]
        below += int((d < low).sum())
        above += int((d > high * (1 + 1e-9)).sum())
        negative += int((cosine < 0).sum())
        outside += int(((front < exact_low * (1 - 1e-9)) | (front > exact_high * (1 + 1e-9))).sum())
        records.append(
            {
                "a": a,
                "samples": d.size,
                "delta_min": delta.min(),
                "delta_max": delta.max(),
                "d_min_front": front.min(initial=np.inf),
                "d_max_front": front.max(initial=0),
                "d_min_all": d.min(),
                "printed_low": low,
                "printed_high": high,
                "exact_low": exact_low,
                "exact_high": exact_high,
            }  # fmt: skip
        )
    write_csv(settings.output / "width_bounds.csv", records)
    _draw_width(settings, rng, grid)
    total = sum(int(r["samples"]) for r in records)  # type: ignore[call-overload]
    middle = [float(v[0]) for v in (props.printed_width_bounds(np.array([2.0]))[1],
                                    props.exact_width_bounds(np.array([2.0]))[1])]  # fmt: skip
    ran = f"{total:,} samples of (x, u) with δ⁻ real, d = 2, a_m from 1.42 to 6"
    files = "delta_minus_and_width.png width_bounds.csv"
    return [
        Row(
            "命題 3.1, slide on d_m",
            "1 ≤ d_m ≤ a_m/(√(a_m² − 1) − 1)",
            ran,
            f"the upper bound was violated {above} times, the lower one {below} times: always at "
            f"θ > π/2 ({negative:,} samples), where the printed |δ⁻| is the other root and d_m < 1. "
            "The text proves it for θ < π/2 only",
            "in part",
            files,
        ),
        Row(
            "slide on d_m",
            "the upper bound a_m/(√(a_m² − 1) − 1)",
            f"{ran}, against a/√(a² − 1) ≤ d_m ≤ a/(a − 1), the exact range for θ < π/2",
            f"{outside} samples outside the exact range. The printed bound is loose: at a_m = 2 "
            f"{middle[0]:.3f} instead of {middle[1]:.3f}, and it grows to ∞ for a_m → √2, where "
            f"the exact one is {np.sqrt(2) / (np.sqrt(2) - 1):.3f}",
            "in part" if outside == 0 else "disagrees",
            files,
        ),
    ]


def _draw_width(settings: Settings, rng: np.random.Generator, grid: Array) -> None:
    figure, (left, right) = style.panels(2, width=5)
    for a in np.linspace(1.45, 6, 24):
        delta, d, cosine = sample_widths(rng, float(a))
        front = np.flatnonzero(cosine > 0)[:60]
        back = np.flatnonzero(cosine < 0)[:60]
        for axis, values in ((left, delta), (right, d)):
            axis.plot(np.full(front.size, a), values[front], ".", color=style.BLUE, markersize=2)
            axis.plot(np.full(back.size, a), values[back], ".", color=style.ORANGE, markersize=2)
    left.plot(grid, np.sqrt(grid**2 - 1), color=style.BLACK, label="r√(a² − 1)")
    left.plot(grid, grid - 1, "--", color=style.BLACK, label="r(a − 1)")
    left.plot(grid, grid + 1, ":", color=style.BLACK, label="r(a + 1)")
    left.set(xlabel="a_m", ylabel="|δ⁻|/r", title="|δ⁻| (blue: θ < π/2, orange: θ > π/2)")
    left.legend()
    low, high = props.printed_width_bounds(grid)
    exact_low, exact_high = props.exact_width_bounds(grid)
    right.plot(grid, high, color=style.RED, label="printed bounds")
    right.plot(grid, low, color=style.RED)
    right.plot(grid, exact_high, "--", color=style.BLACK, label="exact range, θ < π/2")
    right.plot(grid, exact_low, "--", color=style.BLACK)
    right.set(xlabel="a_m", ylabel="d_m", ylim=(0, 8), title="d_m = a_m r/|δ⁻|")
    right.legend()
    style.save(figure, settings.output / "delta_minus_and_width.png")


def _strong_convexity(settings: Settings) -> Row:
    """Rastrigin is σ-strongly convex on B(0; r): does the proposition's δ smooth it so too?"""
    r, function = 0.2, smoothed.rastrigin(Kernel("ball"), 1)
    sigma = float(function.curvature(np.array([[r]]), 0.0)[0])
    records = []
    for a in np.linspace(1.45, 4, 18):
        for share in np.linspace(0.02, 0.98, 9):
            level = r * ((a - 1) + share * (np.sqrt(a**2 - 1) - (a - 1)))
            x = np.linspace(-a * r, a * r, 401)[:, None]
            weakest = float(function.curvature(x, level).min())
            records.append({"a": a, "delta": level, "sigma_of_f": sigma,
                            "smallest_curvature": weakest})  # fmt: skip
    write_csv(settings.output / "strong_convexity.csv", records)
    curvatures = np.array([float(rec["smallest_curvature"]) for rec in records])
    return Row(
        "命題 3.1",
        "f σ-strongly convex on B(x*; r), |δ_m| = |δ⁻| ⇒ f̂_δm σ-strongly convex on N(x*; a_m r)",
        f"Rastrigin, ball kernel, d = 1, r = {r} (σ = {sigma:.0f}): {len(records)} pairs of a_m in "
        "[1.45, 4] and |δ⁻| over its whole range",
        f"f̂ was {sigma:.0f}-strongly convex in {(curvatures >= sigma).sum()} and convex in "
        f"{(curvatures >= 0).sum()} of them (smallest curvature {curvatures.min():.0f}). |δ⁻| "
        "depends on x and u: it brings that x − δu into B(x*; r) for that u, while f̂ averages "
        "over all u with one δ. As printed the proposition does not hold for this function",
        "agrees" if (curvatures >= sigma).all() else "disagrees",
        "strong_convexity.csv",
    )


def _probability(settings: Settings, rng: np.random.Generator) -> Row:
    figure, (axis,) = style.panels(1, width=6, height=3.8)
    grid = np.linspace(1.42, 4, 40)
    records, far = [], {}
    for dimension, colour in zip((2, 3, 10, 100), style.COLOURS, strict=False):
        z = rng.standard_normal((SAMPLES, dimension))
        cosine = np.abs(z[:, 0]) / np.linalg.norm(z, axis=1)
        seen = []
        for a in grid:
            # x just inside the sphere of radius a r and ‖u‖ = 1: the most favourable case
            ratio = np.sqrt(a**2 - 1) / a
            seen.append(float((cosine >= ratio).mean()))
            records.append({"d": dimension, "a": a, "sampled": seen[-1],
                            "formula": float(props.existence_probability(a, 1.0, 1.0, a))})  # fmt: skip
        far[dimension] = seen
        axis.plot(grid, seen, ".", color=colour, label=f"sampled, d = {dimension}")
    formula = props.existence_probability(grid, 1.0, 1.0, grid)
    axis.plot(grid, formula, color=style.BLACK, label="p(a_m)")
    axis.set(xlabel="a_m", ylabel="P(δ⁻ is real)", title="‖x* − x‖ → a_m r, ‖u‖ = 1: the best case")
    axis.legend()
    style.save(figure, settings.output / "existence_probability.png")
    write_csv(settings.output / "existence_probability.csv", records)
    gap = float(np.abs(np.array(far[2]) - formula).max())
    return Row(
        "slide: δ⁻ が存在する確率",
        "p(a_m) = (2/π) arccos(r√(a_m² − 1)/(‖x* − x‖‖u_m‖)), near 0 for large a_m",
        f"{SAMPLES:,} uniform directions in d = 2, 3, 10, 100, 40 values of a_m",
        f"d = 2: largest difference {gap:.4f}. The formula takes θ uniform, true in the plane only: "
        f"at a_m = {grid[0]:.2f} it says {formula[0]:.2f}, sampled {far[3][0]:.2f} (d = 3), "
        f"{far[10][0]:.4f} (d = 10), {far[100][0]:.0e} (d = 100). For large a_m and ‖x* − x‖ = a_m r "
        f"it falls like 2/(π a_m), {formula[-1]:.2f} at a_m = 4; in high dimension it is 0 already "
        "at √2",
        "in part",
        "existence_probability.png existence_probability.csv",
    )


def _case(rng: np.random.Generator) -> tuple[smoothed.Smoothed, Array]:
    """Draw a nonconvex function with an asymmetric wave, and five decreasing noise levels."""
    frequency = rng.uniform(2, 8)
    amplitude = rng.uniform(0.2, 1.5) / frequency
    kernel = Kernel("ball" if rng.random() < 0.5 else "gaussian")
    function = smoothed.tilted_wave(rng.uniform(0, 2 * np.pi), amplitude, frequency, kernel)
    levels = rng.uniform(0.2, 1.5) * np.cumprod(rng.uniform(0.3, 0.95, 5))
    return function, levels


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
                }  # fmt: skip
            )
    return records


def _movement(settings: Settings, rng: np.random.Generator) -> list[Row]:
    settings.progress("Propositions 3.2 and 3.3: random functions")
    records = movement_checks(rng, 3000)
    r = {key: np.array([rec[key] for rec in records]) for key in records[0]}
    premise = r["needed"] <= r["delta"]
    conclusion = r["moved"] <= r["allowed"] + 1e-9
    figure, (left, right) = style.panels(2, width=4.6)
    for chosen, colour, label in ((premise, style.BLUE, "condition met"),
                                  (~premise, style.ORANGE, "not met")):  # fmt: skip
        left.loglog(r["needed"][chosen] / r["delta"][chosen],
                    np.maximum(r["moved"] / r["allowed"], 1e-6)[chosen], ".", markersize=2,
                    color=colour, label=label)  # fmt: skip
    left.axhline(1, color=style.BLACK, linewidth=0.8)
    left.axvline(1, color=style.BLACK, linewidth=0.8)
    left.set(title="Proposition 3.2", xlabel="sufficient |δ_m| / |δ_m|",
             ylabel="‖x*_δm − x*_δm+1‖ / (|δ_m| − |δ_m+1|)")  # fmt: skip
    left.legend(markerscale=5)
    held = r["steps_hold"] > 0
    ratio = r["from_optimum"] / r["delta"]
    right.plot(r["gamma"][held], ratio[held], ".", markersize=2, color=style.BLUE)
    right.axhline(1, color=style.BLACK, linewidth=0.8)
    right.set(title="Proposition 3.3", xlabel="γ_m", ylabel="‖x*_δm − x*‖ / |δ_m|")
    style.save(figure, settings.output / "minimisers_move.png")
    write_csv(settings.output / "minimisers_move.csv", records[:2000])
    violated = int((premise & ~conclusion).sum())
    beyond = int((ratio[held] > 1 + 1e-9).sum())
    return [
        Row(
            "命題 3.2",
            "2 max‖∇f̂(x*)‖/(σ(1 − γ_m)) ≤ |δ_m| is sufficient for condition (i) of new σ-nice",
            f"{len(records):,} (function, δ_m, γ_m): x²/2 + A sin(ωx + φ) at random, ball and "
            "Gaussian kernels, closed forms",
            f"the condition was met {premise.sum():,} times and (i) failed {violated} times then. "
            f"(i) held in {(~premise & conclusion).sum():,} of the {(~premise).sum():,} cases in "
            "which it was not met: sufficient, not necessary",
            "agrees" if violated == 0 else "disagrees",
            "minimisers_move.png minimisers_move.csv",
        ),
        Row(
            "命題 3.3",
            "‖x*_δm − x*‖ < d_{m+1}|δ_{m+1}|: every stage starts in the next strongly convex region",
            f"the {int(held.sum()):,} of them in which (i) held from stage m to the end",
            f"‖x*_δm − x*‖ exceeded |δ_m| {beyond} times (largest ratio {ratio[held].max():.3f}); "
            "with γ_m > 1/d_{m+1} that is the proposition, since then d_{m+1}|δ_{m+1}| > |δ_m|",
            "agrees" if beyond == 0 else "disagrees",
            "minimisers_move.png",
        ),
    ]


def _band(settings: Settings) -> list[Row]:
    schedules = props.schedule_decay_rates(STAGES)
    records = [
        {
            "schedule": name,
            "smallest_gamma": rates.min(),
            "at_stage": int(rates.argmin()) + 1,
            "largest_a_printed": props.largest_a(rates.min()),
            "largest_a_exact": props.largest_a(rates.min(), printed=False),
        }  # fmt: skip
        for name, rates in schedules.items()
    ]
    write_csv(settings.output / "decay_rates.csv", records)
    figure, (left, right) = style.panels(2, width=5.4, height=4)
    stage = np.arange(1, STAGES)
    for index, (name, rates) in enumerate(schedules.items()):
        left.plot(stage[: rates.size], rates, "-" if index < 8 else "--", label=name,
                  color=style.COLOURS[index % 8])  # fmt: skip
    floor = float((np.sqrt(2.0**2 - 1) - 1) / 2.0)
    left.axhspan(floor, 1, color=style.GREEN, alpha=0.1, linewidth=0)
    left.set(xlabel="stage m (M = 200)", ylabel="γ_m", ylim=(0, 1.03),
             title="Decay rates; shaded: allowed at best, a_m = 2")  # fmt: skip
    left.legend(ncols=2, fontsize=7.5, loc="lower left")
    a = np.linspace(np.sqrt(2) + 1e-6, 6, 300)
    right.fill_between(a, (np.sqrt(a**2 - 1) - 1) / a, 1, color=style.GREEN, alpha=0.15,
                       label="printed range of 1/d_m")  # fmt: skip
    right.fill_between(a, (a - 1) / a, np.sqrt(a**2 - 1) / a, color=style.BLUE, alpha=0.25,
                       label="exact range, θ < π/2")  # fmt: skip
    for p, colour in zip((0.5, 1, 2, 4), (style.BLACK, style.RED, style.ORANGE, style.PINK),
                         strict=True):  # fmt: skip
        right.axhline(0.5**p, color=colour, linestyle="--", label=f"smallest γ_m of p = {p:g}")
    right.set(xlabel="a_m", ylabel="1/d_m", title="γ_m must exceed 1/d_{m+1}")
    right.legend(fontsize=7.5, loc="lower right")
    style.save(figure, settings.output / "decay_rate_band.png")
    return _band_rows(schedules)


def _band_rows(schedules: dict[str, Array]) -> list[Row]:
    smallest = {name: float(rates.min()) for name, rates in schedules.items()}
    a_max = {name: props.largest_a(g) for name, g in smallest.items()}
    exact = {name: props.largest_a(g, printed=False) for name, g in smallest.items()}
    listed = "; ".join(
        f"{name}: {smallest[name]:.3g} (a_m < {a_max[name]:.3g}, exactly {exact[name]:.3g})"
        for name in smallest
    )
    gamma = props.optimal_decay_rates(5, 0.5)
    telescoped = np.cumprod(gamma[:-1])
    expected = ((5 - np.arange(1, 5)) / 5) ** 0.5
    return [
        Row(
            "slide: 最適なノイズスケジューリング",
            "Prop. 3.3 needs γ_m ∈ (1/d_{m+1}, 1), (√(a_m² − 1) − 1)/a_m ≤ 1/d_m ≤ 1; "
            "p ∈ (0, 1] is allowed",
            f"the smallest γ_m, m < M = {STAGES}, of every schedule, and the largest a_m for which "
            "it can still be in the band",
            f"{listed}. For p ≤ 1 γ_m ≥ 1/2; p > 1, and cosine at its very end, need smaller a_m. "
            "At m = M γ_M = 0 is outside every band, as the proposition says (m ≤ M − 1)",
            "agrees",
            "decay_rate_band.png decay_rates.csv",
        ),
        Row(
            "Algorithm 3",
            "γ_m = ((M − m)/(M − m + 1))^p",
            "its product for M = 5, p = 1/2 against (1 − m/M)^p",
            f"largest difference {np.abs(telescoped - expected).max():.1e}: δ_m = "
            "δ_1((M − m + 1)/M)^p, the polynomial decay of PyTorch's PolynomialLR",
            "agrees" if np.allclose(telescoped, expected) else "disagrees",
        ),
    ]
