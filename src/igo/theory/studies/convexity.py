"""Study: Proposition 3.1: |δ⁻|, d_m and its bounds, p(a_m), and the strong convexity of f̂_δ."""

import numpy as np

from igo.theory import propositions as props
from igo.theory import smoothed
from igo.theory.functions import Array
from igo.theory.kernels import Kernel
from igo.theory.studies import style
from igo.theory.studies.report import Row, Settings, write_csv

SAMPLES = 200_000


def run(settings: Settings) -> list[Row]:
    """Sample every bound, draw it, and look for violations."""
    rng = np.random.default_rng(settings.seed)
    return [*_width(settings, rng), _strong_convexity(settings), _probability(settings, rng)]


def sample_widths(
    rng: np.random.Generator, a: float, dimension: int = 2
) -> tuple[Array, Array, Array]:
    """Draw x in N(x*; a), u in the unit ball, r = 1: |δ⁻|, d_m, cos θ of those with a real δ⁻."""
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
    records: list[dict[str, object]] = []
    below, below_front, above, negative, outside = 0, 0, 0, 0, 0
    for a in grid:
        delta, d, cosine = sample_widths(rng, float(a))
        low, high = (float(v) for v in props.printed_width_bounds(a))
        exact_low, exact_high = (float(v) for v in props.exact_width_bounds(a))
        front = d[cosine > 0]
        below += int((d < low).sum())
        below_front += int((front < low).sum())
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
            }
        )
    write_csv(settings.output / "width_bounds.csv", records)
    _draw_width(settings, rng, grid)
    total = sum(int(r["samples"]) for r in records)  # type: ignore[call-overload]
    middle = [
        float(v[0])
        for v in (
            props.printed_width_bounds(np.array([2.0]))[1],
            props.exact_width_bounds(np.array([2.0]))[1],
        )
    ]
    ran = f"{total:,} samples of (x, u) with δ⁻ real, d = 2, a_m from 1.42 to 6"
    files = "delta_minus_and_width.png width_bounds.csv"
    return [
        Row(
            "命題 3.1, slide on d_m",
            "1 ≤ d_m ≤ a_m/(√(a_m² − 1) − 1)",
            ran,
            f"the upper bound was violated {above} times, the lower one {below:,} times, of "
            f"these {below_front} at θ < π/2: at θ > π/2 ({negative:,} samples) the printed |δ⁻| "
            "is the other, larger root, and d_m may be below 1.",
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
    left.set(
        xlabel=r"$a_m$",
        ylabel=r"$|\delta^-|/r$",
        title=r"$|\delta^-|$ (blue: θ < π/2, orange: θ > π/2)",
    )
    left.legend()
    low, high = props.printed_width_bounds(grid)
    exact_low, exact_high = props.exact_width_bounds(grid)
    right.plot(grid, high, color=style.RED, label="printed bounds")
    right.plot(grid, low, color=style.RED)
    right.plot(grid, exact_high, "--", color=style.BLACK, label="exact range, θ < π/2")
    right.plot(grid, exact_low, "--", color=style.BLACK)
    right.set(xlabel=r"$a_m$", ylabel=r"$d_m$", ylim=(0, 8), title=r"$d_m = a_m r/|\delta^-|$")
    right.legend()
    style.save(figure, settings.output / "delta_minus_and_width.png")


def _strong_convexity(settings: Settings) -> Row:
    """Rastrigin is σ-strongly convex on B(0; r): does the proposition's δ smooth it so too?"""
    function = smoothed.rastrigin(Kernel("ball"), 1)
    records, seen, all_hold = [], [], True
    for r in (0.2, 0.02):
        sigma = float(function.curvature(np.array([[r]]), 0.0)[0])
        curvatures = []
        for a in np.linspace(1.45, 4, 18):
            for share in np.linspace(0.02, 0.98, 9):
                level = r * ((a - 1) + share * (np.sqrt(a**2 - 1) - (a - 1)))
                x = np.linspace(-a * r, a * r, 401)[:, None]
                curvatures.append(float(function.curvature(x, level).min()))
                records.append(
                    {
                        "r": r,
                        "a": a,
                        "delta": level,
                        "sigma_of_f": sigma,
                        "smallest_curvature": curvatures[-1],
                    }
                )
        found = np.array(curvatures)
        all_hold &= bool((found >= sigma).all())
        seen.append(
            f"r = {r}, σ = {sigma:.0f}: σ-strongly convex in {(found >= sigma).sum()}, convex in "
            f"{(found >= 0).sum()} of {found.size} (smallest curvature {found.min():.0f})"
        )
    write_csv(settings.output / "strong_convexity.csv", records)
    return Row(
        "命題 3.1",
        "f σ-strongly convex on B(x*; r), |δ_m| = |δ⁻| ⇒ f̂_δm σ-strongly convex on N(x*; a_m r)",
        "Rastrigin, ball kernel, d = 1, two r: pairs of a_m in [1.45, 4] and |δ⁻| over its range",
        "; ".join(seen) + ". |δ⁻| depends on x and u: it brings x − δu into B(x*; r) for that u, "
        "while f̂ averages over all u with one δ. As printed the proposition does not hold for "
        "this function",
        "agrees" if all_hold else "disagrees",
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
            records.append(
                {
                    "d": dimension,
                    "a": a,
                    "sampled": seen[-1],
                    "formula": float(props.existence_probability(a, 1.0, 1.0, a)),
                }
            )
        far[dimension] = seen
        axis.plot(grid, seen, ".", color=colour, label=f"sampled, d = {dimension}")
    formula = props.existence_probability(grid, 1.0, 1.0, grid)
    axis.plot(grid, formula, color=style.BLACK, label=r"$p(a_m)$")
    axis.set(
        xlabel=r"$a_m$",
        ylabel="P(δ⁻ is real)",
        title=r"$\|x^* - x\| \to a_m r$, $\|u\| = 1$: the best case",
    )
    axis.legend()
    style.save(figure, settings.output / "existence_probability.png")
    write_csv(settings.output / "existence_probability.csv", records)
    gap = float(np.abs(np.array(far[2]) - formula).max())
    return Row(
        "slide: δ⁻ が存在する確率",
        "p(a_m) = (2/π) arccos(r√(a_m² − 1)/(‖x* − x‖‖u_m‖)), near 0 for large a_m",
        f"{SAMPLES:,} uniform directions in d = 2, 3, 10, 100, 40 values of a_m",
        f"d = 2: largest difference {gap:.4f}. The formula takes θ uniform, as in the plane only: "
        f"at a_m = {grid[0]:.2f} it says {formula[0]:.2f}, sampled {far[3][0]:.2f} (d = 3), "
        f"{far[10][0]:.4f} (d = 10), {far[100][0]:.0e} (d = 100). For large a_m it falls "
        f"like 2/(π a_m), {formula[-1]:.2f} at a_m = 4; in high dimension it is 0 already "
        "at √2",
        "in part",
        "existence_probability.png existence_probability.csv",
    )
