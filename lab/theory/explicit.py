"""Explicit graduated optimization: Algorithm 1, and the version with optimal noise scheduling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lab.theory.functions import Array
from lab.theory.kernels import Kernel
from lab.theory.propositions import optimal_decay_rates

Gradient = Callable[[Array], Array]


def halving_levels(first: float, stages: int) -> Array:
    """Return δ_m = δ_1/2^{m−1}, m = 1..stages. Source: slides, Algorithm 1."""
    return np.asarray(first * 0.5 ** np.arange(stages), float)


def optimal_levels(first: float, stages: int, power: float) -> Array:
    """Return δ_m of the optimal γ_m, m = 1..stages. Source: slides, Algorithm 3."""
    rates = optimal_decay_rates(stages, power)[:-1]
    return np.asarray(first * np.concatenate([[1.0], np.cumprod(rates)]))


def printed_steps(sigma: float, noise_level: float) -> int:
    """Return T_m = σδ_m²/32 of the slides, rounded up; it falls with δ_m.

    In Hazan et al. 2016 σδ_m²/32 is ε_m, the accuracy of stage m, and not a number of steps.
    """
    return int(np.ceil(sigma * noise_level**2 / 32))


def hazan_steps(sigma: float, lipschitz: float, noise_level: float, constant: float = 1.0) -> int:
    """Return c·L²/(σ ε_m), ε_m = σδ_m²/32: the steps of SGD to accuracy ε_m. It grows as 1/δ_m².

    Hazan et al. 2016 use this rate of SGD with suffix averaging on a σ-strongly convex function
    (Rakhlin et al. 2012). `constant` is c, which the slides do not have.
    ValueError unless every argument is > 0.
    """
    if min(sigma, lipschitz, noise_level, constant) <= 0:
        raise ValueError(
            f"sigma={sigma}, lipschitz={lipschitz}, noise_level={noise_level} and "
            f"constant={constant} must be > 0"
        )
    return int(np.ceil(constant * lipschitz**2 / (sigma * sigma * noise_level**2 / 32)))


@dataclass(frozen=True)
class StageResult:
    """The points (n, d) after one stage, its noise level and its number of SGD steps."""

    x: Array
    noise_level: float
    steps: int


def algorithm1(
    gradient: Gradient,
    start: Array,
    noise_levels: Sequence[float] | Array,
    *,
    sigma: float,
    lipschitz: float,
    kernel: Kernel,
    rule: Literal["printed", "hazan"] = "hazan",
    constant: float = 1.0,
    seed: int = 0,
) -> list[StageResult]:
    """Run Algorithm 1 from `start` (n, d) on n independent chains; return a result for each stage.

    A stage is SGD on f̂_δm with ∇f(x − δ_m u) and step 1/(σt). Points are projected into the ball
    of radius 1.5 δ_m about the stage's start. The result of a stage is the mean of its last half
    (Hazan et al. 2016, GradOpt_G; suffix averaging of Rakhlin et al. 2012). `rule` chooses
    `hazan_steps` or `printed_steps`. ValueError for an unknown rule.
    """
    if rule not in ("printed", "hazan"):
        raise ValueError(f"rule={rule!r} must be printed or hazan")
    rng = np.random.default_rng(seed)
    x, results = np.array(start, float), []
    for level in noise_levels:
        if rule == "printed":
            steps = printed_steps(sigma, level)
        else:
            steps = hazan_steps(sigma, lipschitz, level, constant)
        centre, total, first_kept = x.copy(), np.zeros_like(x), steps // 2
        for t in range(1, steps + 1):
            u = kernel.sample(len(x), x.shape[1], rng)
            move = x - gradient(x - level * u) / (sigma * t) - centre
            length = np.linalg.norm(move, axis=1, keepdims=True)
            x = centre + move * np.minimum(1, 1.5 * level / np.maximum(length, 1e-300))
            if t > first_kept:
                total += x
        x = total / (steps - first_kept)
        results.append(StageResult(x, float(level), steps))
    return results
