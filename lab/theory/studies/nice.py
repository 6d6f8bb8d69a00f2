"""Study: which functions are σ-nice, new σ-nice, and in which band of δ they are not."""

from itertools import product

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lab.theory import smoothed
from lab.theory.explicit import halving_levels, optimal_levels
from lab.theory.functions import get_function
from lab.theory.kernels import Kernel, Name
from lab.theory.nice import NiceReport, bands, check_new_sigma_nice, check_sigma_nice
from lab.theory.ripple import Ripple
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, statement
from lab.theory.smoothed import Smoothed
from lab.theory.studies import style

SIGMA = 0.1
REACH = 8.0  # above the domain's corner and 3δ beyond a minimiser near 0
KERNELS: tuple[Name, ...] = ("ball", "gaussian")
FUNCTIONS = ("rastrigin", "drop_wave")
PICTURE = "curvature_at_minimiser.png"
LARGE, SMALL = np.linspace(2.0, 0.6, 8), np.linspace(0.2, 0.02, 8)


def _function(name: str, kernel: Name, dimension: int, reach: float | None = None) -> Smoothed:
    if name == "rastrigin":
        return smoothed.rastrigin(Kernel(kernel), dimension)
    return smoothed.radial(get_function(name), Kernel(kernel), dimension, reach)


def quadratic() -> Smoothed:
    """Return f = x²/2, which smoothing only lifts: σ-nice with σ = 1."""
    return Smoothed(
        lambda x, d: ((x**2).sum(-1) + d**2 / 3) / 2,
        lambda x, _: x,
        lambda x, _: np.ones((len(x), 1, 1)),
        (-5.0, 5.0),
        1,
    )


def measure(_settings: Settings) -> dict[str, pl.DataFrame]:
    """Take the curvature at the minimiser over δ, and run both checkers on every function."""
    curvature, found = [], []
    levels = np.linspace(0.01, 2.5, 250)
    for dimension, name, kernel in product((1, 2), FUNCTIONS, KERNELS):
        case = {"function": name, "kernel": kernel, "d": dimension}
        function, zero = _function(name, kernel, dimension, 0.1), np.zeros(dimension)
        curvature += [
            case | {"delta": float(d), "curvature": float(function.curvature(zero[None], d)[0])}
            for d in levels
        ]
        found += [case | {"from": a, "to": b} for a, b in bands(function, levels, zero)]
    gaussian = smoothed.rastrigin(Kernel("gaussian"), 1)
    case = {"function": "rastrigin on N(0; 3δ)", "kernel": "gaussian", "d": 1}
    found += [
        case | {"from": a, "to": b}
        for a, b in bands(gaussian, np.linspace(0.01, 2, 400), np.zeros(1), 3.0)
    ]
    return {
        "curvature": frame(curvature),
        "nonconvex_bands": frame(found),
        "nice_stages": frame([r for name, one in _reports() for r in _records(name, one)]),
    }


def _reports() -> list[tuple[str, NiceReport]]:
    halving, optimal = list(halving_levels(2.0, 7)), list(optimal_levels(2.0, 10, 0.5))
    ones, reports = [1.0] * 20, []
    for dimension, name, kernel in product((1, 2), FUNCTIONS, KERNELS):
        function, case = (
            _function(name, kernel, dimension, REACH),
            f"{name}, {kernel}, d = {dimension}",
        )
        reports.append((f"σ-nice: {case}", check_sigma_nice(function, halving, SIGMA)))
        new = check_new_sigma_nice(function, optimal, ones[:10], SIGMA)
        reports.append((f"new: {case}", new))
    reports.append(("σ-nice: x²/2", check_sigma_nice(quadratic(), halving, SIGMA)))
    ball = smoothed.rastrigin(Kernel("ball"), 1)
    reports.append(("in the band", check_sigma_nice(ball, [0.9, 0.75, 0.6], SIGMA)))
    reports.append(("out of it", check_sigma_nice(ball, [0.4, 0.2, 0.1], SIGMA)))
    problem, levels = Ripple(), list(optimal_levels(0.2, 20, 0.5))
    for case, sigma in (
        ("ripple, its σ", problem.sigma(0.2)),
        ("ripple, 2σ", 2 * problem.sigma(0.2)),
    ):
        new = check_new_sigma_nice(problem.smoothed(), levels, ones, sigma)
        reports.append((f"new: {case}", new))
    gaussian = smoothed.rastrigin(Kernel("gaussian"), 1)
    for case, chosen in (
        ("δ from 2 to 0.6", LARGE),
        ("δ from 0.2 to 0.02", SMALL),
        ("both, one jump over the band", np.concatenate([LARGE, SMALL])),
        ("through the band", np.linspace(2.0, 0.02, 16)),
    ):
        new = check_new_sigma_nice(gaussian, list(chosen), ones[: len(chosen)], SIGMA)
        reports.append((f"sequence: {case}", new))
    return reports


def _records(case: str, report: NiceReport) -> list[dict[str, object]]:
    return [
        {
            "check": case,
            "delta": s.noise_level,
            "x_star": float(np.abs(s.minimisers[:, 0]).max()),
            "minimisers": len(s.minimisers),
            "distance": float(s.distance),
            "allowed": float(s.allowed),
            "i_holds": s.moves_little,
            "radius": float(s.radius),
            "largest_sigma": s.largest_sigma,
            "ii_holds": s.largest_sigma >= report.sigma,
        }
        for s in report.stages
    ]


def draw(frames: Frames) -> Figure:
    """Draw the smallest curvature at the minimiser against δ, the bad bands shaded."""
    figure, axes = style.panels(4, 1, width=3.8)
    for axis, (d, name) in zip(axes, product((1, 2), FUNCTIONS), strict=True):
        for kernel, colour in zip(KERNELS, (style.BLUE, style.RED), strict=True):
            one = frames["curvature"].filter(function=name, kernel=kernel, d=d)
            axis.plot(one["delta"], one["curvature"], color=colour, label=f"{kernel} kernel")
            shaded = frames["nonconvex_bands"].filter(function=name, kernel=kernel, d=d)
            for low, high in shaded.select("from", "to").iter_rows():
                axis.axvspan(low, high, color=colour, alpha=0.15, linewidth=0)
        axis.axhline(0, color=style.BLACK, linewidth=0.8)
        scale = 100 if name == "rastrigin" else 10
        title = f"{name.replace('_', '-')}, d = {d}"
        axis.set(title=title, xlabel="δ", ylim=(-scale, scale))
    axes[0].set_ylabel(r"smallest curvature of $\hat f_\delta$ at $x^*$")
    axes[0].legend(title="shaded: not convex at x*", loc="upper right")
    return figure


def _broken(frames: Frames, case: str) -> int:
    """Return at how many levels of a check one of the conditions fails."""
    stages = frames["nice_stages"].filter(check=case)
    return int((~(stages["i_holds"] & stages["ii_holds"])).sum())


@statement("slide: 目的関数の平滑化", "more noise makes a smoother function", PICTURE)
def more_noise_is_smoother(frames: Frames) -> Seen:
    """Count the bands of δ in which the global minimiser of f is a maximum of f̂_δ."""
    parts = [
        Check(f"bands, {name.replace('_', '-')}, {kernel}, d = {d}",
              len(frames["nonconvex_bands"].filter(function=name, kernel=kernel, d=d)), high=0)
        for d, name, kernel in product((1, 2), FUNCTIONS, KERNELS)
    ]  # fmt: skip
    near = len(frames["nonconvex_bands"].filter(function="rastrigin on N(0; 3δ)"))
    return Seen(
        "curvature of f̂_δ at the minimiser 0, δ in (0, 2.5]: the bands where it is negative",
        parts,
        [Check("bands, Rastrigin, gaussian, d = 1, all of N(0; 3δ)", near, high=0)],
        note="With the ball f̂_δ''(0) of Rastrigin is 2 + 40π² sin(2πδ)/(2πδ), −81.8 at δ = 0.75: "
        "more "
        "noise can turn the global minimum into a maximum. The Gaussian's factor e^{−2π²δ²} never "
        "changes its sign, and f̂_δ is convex everywhere from δ = 0.5174.",
    )


@statement("slide: 動機", "it is not known whether (nonconvex) σ-nice functions exist", PICTURE)
def sigma_nice_is_rare(frames: Frames) -> Seen:
    """Count the levels at which the test functions break the definition."""
    cases = [f"{n}, {k}, d = {d}" for d, n, k in product((1, 2), FUNCTIONS, KERNELS)]
    return Seen(
        f"the σ-nice checker at δ = 2, 1, …, 1/32 with σ = {SIGMA}: levels that break (i) or (ii)",
        [Check(case, _broken(frames, f"σ-nice: {case}"), low=1) for case in cases],
        [Check("x²/2, convex and σ-nice", _broken(frames, "σ-nice: x²/2"), low=1)],
        note="The definition asks for every δ > 0, so f itself must be σ-strongly convex in the "
        "limit on every small neighbourhood of x*, and every f̂_δ on a neighbourhood of 3δ.",
    )


@statement("slide: 結論", "there are cases in which a σ-nice function cannot be defined", PICTURE)
def cannot_be_defined(frames: Frames) -> Seen:
    """Look at the minimisers of ball-smoothed Rastrigin inside and outside its bad band."""

    def checks(case: str) -> list[Check]:
        stages = frames["nice_stages"].filter(check=case)
        rows = stages.select("delta", "minimisers", "x_star").iter_rows()
        return [
            one
            for delta, count, x in rows
            for one in (
                Check(f"minimisers of f̂_δ, δ = {delta:g}", count, low=2),
                Check(f"their distance from x* = 0, δ = {delta:g}", x, low=0.1),
            )
        ]

    return Seen(
        "minimisers of ball-smoothed Rastrigin, d = 1, inside its bad band and below it",
        checks("in the band"),
        checks("out of it"),
        note="Two minimisers, neither near x* = 0: no neighbourhood of x*_δ narrows towards x*.",
    )


@statement(
    "slide: New σ-nice 関数",
    "new σ-nice asks (i), (ii) only along one decreasing sequence δ_m, around x*: nonconvex "
    "functions have it",
    PICTURE,
)
def new_sigma_nice_exists(frames: Frames) -> Seen:
    """Count the levels at which two nonconvex functions break the new definition."""
    held = ("rastrigin, gaussian, d = 1", "rastrigin, gaussian, d = 2", "ripple, its σ")
    broken = ("rastrigin, ball, d = 1", "drop_wave, ball, d = 2", "ripple, 2σ")
    return Seen(
        f"the new σ-nice checker, δ_1 = 2, M = 10, p = 1/2, d_m = 1, σ = {SIGMA} (ripple: δ_1 = "
        "0.2, M = 20, its own σ): levels that break (i) or (ii)",
        [Check(case, _broken(frames, f"new: {case}"), high=0) for case in held],
        [Check(case, _broken(frames, f"new: {case}"), high=0) for case in broken],
    )


@statement(
    "slide: 貢献",
    "the new definition lets more functions in, by choice of the noise sequence",
    PICTURE,
)
def sequence_can_be_chosen(frames: Frames) -> Seen:
    """Count the levels that break the definition along sequences that avoid the band, or not."""
    kept = ("δ from 2 to 0.6", "δ from 0.2 to 0.02", "both, one jump over the band")
    through = _broken(frames, "sequence: through the band")
    return Seen(
        "Gaussian Rastrigin, d = 1, d_m = 1: levels that break (i) or (ii), along sequences that "
        "avoid its band of δ",
        [Check(case, _broken(frames, f"sequence: {case}"), high=0) for case in kept],
        [Check("16 even steps through the band", through, high=0)],
        note=f"The jump has γ = {SMALL[0] / LARGE[-1]:.2f}, so d_m = 1 is too narrow for Prop. "
        "3.3.",
    )


STUDY = Study(
    measure,
    ("curvature", "nonconvex_bands", "nice_stages"),
    {PICTURE: draw},
    (
        more_noise_is_smoother,
        sigma_nice_is_rare,
        cannot_be_defined,
        new_sigma_nice_exists,
        sequence_can_be_chosen,
    ),
)
