"""Study: how far Monte Carlo can be trusted with f̂_δ."""

from itertools import product

import numpy as np
import polars as pl
from scipy import stats

from lab.theory.functions import rastrigin
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, rate, statement
from lab.theory.smoothing import BALL, GAUSSIAN, REPLICATES, Array, Method, smooth

METHODS: tuple[Method, ...] = ("plain", "sobol")


def plain(x: Array) -> Array:
    """Rastrigin's function itself, (..., d) to (...)."""
    return rastrigin(BALL, x.shape[-1]).value(x, 0.0)


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Compare Monte Carlo with closed forms."""
    records = []
    cases = product((BALL, GAUSSIAN), (1, 2, 10, 50), (0.1, 0.25, 0.5, 1.0), METHODS)
    for kernel, d, level, method in cases:
        x, function = np.linspace(0.1, 0.9, d)[None], rastrigin(kernel, d)
        exact = float(function.value(x, level)[0])
        estimate, error = smooth(
            plain, x, level, kernel,
            method=method, seed=settings.seed,
        )  # fmt: skip
        records.append(
            {
                "kernel": kernel.name,
                "d": d,
                "delta": level,
                "method": method,
                "closed_form": exact,
                "standard_error": float(error[0]),
                "error": float(estimate[0]) - exact,
            }
        )
    return {"smoothing_accuracy": frame(records)}


@statement("目的関数の平滑化", "f̂_δ(x) = E[f(x − δu)], an integral that Monte Carlo estimates")
def monte_carlo_is_right(frames: Frames) -> Seen:
    """Count the closed forms inside the estimates' intervals."""
    table = frames["smoothing_accuracy"]
    # If the error comes from rounding and not from chance, there is no interval to check.
    random = table.filter(pl.col("standard_error") > 1e-9 * pl.col("closed_form").abs())
    reach = float(stats.t.ppf(0.975, REPLICATES - 1))
    within = random["error"].abs() <= reach * random["standard_error"]
    shifted = random["error"] + 4 * random["standard_error"]
    fooled = shifted.abs() <= reach * random["standard_error"]
    sobol, plain = (
        table.filter(method=m)["standard_error"].clip(1e-12) for m in ("sobol", "plain")
    )
    gain = float(((plain / sobol) ** 2).median())  # type: ignore[arg-type]
    return Seen(
        f"Rastrigin, {len(table)} estimates of 4,096 samples against closed forms, d = 1 to 50",
        [
            rate("closed forms within 95 % intervals", int(within.sum()), len(within), low=0.85),
            Check("variance of plain over Sobol points, median", gain, 1.0),
        ],
        [rate("the same if off by 4 standard errors", int(fooled.sum()), len(fooled), low=0.85)],
    )


STUDY = Study(
    measure,
    ("smoothing_accuracy",),
    (monte_carlo_is_right,),
)
