"""Question (ii), judged arm: does one ρ describe the losses of one pass over a stream?

The fit is that of ``lab.study.noise_law``: ln loss is a cubic in ln η − ρ ln b.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import stats

from igo.analysis.statistics import LEVEL, Array, Estimate
from lab.exponent.trainings import Trainings
from lab.study import noise_law

ETA, B, ETA_SUM = (0.1, 0.2, 0.4, 0.8), (8, 16, 32, 64), 80
CELLS = list(itertools.product(ETA, B))
CONSTANTS = {"½": 0.5, "1": 1.0}
NARROW = 0.4  # largest width of an interval that confirms
DRAWS = 10_000
STUDIES, DRAWS_OF_STUDIES = 200, 500  # of the power
SLOW = 0.2  # largest η of the first half of the grid

TRAININGS = Trainings(
    sweep="exponent_stream",
    experiment="exponent_stream",
    arms={
        f"{eta:g}, {b}": {
            "schedule": "constant",
            "learning_rate": eta,
            "batch_size": b,
            "dataset.samples": round(ETA_SUM / eta * b),
        }
        for eta, b in CELLS
    },
    seeds=8,
)


@dataclass(frozen=True)
class Constant:
    """A claimed ρ: its p by the draws, its adjusted p, its interval and its verdict."""

    claimed: float
    p: float
    adjusted: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Fit:
    """ρ̂ with its 95 % interval, the share explained, the F test of lack of fit, the verdicts."""

    exponent: Estimate
    explained: float
    f: float
    p_fit: float
    constants: dict[str, Constant]


@dataclass(frozen=True)
class Power:
    """Shares of simulated studies that confirm a true claim (``confirms``) or refute it (``errs``).

    ``refutes`` is the share that refutes the claim if the other one is true.
    """

    confirms: float
    errs: float
    refutes: float


@dataclass(frozen=True)
class Judged:
    """The fit to all cells, ρ̂ of each half of the grid, and the power of such a study.

    ``power`` comes from simulated studies with this spread between seeds. ``within`` is p of the
    lack of fit, without the part that all cells of a seed share.
    """

    n: int
    fit: Fit
    halves: dict[str, Estimate]
    power: dict[str, Power]
    within: float


def judge(losses: Array, studies: int = STUDIES, seed: int = 0) -> Judged:
    """Judge losses (cells, seeds), cells in the order of CELLS, by the protocol's rule."""
    y, logs = np.log(losses), np.log(np.array(CELLS).T)
    fit = fit_of(logs, y, DRAWS, seed)
    slow = np.array([eta <= SLOW for eta, _ in CELLS])
    halves = {
        name: _of_half(logs[:, cells], y[cells], seed)
        for name, cells in ((f"η ≤ {SLOW:g}", slow), (f"η > {SLOW:g}", ~slow))
    }
    power = _power(logs, y, studies, seed)
    of_seeds = y - y.mean(0) + y.mean()
    freedom = (len(CELLS) - 1) * (y.shape[1] - 1)
    within = lack_of_fit(logs, of_seeds, freedom)[1]
    return Judged(y.shape[1], fit, halves, power, within)


def fit_of(logs: Array, y: Array, draws: int, seed: int) -> Fit:
    """Fit and judge ln losses (cells, seeds)."""
    exponents, least = noise_law.exponents(logs, y, draws, seed)
    total = float(((y.mean(1) - y.mean()) ** 2).sum())
    f, p_fit = lack_of_fit(logs, y, y.shape[0] * (y.shape[1] - 1))
    constants = verdicts(exponents[1:], p_fit)
    return Fit(_estimate(exponents), 1 - least / total, f, p_fit, constants)


def _of_half(logs: Array, y: Array, seed: int) -> Estimate:
    """ρ̂ from two values of η. The curve is a parabola, see ``noise_law.exponents``."""
    return _estimate(noise_law.exponents(logs, y, DRAWS, seed, degree=2)[0])


def _estimate(exponents: Array) -> Estimate:
    low, high = np.quantile(exponents[1:], [LEVEL / 2, 1 - LEVEL / 2])
    return Estimate(float(exponents[0]), float(low), float(high))


def lack_of_fit(logs: Array, y: Array, freedom: int) -> tuple[float, float]:
    """F and p of cell means off the curve, against the spread between seeds.

    The curve has five parameters, ρ among them; the spread has ``freedom`` degrees of freedom.
    """
    cells, seeds = y.shape
    free = cells - (noise_law.DEGREE + 2)
    off = seeds * float(noise_law.left_over(logs, y.mean(1)[:, None]).min())
    spread = float(((y - y.mean(1, keepdims=True)) ** 2).sum())
    f = off / free / (spread / freedom)
    return f, float(stats.f.sf(f, free, freedom))


def verdicts(draws: Array, p_fit: float) -> dict[str, Constant]:
    """The verdicts on the two constants, with intervals at Holm's levels.

    The constant with the smaller p has LEVEL/2. The other has LEVEL if the first is refuted. A
    constant is refuted if its interval does not hold it. It is confirmed if its interval holds it,
    is narrower than NARROW and does not hold the other. If no curve fits, both are undecided.
    """
    p = {name: _two_sided(draws, claimed) for name, claimed in CONSTANTS.items()}
    level, adjusted, by_name = LEVEL / len(p), 0.0, {}
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        adjusted = max(adjusted, min(1.0, p[name] * (len(p) - rank)))
        low, high = (float(v) for v in np.quantile(draws, [level / 2, 1 - level / 2]))
        has = {other for other, claimed in CONSTANTS.items() if low <= claimed <= high}
        if p_fit <= LEVEL:
            verdict = "undecided"
        elif name not in has:
            verdict = "refuted"
        else:
            verdict = "confirmed" if high - low < NARROW and has == {name} else "undecided"
        by_name[name] = Constant(CONSTANTS[name], p[name], adjusted, low, high, verdict)
        if name not in has:
            level = LEVEL
    return {name: by_name[name] for name in CONSTANTS}


def _two_sided(draws: Array, claimed: float) -> float:
    """Twice the smaller share of the draws on one side of a claimed ρ."""
    below, above = (draws <= claimed).sum(), (draws >= claimed).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(draws) + 1)))


def _power(logs: Array, y: Array, studies: int, seed: int) -> dict[str, Power]:
    """The power of simulated studies in which one of the constants is true."""
    outcomes = {name: _simulated(logs, y, rho, studies, seed) for name, rho in CONSTANTS.items()}
    other = dict(zip(CONSTANTS, reversed(CONSTANTS), strict=True))
    return {
        name: Power(
            outcomes[name].count((name, "confirmed")) / studies,
            outcomes[name].count((name, "refuted")) / studies,
            outcomes[other[name]].count((name, "refuted")) / studies,
        )
        for name in CONSTANTS
    }


def _simulated(
    logs: Array, y: Array, true: float, studies: int, seed: int
) -> list[tuple[str, str]]:
    """Both constants with their verdicts, study by study."""
    random = np.random.default_rng(seed)
    seeds = y.shape[1]
    curve = on_curve(logs, y.mean(1), true)
    spread = (y - y.mean(1, keepdims=True)) * np.sqrt(seeds / (seeds - 1))
    outcomes = []
    for _ in range(studies):
        values = curve[:, None] + spread[:, random.integers(0, seeds, seeds)]
        fit = fit_of(logs, values, DRAWS_OF_STUDIES, seed)
        outcomes += [(name, constant.verdict) for name, constant in fit.constants.items()]
    return outcomes


def on_curve(logs: Array, means: Array, rho: float) -> Array:
    """The values of the best cubic in ln η − ρ ln b."""
    x = logs[0] - rho * logs[1]
    cubic = np.polynomial.Polynomial.fit(x, means, noise_law.DEGREE)
    return np.asarray(cubic(x))
