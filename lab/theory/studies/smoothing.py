"""Study: smoothing kernels, and how far Monte Carlo can be trusted."""

from itertools import product
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from scipy import stats

from lab.theory import smoothed
from lab.theory.functions import DROP_WAVE, RASTRIGIN
from lab.theory.kernels import Kernel, Name
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, rate, statement
from lab.theory.smoothing import REPLICATES, Method, smooth, smooth_by_quadrature
from lab.theory.studies import style

METHODS: tuple[Method, ...] = ("plain", "antithetic", "quasi")
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
KERNELS: tuple[Name, ...] = ("ball", "sphere", "gaussian")


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Compare Monte Carlo with closed forms."""
    return {"smoothing_accuracy": frame(_accuracy(settings.seed))}


def _accuracy(seed: int) -> list[dict[str, Any]]:
    records = []
    for name, d, level, method in product(KERNELS, (1, 2, 10, 50), (0.1, 0.5, 1.0), METHODS):
        kernel, x = Kernel(name), np.linspace(0.1, 0.9, d)[None]
        exact = float(smoothed.rastrigin(kernel, d).value(x, level)[0])
        estimate = smooth(RASTRIGIN.value, x, level, kernel, samples=4096, method=method, seed=seed)
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


def draw_smoothed(_frames: Frames) -> Figure:
    """Draw f̂_δ of two functions by two kernels."""
    figure, axes = style.panels(4, 1, width=3.6)
    x = np.linspace(-2.5, 2.5, 1001)[:, None]
    functions = {"rastrigin": RASTRIGIN, "drop-wave": DROP_WAVE}
    kernels: tuple[Name, ...] = ("ball", "gaussian")
    for axis, (name, kernel) in zip(axes, product(functions, kernels), strict=True):
        for level, colour in zip(LEVELS, style.noise_colours(5)[::-1], strict=True):
            y = smooth_by_quadrature(functions[name].value, x, level, Kernel(kernel))
            axis.plot(x[:, 0], y, color=colour, label=f"δ = {level:g}")
        axis.set(title=f"{name}, {kernel} kernel", xlabel="x")
    axes[0].set_ylabel(r"$\hat f_\delta(x)$")
    axes[0].legend(loc="upper center", ncols=2)
    axes[0].set_ylim(0, 42)
    axes[1].set_ylim(0, 42)
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


STUDY = Study(
    measure,
    ("smoothing_accuracy",),
    {"smoothed_functions.png": draw_smoothed},
    (monte_carlo_is_right,),
)
