"""Algorithms 3 and 4 of the slides: implicit graduated optimization, with T_F and M from ε."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from igo.method.rounds import alpha_0
from igo.method.rounds import rounds as method_rounds
from lab.theory.functions import Array
from lab.theory.ripple import Ripple


@dataclass(frozen=True)
class Constants:
    """The constants of Algorithm 3, in the slides' symbols.

    `noise` is C (C² bounds the variance of a one-sample gradient), `batch_size` b_1,
    `learning_rate` η_1, `lipschitz` L_f, `width` the bound d̄ on every d_m. `h3` and `h4` are H_3
    and H_4 of T_F = H_4/(ε_m − H_3 η_m); the slides do not give their values. A noiseless stage
    takes H_4/ε_m steps. H_3 η_m is the accuracy that a stage loses to gradient noise; it is 0 for
    exact gradients.
    """

    sigma: float
    lipschitz: float
    noise: float
    learning_rate: float
    batch_size: float
    width: float
    h3: float
    h4: float

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not (np.isfinite(value) and (value > 0 or (name == "h3" and value == 0))):
                raise ValueError(f"{name}={value} must be a finite number > 0 (h3: ≥ 0)")

    @property
    def noise_level(self) -> float:
        """δ_1 = η_1 C/√b_1."""
        return float(self.learning_rate * self.noise / np.sqrt(self.batch_size))

    @property
    def alpha0(self) -> float:
        """α_0 of Algorithm 3."""
        return alpha_0(
            learning_rate=self.learning_rate, batch_size=self.batch_size, variance=self.noise**2,
            lipschitz=self.lipschitz, width=self.width, sigma=self.sigma,
        )  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A round of Algorithm 3: the arguments of Algorithm 4."""

    learning_rate: float
    batch_size: float
    noise_level: float
    steps: int


def rounds_for(constants: Constants, epsilon: float, power: float) -> int:
    """Return M = ⌈(1/(α_0 ε))^{1/p}⌉. ValueError unless ε > 0 and p in (0, 1]."""
    if epsilon <= 0 or not 0 < power <= 1:
        raise ValueError(f"epsilon={epsilon} must be > 0 and power={power} in (0, 1]")
    return method_rounds(epsilon, constants.alpha0, power)


def steps_in_stage(constants: Constants, noise_level: float, learning_rate: float) -> int:
    """Return T_F = ⌈H_4/(ε_m − H_3 η_m)⌉, ε_m = σ²δ_m². ValueError where ε_m ≤ H_3 η_m."""
    accuracy = constants.sigma**2 * noise_level**2
    loss = constants.h3 * learning_rate
    if accuracy <= loss:
        raise ValueError(
            f"T_F does not exist at δ_m={noise_level:.3g}: ε_m={accuracy:.3g} must be above "
            f"H_3·η_m={loss:.3g} (h3={constants.h3})"
        )
    return int(np.ceil(constants.h4 / (accuracy - loss) - 1e-9))


def plan(constants: Constants, rounds: int, power: float, split: float = 1.0) -> list[Stage]:
    """Return rounds m = 1..M of Algorithm 3; γ_m = ((M − m)/(M − m + 1))^p, κ_m = γ_m^split.

    `split` in [0, 1] is the learning rate's share of the decay. b_m is a real number here; the
    plans of training runs have whole numbers. Round M + 1 is left out: it has δ = 0 and, unless
    `split` = 0, η = 0, so it does not move. ValueError on an invalid argument.
    """
    if rounds < 1 or not 0 < power <= 1 or not 0 <= split <= 1:
        raise ValueError(f"rounds={rounds} ≥ 1, power={power} in (0, 1], split={split} in [0, 1]")
    eta, b, stages = constants.learning_rate, constants.batch_size, []
    for m in range(1, rounds + 1):
        level = eta * constants.noise / np.sqrt(b)
        stages.append(Stage(eta, b, level, steps_in_stage(constants, level, eta)))
        gamma = ((rounds - m) / (rounds - m + 1)) ** power
        if m < rounds:
            eta, b = gamma**split * eta, gamma ** (-2 * (1 - split)) * b
    return stages


def length_shares(phi: Array, rates: Array, h: float = 0.0) -> Array:
    """Return each stage's share of all updates, ∝ 1/(φ_m² − h·η_m/η_1), h ≥ 0.

    This is T_F = H_4/(ε_m − H_3 η_m) with ε_m = σ²δ_m², up to a factor [derived]. ValueError if
    the bracket is not positive: the slides need ε_m > H_3 η_m.
    """
    bracket = np.asarray(phi, float) ** 2 - h * np.asarray(rates) / rates[0]
    if not (bracket > 0).all():
        raise ValueError(f"h={h} must be below φ_m²·η_1/η_m of every stage: no length exists")
    return np.asarray(1 / bracket / (1 / bracket).sum())


def run(
    problem: Ripple,
    stages: list[Stage],
    start: Array,
    mode: Literal["exact", "sgd"] = "exact",
    seed: int = 0,
) -> Array:
    """Run Algorithm 3 from `start` (n,) and return the last points (n,).

    `exact` is Algorithm 4: gradient descent on the closed form of f̂_δm. `sgd` is SGD on f with
    ω = (C/√b_m) u, u uniform on the ball. It follows y_t, the points before the noise: f is
    evaluated at y_t − δ_m u only.
    """
    rng = np.random.default_rng(seed)
    x = np.array(start, float)
    for stage in stages:
        for _ in range(stage.steps):
            if mode == "exact":
                x = x - stage.learning_rate * problem.gradient(x, stage.noise_level)
            else:
                u = rng.uniform(-1, 1, x.shape)
                x = x - stage.learning_rate * problem.gradient(x - stage.noise_level * u)
    return x


def fitted_exponent(rounds: Array, errors: Array) -> tuple[float, float]:
    """Return the slope of log rounds on log 1/error and its standard error (least squares)."""
    x, y = -np.log(np.asarray(errors)), np.log(np.asarray(rounds, float))
    fit = stats.linregress(x, y)
    return float(fit.slope), float(fit.stderr)
