"""Study: where is SGD on f, in expectation, gradient descent on f̂_δ?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.theory import smoothed
from lab.theory.functions import RASTRIGIN, Array
from lab.theory.kernels import Kernel, Name
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, mean, statement
from lab.theory.studies import style

ETA, NOISE, DRAWS = 0.02, 25.0, 100_000  # η, C, and draws of ω at each point
GRID = np.linspace(-1.9, 1.9, 40)
PICTURE = "sgd_is_smoothed_descent.png"
WITHIN = 0.85  # share of points whose 95 % interval must hold the prediction; there are 40 points


@dataclass(frozen=True)
class Case:
    """A law of the noise ω, drawn as (draws,) at a given y, and the kernel predicted for it."""

    label: str
    batch: int
    kernel: Name
    draw: Callable[[np.random.Generator, float], Array]


def expected_step(case: Case, y: Array, seed: int) -> tuple[Array, Array, Array]:
    """Return the mean of y_{t+1} − y_t over draws of ω_t, its standard error, and ω's rms, as y.

    y_{t+1} = x_{t+1} − η∇f(x_{t+1}) with x_{t+1} = y_t − ηω_t (slides, "SGDの平滑化特性"), on
    one-dimensional Rastrigin.
    """
    rng = np.random.default_rng(seed)
    gradient = RASTRIGIN.gradient
    means, errors, sizes = [], [], []
    for point in y:
        noise = case.draw(rng, float(point))
        moved = point - ETA * noise
        step = moved - ETA * gradient(moved) - point
        means.append(step.mean())
        errors.append(step.std(ddof=1) / np.sqrt(step.size))
        sizes.append(np.sqrt((noise**2).mean()))
    return np.array(means), np.array(errors), np.array(sizes)


def cases(seed: int) -> list[Case]:
    """Ball noise itself, and mini-batches of a finite sum f = mean(l_i) of two kinds."""
    skewed = np.random.default_rng(seed).exponential(size=64)
    skewed = (skewed - skewed.mean()) / skewed.std() * NOISE  # l_i = f + c_i x, var C²

    def ball(generator: np.random.Generator, _y: float) -> Array:
        return np.asarray(NOISE * generator.uniform(-1, 1, DRAWS))

    def minibatch(b: int) -> Callable[[np.random.Generator, float], Array]:
        def draw(generator: np.random.Generator, _y: float) -> Array:
            return np.asarray(skewed[generator.integers(0, 64, (DRAWS, b))].mean(1))

        return draw

    def depends_on_x(generator: np.random.Generator, y: float) -> Array:
        """l_i = f + c_i x²/2: the noise c_i x grows with |x|, and is C at x = 1."""
        return np.asarray(skewed[generator.integers(0, 64, DRAWS)] * y)

    return [
        Case("ball noise", 1, "ball", ball),
        Case("mini-batch, b = 1", 1, "ball", minibatch(1)),
        Case("mini-batch, b = 16", 16, "ball", minibatch(16)),
        Case("b = 16 against N(0, δ²)", 16, "gaussian", minibatch(16)),
        Case("noise ∝ x, b = 1", 1, "ball", depends_on_x),
    ]


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Compare the mean of SGD's y_{t+1} with y_t − η∇f̂_δ(y_t) at each point."""
    records: list[dict[str, Any]] = []
    for case in cases(settings.seed + 1):
        level = ETA * NOISE / np.sqrt(case.batch)
        mean_step, error, size = expected_step(case, GRID, settings.seed)
        exact = smoothed.rastrigin(Kernel(case.kernel), 1)
        predicted = -ETA * exact.gradient(GRID[:, None], level)[:, 0]
        names = ("y", "mean_step", "standard_error", "rms_noise", "predicted")
        for values in zip(GRID, mean_step, error, size, predicted, strict=True):
            head = {"case": case.label, "b": case.batch, "kernel": case.kernel, "delta": level}
            records.append(head | dict(zip(names, map(float, values), strict=True)))
    rng = np.random.default_rng(settings.seed)
    moments = [
        {"d": d, "square": float(square)}
        for d in (1, 10, 100)
        for square in (Kernel("ball").sample(200_000, d, rng) ** 2).sum(1).reshape(100, -1).mean(1)
    ]
    return {"sgd_is_smoothed_descent": frame(records), "ball_variance": frame(moments)}


def draw(frames: Frames) -> Figure:
    """Draw SGD's expected step and the predicted step, and their difference below."""
    groups = frames["sgd_is_smoothed_descent"].partition_by("case", maintain_order=True)
    figure, axes = style.panels(len(groups), 2, width=3.3, height=2.9, sharex=True)
    for column, rows in enumerate(groups):
        top, bottom = axes[column], axes[column + len(groups)]
        top.plot(
            rows["y"], rows["predicted"], color=style.BLUE, label=r"$-\eta\nabla\hat f_\delta(y)$"
        )
        bars = {"fmt": ".", "color": style.RED, "markersize": 4, "label": r"$E[y_{t+1}] - y_t$"}
        top.errorbar(rows["y"], rows["mean_step"], 1.96 * rows["standard_error"], **bars)
        text = f"{rows['case'][0]}\n({rows['kernel'][0]} kernel, δ = {rows['delta'][0]:.3g})"
        top.set_title(text, fontsize=9)
        _draw_difference(bottom, rows["y"], _z(rows))
    axes[0].legend(loc="lower left")
    axes[0].set_ylabel("expected step")
    axes[len(groups)].set_ylabel("difference, standard errors")
    return figure


def _draw_difference(axis: Axes, y: pl.Series, z: pl.Series) -> None:
    axis.axhspan(-1.96, 1.96, color="0.85")
    axis.plot(y, z, ".", color=style.RED)
    worst = float(z.abs().max())  # type: ignore[arg-type]
    if worst < 5:
        axis.set_ylim(-5, 5)
    else:
        axis.set_yscale("symlog", linthresh=10)
        ticks = [t for t in (10, 100, 1000) if t < 2 * worst]
        axis.set_yticks([-t for t in ticks[::-1]] + [0, *ticks])
        axis.minorticks_off()
    axis.set(xlabel=r"$y_t$")


def _z(rows: pl.DataFrame) -> pl.Series:
    return (rows["mean_step"] - rows["predicted"]) / rows["standard_error"]


def _within(frames: Frames, label: str) -> Check:
    """Check that the prediction lies in the intervals of nearly all points."""
    z = _z(frames["sgd_is_smoothed_descent"].filter(case=label)).abs()
    what = f"{label}: points whose 95 % interval holds the prediction"
    return Check(what, float((z <= 1.96).mean()), WITHIN)  # type: ignore[arg-type]


def _size(frames: Frames, label: str) -> float:
    rows = frames["sgd_is_smoothed_descent"].filter(case=label)
    return float((ETA * rows["rms_noise"] / rows["delta"]).to_numpy().mean())


RAN = f"{len(GRID)} points y on Rastrigin (d = 1), {DRAWS:,} draws of ω each, η = {ETA}"


@statement(
    "slide: SGDの確率的ノイズと平滑化",
    "E[y_{t+1}] = y_t − η∇f̂_δ(y_t): SGD on f is gradient descent on f̂_δ in expectation",
    PICTURE,
)
def sgd_is_smoothed_descent(frames: Frames) -> Seen:
    """Check the identity for noise that is exactly the kernel."""
    return Seen(
        f"{RAN}, ω = C u with u uniform on the ball: the kernel is exactly the noise",
        [_within(frames, "ball noise")],
        [_within(frames, "mini-batch, b = 1")],
    )


@statement(
    "slide: SGDの平滑化特性",
    "ω_t = (C/√b)u_t with u_t uniform on the ball, so δ = η√(C²/b), for mini-batch noise",
    PICTURE,
)
def minibatch_noise_is_ball_noise(frames: Frames) -> Seen:
    """Check the ball kernel's prediction on mini-batches of skewed one-sample gradients."""
    return Seen(
        f"{RAN}, real mini-batches of a finite sum with skewed one-sample gradients",
        [
            *(
                Check(f"size: rms of ηω over δ, {case}", _size(frames, case), 0.95, 1.05)
                for case in ("mini-batch, b = 1", "mini-batch, b = 16")
            ),
            _within(frames, "mini-batch, b = 1"),
            _within(frames, "mini-batch, b = 16"),
        ],
        [_within(frames, "b = 16 against N(0, δ²)")],
        note="The kernel that smooths is the law of −ηω itself. A ball of radius δ has the "
        "variance "
        "δ²/3 in one dimension, and mini-batch noise is as skewed as its samples, by 1/√b less.",
    )


@statement("slide: SGDの平滑化特性", "one f̂_δ for all x", PICTURE)
def one_function_for_all_x(frames: Frames) -> Seen:
    """Check the prediction of one δ where the noise depends on x."""
    return Seen(
        f"{RAN}, one-sample gradients whose noise grows with |x| (l_i = f + c_i x²/2)",
        [_within(frames, "noise ∝ x, b = 1")],
        note="Noise that depends on x smooths by a different kernel at every point: the expected "
        "steps are then not the gradient of one function. Where it does not depend on x, the first "
        "row of this study holds.",
        no_control="the row itself is the control of the first one",
    )


@statement(
    "slide: SGDの平滑化特性",
    "from E‖ω‖² ≤ C²/b, ω = (C/√b)u with u uniform on the closed unit ball",
)
def ball_has_the_variance(frames: Frames) -> Seen:
    """Check E‖u‖² = 1, which would give ω the variance C²/b."""
    squares = {d: frames["ball_variance"].filter(d=d)["square"] for d in (1, 10, 100)}
    return Seen(
        "E‖u‖² of that u by 200,000 samples; ω has the variance C²/b if it is 1",
        [mean(f"E‖u‖², d = {d}", squares[d], 0.95, 1.05) for d in squares],
        note="E‖u‖² = d/(d + 2): a radius √((d + 2)/d) times larger would match it. Nothing for a "
        "network, a factor √3 in one dimension.",
        no_control="the small dimensions are one: there the statement fails",
    )


STUDY = Study(
    measure,
    ("sgd_is_smoothed_descent", "ball_variance"),
    {PICTURE: draw},
    (
        sgd_is_smoothed_descent,
        minibatch_noise_is_ball_noise,
        one_function_for_all_x,
        ball_has_the_variance,
    ),
)
