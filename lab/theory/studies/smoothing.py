"""Study: smoothing kernels, and how far Monte Carlo can be trusted."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from scipy import stats

from lab.theory import smoothed
from lab.theory.functions import Array, get_function
from lab.theory.kernels import Kernel, Name
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, rate, statement
from lab.theory.smoothing import (
    REPLICATES,
    Method,
    smooth,
    smooth_by_quadrature,
    smooth_by_quantiles,
)
from lab.theory.studies import style

METHODS: tuple[Method, ...] = ("plain", "antithetic", "quasi")
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
KERNELS: dict[Name, str] = {
    **dict.fromkeys(("ball", "sphere", "gaussian"), "-"),
    **dict.fromkeys(("exponential", "rayleigh"), "--"),
    **dict.fromkeys(("cauchy", "levy", "pareto"), "-."),
}
HEAVY: tuple[Name, ...] = ("cauchy", "levy", "pareto", "gaussian")
COUNTS = 2 ** np.arange(8, 18, 2)
TAILED: dict[str, Callable[[Array], Array]] = {
    "cos 2πx, bounded": lambda x: np.asarray(np.cos(2 * np.pi * x[..., 0])),
    "x², unbounded": lambda x: np.asarray(x[..., 0] ** 2),
}


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Smooth by every kernel, and compare Monte Carlo with closed forms."""
    return {
        "kernel_damping": frame(_damping()),
        "smoothing_accuracy": frame(_accuracy(settings.seed)),
        "heavy_tails": frame(_heavy_tails(settings.seed)),
    }


def _damping() -> list[dict[str, Any]]:
    def wave(x: Array) -> Array:
        return np.asarray(np.cos(2 * np.pi * x))

    levels, records = np.linspace(0, 1.5, 61), []
    for name in KERNELS:
        kernel = Kernel(name, symmetric=True)
        if name in ("rayleigh", "pareto"):
            damping = [smooth_by_quantiles(wave, 0.0, float(d), kernel) for d in levels]
        else:
            damping = list(kernel.cosine_mean(2 * np.pi * levels, 1))
        records += [
            {"kernel": name, "delta": float(d), "damping": float(v)}
            for d, v in zip(levels, damping, strict=True)
        ]
    return records


def _accuracy(seed: int) -> list[dict[str, Any]]:
    records = []
    function = get_function("rastrigin")
    names: tuple[Name, ...] = ("ball", "sphere", "gaussian")
    for name, d, level, method in product(names, (1, 2, 10, 50), (0.1, 0.5, 1.0), METHODS):
        kernel, x = Kernel(name), np.linspace(0.1, 0.9, d)[None]
        exact = float(smoothed.rastrigin(kernel, d).value(x, level)[0])
        estimate = smooth(function.value, x, level, kernel, samples=4096, method=method, seed=seed)
        records.append(
            {
                "kernel": name,
                "d": d,
                "delta": level,
                "method": method,
                "closed_form": exact,
                "standard_error": float(estimate.standard_error[0]),
                "error": float(estimate.value[0]) - exact,
            }
        )
    return records


def _heavy_tails(seed: int) -> list[dict[str, Any]]:
    records = []
    for (label, f), name, n in product(TAILED.items(), HEAVY, COUNTS):
        kernel = Kernel(name, symmetric=True)
        options: dict[str, Any] = {"samples": int(n), "method": "plain", "seed": seed}
        estimate = smooth(f, np.zeros((1, 1)), 0.3, kernel, **options)
        error = float(estimate.standard_error[0])
        records.append({"function": label, "kernel": name, "samples": int(n), "error": error})
    return records


def draw_smoothed(_frames: Frames) -> Figure:
    """Draw f̂_δ of two functions by two kernels."""
    figure, axes = style.panels(4, 1, width=3.6)
    x = np.linspace(-2.5, 2.5, 1001)[:, None]
    names: tuple[Name, ...] = ("ball", "gaussian")
    for axis, (name, kernel) in zip(axes, product(("rastrigin", "drop_wave"), names), strict=True):
        function = get_function(name)
        for level, colour in zip(LEVELS, style.noise_colours(5)[::-1], strict=True):
            y = smooth_by_quadrature(function.value, x, level, Kernel(kernel))
            axis.plot(x[:, 0], y, color=colour, label=f"δ = {level:g}")
        axis.set(title=f"{name.replace('_', '-')}, {kernel} kernel", xlabel="x")
    axes[0].set_ylabel(r"$\hat f_\delta(x)$")
    axes[0].legend(loc="upper center", ncols=2)
    axes[0].set_ylim(0, 42)
    axes[1].set_ylim(0, 42)
    return figure


def draw_damping(frames: Frames) -> Figure:
    """Draw the damping of a wave by each kernel."""
    figure, (axis,) = style.panels(1, width=6.4, height=3.8)
    for name, line in KERNELS.items():
        rows = frames["kernel_damping"].filter(kernel=name)
        axis.plot(rows["delta"], rows["damping"], line, label=name)
    axis.axhline(0, color="0.6", linewidth=0.8)
    axis.set(
        xlabel="δ, in wave lengths",
        ylabel="E[cos 2πδu]",
        title="How much of a wave of length 1 is left (d = 1, symmetric kernels)",
    )
    axis.set_ylim(-1.75, 1.08)
    axis.legend(ncols=4, loc="lower center")
    return figure


def draw_heavy_tails(frames: Frames) -> Figure:
    """Draw the standard error of plain Monte Carlo against the samples."""
    figure, axes = style.panels(2, width=4.6)
    for axis, label in zip(axes, TAILED, strict=True):
        for name, colour in zip(HEAVY, style.COLOURS, strict=False):
            rows = frames["heavy_tails"].filter(function=label, kernel=name)
            index = f"{Kernel(name).tail_index:g}".replace("inf", "∞")
            text = f"{name} (tail index {index})"
            axis.loglog(
                rows["samples"], rows["error"], "o-", color=colour, markersize=4, label=text
            )
        axis.set(title=f"f = {label}", xlabel="samples", ylabel=r"standard error of $\hat f(0)$")
    axes[0].legend()
    return figure


@statement(
    "slide: 目的関数の平滑化",
    "f̂_δ(x) = E[f(x − δu)], an integral that Monte Carlo estimates",
    "smoothed_functions.png",
)
def monte_carlo_is_right(frames: Frames) -> Seen:
    """Count the closed forms inside the estimates' intervals."""
    table = frames["smoothing_accuracy"]
    # If the error comes from rounding and not from chance, there is no interval to check.
    random = table.filter(pl.col("standard_error") > 1e-9 * pl.col("closed_form").abs())
    reach = float(stats.t.ppf(0.975, REPLICATES - 1))
    within = random["error"].abs() <= reach * random["standard_error"]
    shifted = random["error"] + 4 * random["standard_error"]
    fooled = shifted.abs() <= reach * random["standard_error"]
    quasi, plain = (
        table.filter(method=m)["standard_error"].clip(1e-12) for m in ("quasi", "plain")
    )
    gain = float(((plain / quasi) ** 2).median())  # type: ignore[arg-type]
    return Seen(
        f"Rastrigin, where it has a closed form for any d: {len(table)} estimates of 4,096 samples "
        "(ball, sphere, Gaussian; d = 1, 2, 10, 50; δ = 0.1, 0.5, 1; plain, antithetic, Sobol)",
        [
            rate("closed forms within 95 % intervals", int(within.sum()), len(within), low=0.85),
            Check("variance of plain over Sobol points, median", gain, 1.0),
        ],
        [rate("the same if off by 4 standard errors", int(fooled.sum()), len(fooled), low=0.85)],
    )


@statement(
    "paper: heavy-tailed smoothing",
    "smoothing is also possible with heavy-tailed noise (Cauchy, Lévy, Pareto)",
    "heavy_tails.png",
)
def heavy_tails_smooth(frames: Frames) -> Seen:
    """Compare the fall of the standard error with 1/√n, for a bounded and an unbounded f."""
    expected = float(np.sqrt(COUNTS[0] / COUNTS[-1]))

    def change(function: str, kernel: str) -> float:
        errors = frames["heavy_tails"].filter(function=function, kernel=kernel)["error"]
        return float(errors[-1] / errors[0]) / expected

    bounded, unbounded = TAILED
    parts = [
        Check(f"fall of the error by 1/√n, {kind} f, {name}: factor", change(label, name), 0, 2)
        for label, kind in ((bounded, "bounded"), (unbounded, "quadratic"))
        for name in HEAVY[:3]
    ]
    return Seen(
        f"standard error of plain Monte Carlo from {COUNTS[0]} to {COUNTS[-1]:,} samples, "
        "symmetric kernels, δ = 0.3; Pareto with tail index 1.5",
        parts,
        note="E[u²] = ∞ under Cauchy, Lévy, and Pareto with tail index ≤ 2: f̂_δ then exists for f "
        "that grow more slowly than the tail falls, bounded ones above all, and the standard error "
        "of another f is no error bar.",
        no_control="the quadratic f is one: the statement fails there, as a part of it",
    )


STUDY = Study(
    measure,
    ("kernel_damping", "smoothing_accuracy", "heavy_tails"),
    {
        "smoothed_functions.png": draw_smoothed,
        "kernel_damping.png": draw_damping,
        "heavy_tails.png": draw_heavy_tails,
    },
    (monte_carlo_is_right, heavy_tails_smooth),
)
