"""Study: SGD on f is, in expectation, gradient descent on f̂_δ. Where exactly, and where not."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from igo.theory import smoothed
from igo.theory.functions import Array, get_function
from igo.theory.kernels import Kernel
from igo.theory.studies import style
from igo.theory.studies.report import Row, Settings, write_csv

ETA, NOISE, DRAWS = 0.02, 25.0, 100_000  # η, C, and draws of ω at each point
GRID = np.linspace(-1.9, 1.9, 40)


@dataclass(frozen=True)
class Case:
    """A law of the noise −ηω as samples (draws,) at a given y, and the kernel predicted for it."""

    label: str
    batch: int
    kernel: str
    draw: Callable[[np.random.Generator, float], Array]
    dimension: int = 1


def expected_step(case: Case, y: Array, seed: int) -> tuple[Array, Array]:
    """Return the mean of y_{t+1} − y_t over draws of ω_t and its standard error, shape as y.

    y_{t+1} = x_{t+1} − η∇f(x_{t+1}) with x_{t+1} = y_t − ηω_t (slides, "SGDの平滑化特性"), on
    one-dimensional Rastrigin.
    """
    rng = np.random.default_rng(seed)
    gradient = get_function("rastrigin").gradient
    means, errors = [], []
    for point in y:
        moved = point - ETA * case.draw(rng, float(point))
        step = moved - ETA * gradient(moved) - point
        means.append(step.mean())
        errors.append(step.std(ddof=1) / np.sqrt(step.size))
    return np.array(means), np.array(errors)


def _cases(rng: np.random.Generator) -> list[Case]:
    """Ball noise itself, and mini-batches of a finite sum f = mean(l_i) of two kinds."""
    skewed = rng.exponential(size=64)
    skewed = (skewed - skewed.mean()) / skewed.std() * NOISE  # l_i = f + c_i x, var C²

    def ball(generator: np.random.Generator, _y: float) -> Array:
        return np.asarray(NOISE * generator.uniform(-1, 1, DRAWS))

    def minibatch(b: int) -> Callable[[np.random.Generator, float], Array]:
        def draw(generator: np.random.Generator, _y: float) -> Array:
            return np.asarray(skewed[generator.integers(0, 64, (DRAWS, b))].mean(1))

        return draw

    def depends_on_x(generator: np.random.Generator, y: float) -> Array:
        """l_i = f + c_i x²/2: the noise c_i x is the larger the farther out, C at x = 1."""
        return np.asarray(skewed[generator.integers(0, 64, DRAWS)] * y)

    return [
        Case("ω = C u, u uniform on the ball", 1, "ball", ball),
        Case("mini-batch, b = 1, skewed", 1, "ball", minibatch(1)),
        Case("mini-batch, b = 16", 16, "ball", minibatch(16)),
        Case("mini-batch, b = 16, against N(0, δ²)", 16, "gaussian", minibatch(16)),
        Case("noise ∝ x, b = 1", 1, "ball", depends_on_x),
    ]


def run(settings: Settings) -> list[Row]:
    """Compare the mean of SGD's y_{t+1} with y_t − η∇f̂_δ(y_t), point by point, with error bars."""
    cases = _cases(np.random.default_rng(settings.seed + 1))
    figure, axes = style.panels(len(cases), 2, width=3.3, height=2.9, sharex=True)
    records, misses, worst = [], [], []
    for column, case in enumerate(cases):
        level = ETA * NOISE / np.sqrt(case.batch)
        kernel = Kernel(case.kernel)  # type: ignore[arg-type]
        mean, error = expected_step(case, GRID, settings.seed)
        exact = smoothed.rastrigin(kernel, 1)
        predicted = -ETA * exact.gradient(GRID[:, None], level)[:, 0]
        z = (mean - predicted) / error
        misses.append(float((np.abs(z) > 1.96).mean()))
        worst.append(float(np.abs(z).max()))
        top, bottom = axes[column], axes[column + len(cases)]
        top.plot(GRID, predicted, color=style.BLUE, label=r"$-\eta\nabla\hat f_\delta(y)$")
        top.errorbar(
            GRID,
            mean,
            1.96 * error,
            fmt=".",
            color=style.RED,
            markersize=4,
            label=r"$E[y_{t+1}] - y_t$",
        )
        top.set_title(f"{case.label}\n({case.kernel} kernel, δ = {level:.3g})", fontsize=9)
        bottom.axhspan(-1.96, 1.96, color="0.85")
        bottom.plot(GRID, z, ".", color=style.RED)
        if worst[-1] < 5:
            bottom.set_ylim(-5, 5)
        else:
            bottom.set_yscale("symlog", linthresh=10)
            ticks = [t for t in (10, 100, 1000) if t < 2 * worst[-1]]
            bottom.set_yticks([-t for t in ticks[::-1]] + [0, *ticks])
            bottom.minorticks_off()
        bottom.set(xlabel=r"$y_t$")
        for y, m, e, p in zip(GRID, mean, error, predicted, strict=True):
            records.append(
                {
                    "case": case.label,
                    "b": case.batch,
                    "kernel": case.kernel,
                    "delta": level,
                    "y": float(y),
                    "mean_step": float(m),
                    "standard_error": float(e),
                    "predicted": float(p),
                }
            )
    axes[0].legend(loc="lower left")
    axes[0].set_ylabel("expected step")
    axes[len(cases)].set_ylabel("difference, standard errors")
    style.save(figure, settings.output / "sgd_is_smoothed_descent.png")
    write_csv(settings.output / "sgd_is_smoothed_descent.csv", records)
    return _rows(misses, worst, _second_moments(settings.seed))


def _second_moments(seed: int) -> dict[int, float]:
    """E‖u‖² of the ball, by sampling: what the slides' ω = (C/√b)u makes of the variance C²/b."""
    rng = np.random.default_rng(seed)
    return {
        d: float((Kernel("ball").sample(200_000, d, rng) ** 2).sum(1).mean()) for d in (1, 10, 100)
    }


def _rows(misses: list[float], worst: list[float], moments: dict[int, float]) -> list[Row]:
    files = "sgd_is_smoothed_descent.png sgd_is_smoothed_descent.csv"
    points = f"{len(GRID)} points y on Rastrigin (d = 1), {DRAWS:,} draws of ω each, η = {ETA}"
    return [
        Row(
            "slide: SGDの確率的ノイズと平滑化",
            "E[y_{t+1}] = y_t − η∇f̂_δ(y_t): SGD on f is gradient descent on f̂_δ in expectation",
            f"{points}, ω = C u with u uniform on the ball: the kernel is exactly the noise",
            f"{misses[0]:.0%} of the points lie outside their 95 % interval (5 % expected), the "
            f"farthest {worst[0]:.1f} standard errors away",
            "agrees" if misses[0] <= 0.15 and worst[0] < 5 else "disagrees",
            files,
        ),
        Row(
            "slide: SGDの平滑化特性",
            "ω_t = (C/√b)u_t with u_t uniform on the ball, so δ = η√(C²/b), for mini-batch noise",
            f"{points}, real mini-batches of a finite sum with skewed one-sample gradients",
            f"outside the 95 % interval of the ball kernel's prediction: {misses[1]:.0%} of the "
            f"points at b = 1 (worst {worst[1]:.0f} standard errors), {misses[2]:.0%} at b = 16 "
            f"({worst[2]:.0f}); at b = 16 a Gaussian of the same variance misses {misses[3]:.0%} "
            f"({worst[3]:.0f}). The size δ is right, the shape of the kernel is the noise's own",
            "in part",
            files,
        ),
        Row(
            "slide: SGDの平滑化特性",
            "one f̂_δ for all x",
            f"{points}, one-sample gradients whose noise grows with |x| (l_i = f + c_i x²/2)",
            f"{misses[4]:.0%} of the points outside (worst {worst[4]:.0f} standard errors): with "
            "noise that depends on x there is a different smoothed function at every point, and "
            "the steps are not the gradient of one of them",
            "disagrees" if misses[4] > 0.15 else "agrees",
            files,
        ),
        Row(
            "slide: SGDの平滑化特性",
            "from E‖ω‖² ≤ C²/b, ω = (C/√b)u with u uniform on the closed unit ball",
            "E‖u‖² of that u, 200,000 samples",
            "E‖u‖² = "
            + ", ".join(f"{m:.3f} (d = {d})" for d, m in moments.items())
            + " = d/(d + 2): ω then has less variance than C²/b; a radius √((d + 2)/d) times "
            "larger would match it. Nothing for a network, a factor √3 in one dimension",
            "in part",
        ),
    ]
