"""Study: where is SGD on f, in expectation, gradient descent on f̂_δ?

``measure`` gives the lines of each table of STUDY. A function under ``STUDY.statement`` has a
statement of the source as its docstring, and checks it in these tables. Its ``Seen`` has in order:
how the statement was run, its checks, the same checks where they must fail, and a note.
"""

from collections.abc import Callable

import numpy as np
import polars as pl

from lab.theory.functions import rastrigin
from lab.theory.row import Check, Frames, Seen, Study, Tables
from lab.theory.smoothing import BALL, GAUSSIAN, Array, Kernel

STUDY = Study("sgd_is_smoothed_descent")
ETA, NOISE, DRAWS = 0.02, 25.0, 100_000  # η, C, and draws of ω at each point
GRID = np.linspace(-1.9, 1.9, 40)
WITHIN = 0.85  # share of points whose 95 % interval must hold the prediction; there are 40 points


Draw = Callable[[np.random.Generator, float], Array]  # of ω at a given y, (DRAWS,)


def cases(seed: int) -> list[tuple[str, int, Kernel, Draw]]:
    """Ball noise itself, and mini-batches of a finite sum f = mean(l_i) of two kinds.

    Each has its b, and the kernel that is predicted for it.
    """
    skewed = np.random.default_rng(seed).exponential(size=64)
    skewed = (skewed - skewed.mean()) / skewed.std() * NOISE  # l_i = f + c_i x, var C²

    def minibatch(b: int, power: int = 0) -> Draw:
        return lambda g, y: skewed[g.integers(0, 64, (DRAWS, b))].mean(1) * y**power

    return [
        ("ball noise", 1, BALL, lambda g, _: NOISE * g.uniform(-1, 1, DRAWS)),
        ("mini-batch, b = 1", 1, BALL, minibatch(1)),
        ("mini-batch, b = 16", 16, BALL, minibatch(16)),
        ("b = 16 against N(0, δ²)", 16, GAUSSIAN, minibatch(16)),
        # l_i = f + c_i x²/2: the noise c_i x grows with |x|, and is C at x = 1.
        ("noise ∝ x, b = 1", 1, BALL, minibatch(1, power=1)),
    ]


def measure(seed: int) -> Tables:
    """Compare the mean of SGD's y_{t+1} with y_t − η∇f̂_δ(y_t) at each point.

    y_{t+1} = x_{t+1} − η∇f(x_{t+1}) with x_{t+1} = y − ηω (slides, "SGDの平滑化特性"), on
    one-dimensional Rastrigin. The mean has a standard error, and ω its rms.
    """
    records = []
    for label, batch, kernel, draw in cases(seed + 1):
        level, rng = ETA * NOISE / np.sqrt(batch), np.random.default_rng(seed)
        function = rastrigin(kernel, 1)
        for y, prediction in zip(GRID, -ETA * function.gradient(GRID, level), strict=True):
            noise = draw(rng, y)
            x = y - ETA * noise
            step = x - ETA * function.gradient(x) - y
            records.append(
                {
                    "case": label,
                    "b": batch,
                    "kernel": kernel.name,
                    "delta": level,
                    "y": y,
                    "mean_step": step.mean(),
                    "standard_error": step.std(ddof=1) / np.sqrt(step.size),
                    "rms_noise": np.sqrt((noise**2).mean()),
                    "predicted": prediction,
                }
            )
    return (records,)


def _within(frames: Frames, label: str) -> Check:
    """Check that the prediction lies in the intervals of nearly all points."""
    z = (pl.col("mean_step") - pl.col("predicted")) / pl.col("standard_error")
    return Check(f"points within 95 %, {label}", _mean(frames, label, z.abs() <= 1.96), WITHIN)


def _mean(frames: Frames, label: str, expression: pl.Expr) -> float:
    """The mean of an expression over the points of a case."""
    rows = frames["sgd_is_smoothed_descent"].filter(case=label)
    return float(rows.select(expression.mean()).item())


RAN = f"Rastrigin, {len(GRID)} points"


@STUDY.statement("SGDの確率的ノイズと平滑化")
def sgd_is_smoothed_descent(frames: Frames) -> Seen:
    """E[y_{t+1}] = y_t − η∇f̂_δ(y_t): SGD on f is gradient descent on f̂_δ in expectation"""
    return Seen(
        f"{RAN}, ω = C u, u uniform on the ball",
        [_within(frames, "ball noise")],
        [_within(frames, "mini-batch, b = 1")],
    )


@STUDY.statement("SGDの平滑化特性")
def minibatch_noise_is_ball_noise(frames: Frames) -> Seen:
    """mini-batches have ω_t = (C/√b)u_t, u_t uniform on the ball, so δ = η√(C²/b)"""
    size = ETA * pl.col("rms_noise") / pl.col("delta")
    return Seen(
        f"{RAN}, skewed one-sample gradients",
        [
            *(
                Check(f"size: rms of ηω over δ, {case}", _mean(frames, case, size), 0.95, 1.05)
                for case in ("mini-batch, b = 1", "mini-batch, b = 16")
            ),
            Check("the ball's E‖ω‖² over C²/b", BALL.second_moment(1), high=1),
            _within(frames, "mini-batch, b = 1"),
            _within(frames, "mini-batch, b = 16"),
        ],
        [_within(frames, "b = 16 against N(0, δ²)")],
        "The size is right, but the kernel is the law of −ηω, no ball",
    )


@STUDY.statement("SGDの平滑化特性")
def one_function_for_all_x(frames: Frames) -> Seen:
    """one f̂_δ for all x"""
    return Seen(RAN, [_within(frames, "noise ∝ x, b = 1")])
