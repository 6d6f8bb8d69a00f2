"""Study: Proposition 3.1: |δ⁻|, d_m and its bounds, p(a_m), and the strong convexity of f̂_δ.

``measure`` gives the lines of each table of STUDY. A function under ``STUDY.statement`` has a
statement of the source as its docstring, and checks it in these tables. Its ``Seen`` has in order:
how the statement was run, its checks, the same checks where they must fail, and a note.
"""

from itertools import product
from typing import Any

import numpy as np
import polars as pl

from lab.theory import propositions as props
from lab.theory.functions import rastrigin
from lab.theory.nice import smallest_curvature
from lab.theory.row import Check, Frames, Records, Seen, Study, Tables, checks, no_lines
from lab.theory.smoothing import BALL, Array, in_ball

STUDY = Study("width_bounds", "strong_convexity", "existence_probability")
SAMPLES = 200_000
DIMENSIONS = (2, 3, 10, 100)
A_WIDTHS, A_PROBABILITY = np.linspace(1.42, 6, 60), np.linspace(1.42, 4, 40)
SLACK = 1e-5  # relative, for six printed digits
RADII, SHARE = (0.1, 0.01, 0.001), 0.9  # r, and σ over its largest value on B(x*; r)


def sample_widths(rng: np.random.Generator, a: float) -> tuple[Array, Array, Array]:
    """Draw x in N(x*; a), u in the unit disc, r = 1; |δ⁻|, d_m = a/|δ⁻|, cos θ if δ⁻ is real."""
    offset, u = a * in_ball(SAMPLES, 2, rng), in_ball(SAMPLES, 2, rng)
    distance, length = np.linalg.norm(offset, axis=1), np.linalg.norm(u, axis=1)
    cosine = (offset * u).sum(1) / (distance * length)
    delta = props.delta_minus(distance, length, cosine, 1.0, a)
    is_real = np.isfinite(delta)
    return delta[is_real], a / delta[is_real], cosine[is_real]


def measure(seed: int) -> Tables:
    """Sample widths and angles, and take the curvature of smoothed Rastrigin."""
    rng, radii = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    widths: list[dict[str, Any]] = []
    for a in A_WIDTHS:
        delta, d, cosine = sample_widths(rng, a)
        # θ < π/2 has other bounds than θ > π/2. Of each the table has the smallest d_m, the
        # largest, and ten others.
        for front in (True, False):
            samples = np.flatnonzero(cosine > 0 if front else cosine < 0)
            if samples.size:
                by_width = samples[d[samples].argsort(kind="stable")]
                widths += [
                    {"a": a, "delta": delta[i], "d_m": d[i], "front": front, "samples": len(d)}
                    for i in (by_width[0], by_width[-1], *samples[:10])
                ]
    angles = []
    for dimension in DIMENSIONS:
        z = rng.standard_normal((SAMPLES, dimension))
        cosine = np.abs(z[:, 0]) / np.linalg.norm(z, axis=1)
        # ‖x* − x‖/(a r), of x in N(x*; a r), and ‖u‖, of u in the unit ball, have the same law.
        distance, length = radii.random((2, SAMPLES)) ** (1 / dimension)
        for a in A_PROBABILITY:
            p = props.existence_probability(a * distance, length, a)
            angles.append(
                {
                    "d": dimension,
                    "a": a,
                    # The most favourable case: x just inside the sphere of radius a r, and ‖u‖ = 1.
                    "sampled": (cosine >= np.sqrt(a**2 - 1) / a).mean(),
                    "formula": float(props.existence_probability(a, 1.0, a)),
                    "positive": (p > 0).mean(),
                    "below_1": (p < 1).mean(),
                }
            )
    return widths, curvatures(), angles


def curvatures() -> Records:
    """Return the smallest curvature of ball-smoothed Rastrigin on N(0; a r), and σ of f on B(0; r).

    δ takes nine values between the ends of |δ⁻|'s range, (a − 1)r and r√(a² − 1).
    """
    function = rastrigin(BALL, 1)
    records = []
    cases = product(RADII, np.linspace(1.45, 4, 18), np.linspace(0.02, 0.98, 9))
    for r, a, share in cases:
        delta = r * ((a - 1) + share * (np.sqrt(a**2 - 1) - (a - 1)))
        records.append(
            {
                "r": r,
                "a": a,
                "delta": delta,
                "sigma_of_f": function.second_derivative(np.array(r)).item(),
                "smallest_curvature": smallest_curvature(function, delta, 0.0, a * r),
            }
        )
    return records


@STUDY.statement("命題 3.1")
def width_is_bounded(frames: Frames) -> Seen:
    """1 ≤ d_m ≤ a_m/(√(a_m² − 1) − 1)"""
    table, (d_m, a) = frames["width_bounds"], frames["width_bounds"].select("d_m", "a").to_numpy().T
    below = table.filter(d_m < 1 - SLACK)
    above = table.filter(d_m > props.printed_width_bound(a) * (1 + SLACK))
    above_half = table.filter(d_m > props.exact_width_bounds(a)[1] / 2 * (1 + SLACK))
    parts = []
    for front, name in ((True, "θ < π/2"), (False, "θ > π/2")):
        parts.append(no_lines(f"d_m below 1, {name}", below.filter(front=front)))
        parts.append(no_lines(f"d_m above the upper bound, {name}", above.filter(front=front)))
    return Seen(
        f"{table.unique('a')['samples'].sum():,} pairs (x, u), d = 2",
        parts,
        [no_lines("above half the exact upper bound, θ < π/2", above_half.filter(front=True))],
        "For θ > π/2 the printed |δ⁻| is the larger root. Else d_m is exactly from a/√(a² − 1) to "
        "a/(a − 1) [derived]",
    )


@STUDY.statement("命題 3.1")
def smoothing_keeps_convexity(frames: Frames) -> Seen:
    """f σ-strongly convex on a small B(x*; r), |δ_m| = |δ⁻| ⇒ f̂_δm σ-strongly convex on
    N(x*; a_m r)
    """

    def check(r: float, share: float, text: str) -> Check:
        strong = pl.col("smallest_curvature") >= share * pl.col("sigma_of_f")
        rows = frames["strong_convexity"].filter(r=r).select(strong.mean())
        return Check(f"share, r = {r:g}{text}", rows.item(), low=1)

    return Seen(
        "Rastrigin, ball, a_m from 1.45 to 4",
        [
            check(RADII[-1], 1.0, ", σ at its largest"),
            *(check(r, SHARE, f", σ at {SHARE} of its largest") for r in RADII),
            check(RADII[0], 0.0, ", convex at all"),
        ],
        note="|δ⁻| depends on x and u, f̂_δ has one δ for all u",
    )


@STUDY.statement("δ⁻ が存在する確率")
def existence_probability(frames: Frames) -> Seen:
    """p(a_m) = (2/π) arccos(r√(a_m² − 1)/(‖x* − x‖‖u_m‖))"""
    by_dimension = frames["existence_probability"].group_by("d", maintain_order=True)
    gaps = by_dimension.agg((pl.col("sampled") - pl.col("formula")).abs().max())
    return Seen(
        f"{SAMPLES:,} directions",
        checks(gaps, "largest difference, d = {d}", "sampled", high=0.01),
        note="θ is uniform in the plane alone",
    )


@STUDY.statement("δ⁻ が存在する確率")
def probability_is_positive(frames: Frames) -> Seen:
    """0 < p(a_m) < 1, and p(a_m) is near 0 for large a_m"""
    table = frames["existence_probability"].filter(a=A_PROBABILITY[0])
    far, near = (float(props.existence_probability(a, 1.0, a)) for a in (100.0, 2**0.5))
    return Seen(
        f"{SAMPLES:,} pairs (x, u), a_m = {A_PROBABILITY[0]}",
        [
            *checks(table, "share with p(a_m) > 0, d = {d}", "positive", low=1),
            *checks(table, "share with p(a_m) < 1, d = {d}", "below_1", low=1),
            Check("largest p(a_m) at a_m = 100", far, high=0.01),
        ],
        [Check("largest p(a_m) at a_m = √2", near, high=0.01)],
        "It is 0 for x near x*, and for short u",
    )
