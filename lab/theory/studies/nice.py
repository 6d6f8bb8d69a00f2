"""Study: which functions are σ-nice or new σ-nice, and in which band of δ are they not?"""

from itertools import product

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lab.theory import smoothed
from lab.theory.dented import Dented
from lab.theory.explicit import halving_levels, optimal_levels
from lab.theory.functions import DROP_WAVE
from lab.theory.kernels import Kernel, Name
from lab.theory.nice import NiceReport, bands, check_new_sigma_nice, check_sigma_nice
from lab.theory.ripple import Ripple
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, statement
from lab.theory.smoothed import Smoothed
from lab.theory.studies import style

SIGMA = 0.1
REACH = 8.0  # farther than the domain's corner, and than 3δ from a minimiser near 0
KERNELS: tuple[Name, ...] = ("ball", "gaussian")
FUNCTIONS = ("rastrigin", "drop_wave")
PICTURE = "curvature_at_minimiser.png"
DENTED_SIGMA = 0.7  # of the nonconvex function that is σ-nice
# Every octave, and more levels where N(0; 3δ) begins to reach a dent.
DENTED_LEVELS = [
    *2.0 ** np.arange(8, -2, -1),
    *np.linspace(0.32, 0.2, 25),
    *2.0 ** np.arange(-3, -9, -1),
]
RASTRIGIN_SIGMA = 2.0  # of arXiv 2412.11501
ROUNDS = (10, 15, 20, 50, 200)
LARGE, SMALL = np.linspace(2.0, 0.6, 8), np.linspace(0.2, 0.02, 8)


def _function(name: str, kernel: Name, dimension: int, reach: float | None = None) -> Smoothed:
    if name == "rastrigin":
        return smoothed.rastrigin(Kernel(kernel), dimension)
    return smoothed.radial(DROP_WAVE, Kernel(kernel), dimension, reach)


def measure(_settings: Settings) -> dict[str, pl.DataFrame]:
    """Take the curvature at the minimiser over δ, and run both checkers on every function."""
    curvature, nonconvex = [], []
    levels = np.linspace(0.01, 2.5, 250)
    for dimension, name, kernel in product((1, 2), FUNCTIONS, KERNELS):
        case = {"function": name, "kernel": kernel, "d": dimension}
        function, zero = _function(name, kernel, dimension, 0.1), np.zeros(dimension)
        curvature += [
            case | {"delta": float(d), "curvature": float(function.curvature(zero[None], d)[0])}
            for d in levels
        ]
        nonconvex += [case | {"from": a, "to": b} for a, b in bands(function, levels, zero)]
    gaussian = smoothed.rastrigin(Kernel("gaussian"), 1)
    case = {"function": "rastrigin on N(0; 3δ)", "kernel": "gaussian", "d": 1}
    nonconvex += [
        case | {"from": a, "to": b}
        for a, b in bands(gaussian, np.linspace(0.01, 2, 400), np.zeros(1), 3.0)
    ]
    return {
        "curvature": frame(curvature),
        "nonconvex_bands": frame(nonconvex),
        "nice_stages": frame([r for name, report in _reports() for r in _records(name, report)]),
    }


def _reports() -> list[tuple[str, NiceReport]]:
    halving, optimal = list(halving_levels(2.0, 7)), list(optimal_levels(2.0, 10, 0.5))
    ones, reports = [1.0] * max(ROUNDS), []
    for dimension, name, kernel in product((1, 2), FUNCTIONS, KERNELS):
        function, case = (
            _function(name, kernel, dimension, REACH),
            f"{name}, {kernel}, d = {dimension}",
        )
        reports.append((f"σ-nice: {case}", check_sigma_nice(function, halving, SIGMA)))
        new = check_new_sigma_nice(function, optimal, ones[:10], SIGMA)
        reports.append((f"new: {case}", new))
    reports += _more_rounds(ones)
    dented = check_sigma_nice(Dented().smoothed(), DENTED_LEVELS, DENTED_SIGMA)
    reports.append(("σ-nice: dented", dented))
    reports.append(("σ-nice: x²/2", check_sigma_nice(smoothed.quadratic(), halving, SIGMA)))
    ball = smoothed.rastrigin(Kernel("ball"), 1)
    reports.append(("in the band", check_sigma_nice(ball, [0.9, 0.75, 0.6], SIGMA)))
    reports.append(("out of it", check_sigma_nice(ball, [0.4, 0.2, 0.1], SIGMA)))
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


def _more_rounds(ones: list[float]) -> list[tuple[str, NiceReport]]:
    """Check new σ-nice along p = 1/2 for growing numbers of rounds, and with σ = 2."""
    problem, reports = Ripple(), []
    gaussian = smoothed.rastrigin(Kernel("gaussian"), 1)
    for rounds in ROUNDS:
        levels = list(optimal_levels(2.0, rounds, 0.5))
        for sigma in (SIGMA, RASTRIGIN_SIGMA):
            new = check_new_sigma_nice(gaussian, levels, ones[:rounds], sigma)
            reports.append((f"rastrigin, σ = {sigma:g}, M = {rounds}", new))
        levels = list(optimal_levels(0.2, rounds, 0.5))
        for times in (1, 2):
            sigma = times * problem.sigma(0.2)
            new = check_new_sigma_nice(problem.smoothed(), levels, ones[:rounds], sigma)
            reports.append((f"ripple, {times}σ, M = {rounds}", new))
    narrow = check_new_sigma_nice(gaussian, list(SMALL), ones[: len(SMALL)], RASTRIGIN_SIGMA)
    return [*reports, ("rastrigin, σ = 2, δ from 0.2 to 0.02", narrow)]


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
            rows = frames["curvature"].filter(function=name, kernel=kernel, d=d)
            axis.plot(rows["delta"], rows["curvature"], color=colour, label=f"{kernel} kernel")
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
    """Return the number of levels of a check at which a condition fails."""
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
    """Count the levels at which a suitable nonconvex function breaks the definition."""
    others = [
        _broken(frames, f"σ-nice: {n}, {k}, d = {d}")
        for d, n, k in product((1, 2), FUNCTIONS, KERNELS)
    ]
    what = f"dented bowl, f″ = −2 in the dents, σ = {DENTED_SIGMA:g}, {len(DENTED_LEVELS)} levels"
    return Seen(
        "the σ-nice checker, δ = 2^8 … 2^−8, closely from 0.32 to 0.2, on x²/2 + a kink at 0 "
        "− 3·1[0.98 < |x| < 1.02] in f″: levels that break (i) or (ii)",
        [Check(what, _broken(frames, "σ-nice: dented"), low=1)],
        [Check("x²/2, convex and σ-nice", _broken(frames, "σ-nice: x²/2"), low=1)],
        note="One such function exists, so the statement does not hold: N(0; 3δ) reaches a dent "
        "only where the dent is a small part of [x − δ, x + δ]. Rastrigin's and Drop-Wave's "
        f"functions break the definition with σ = {SIGMA} at {min(others)} to {max(others)} of the "
        "levels 2, 1, …, 1/32, with both kernels, d = 1 and 2.",
    )


@statement("slide: 結論", "there are cases in which a σ-nice function cannot be defined", PICTURE)
def cannot_be_defined(frames: Frames) -> Seen:
    """Look at the minimisers of ball-smoothed Rastrigin inside and outside its bad band."""

    def checks(case: str) -> list[Check]:
        stages = frames["nice_stages"].filter(check=case)
        rows = stages.select("delta", "minimisers", "x_star").iter_rows()
        return [
            check
            for delta, count, x in rows
            for check in (
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
    rastrigin, ripple, twice = (
        [Check(f"{name}, M = {m}", _broken(frames, f"{name}, M = {m}"), high=0) for m in ROUNDS]
        for name in (f"rastrigin, σ = {SIGMA:g}", "ripple, 1σ", "ripple, 2σ")
    )
    broken = ("rastrigin, ball, d = 1", "drop_wave, ball, d = 2")
    return Seen(
        f"the new σ-nice checker, p = 1/2, d_m = 1; Gaussian Rastrigin, d = 1, δ_1 = 2, "
        f"σ = {SIGMA}; ripple, δ_1 = 0.2, its own σ; ball: M = 10: levels that break (i) or (ii)",
        [*ripple, *rastrigin],
        [*twice, *(Check(case, _broken(frames, f"new: {case}"), high=0) for case in broken)],
        note="Gaussian Rastrigin passes with M = 10, which ends at δ = 0.63, where f̂ is convex "
        "everywhere. More rounds lead through its band of δ. The ripple's x*_δ moves by up to "
        "1.005 times the fall of δ near δ = 0.2, which only small steps of δ show.",
    )


@statement("arXiv 2412.11501", "Rastrigin's function is new 2-nice", PICTURE)
def rastrigin_is_two_nice(frames: Frames) -> Seen:
    """Count the levels that break the slides' new σ-nice with σ = 2."""
    name = f"rastrigin, σ = {RASTRIGIN_SIGMA:g}"
    cases = [f"{name}, δ from 0.2 to 0.02", *(f"{name}, M = {m}" for m in ROUNDS)]
    ball = _broken(frames, "new: rastrigin, ball, d = 1")
    return Seen(
        "the new σ-nice checker of the slides, σ = 2, d_m = 1, Gaussian kernel, d = 1, δ_1 = 2, "
        "p = 1/2: levels that break (i) or (ii)",
        [Check(case, _broken(frames, case), high=0) for case in cases],
        [Check(f"the ball kernel, σ = {SIGMA}, M = 10", ball, high=0)],
        note="f̂″ = 2 + 40π² e^{−2π²δ²} cos 2πx is below 2 wherever the cosine is negative, at "
        "every δ: by 1e-6 at δ = 1. With N(0; δ) inside |x| ≤ 1/4 it is above 2. The "
        "definition is that of the slides; the paper's own was not at hand.",
    )


@statement(
    "slide: 貢献",
    "the new definition lets more functions in, by choice of the noise sequence",
    PICTURE,
)
def sequence_can_be_chosen(frames: Frames) -> Seen:
    """Count the levels that break the definition, for sequences in the band and outside it."""
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
        rastrigin_is_two_nice,
        sequence_can_be_chosen,
    ),
)
