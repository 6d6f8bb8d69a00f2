"""Question (ii), second arm: does one ρ describe trainings once their number of epochs is known?

At equal Σ η, ln epochs = const − ln(η/b) − ln n. So with one n, ρ = 1 and "the number of epochs
alone" are one hypothesis. Here n varies, and ln loss = g(ln η − ρ ln b) + h(ln epochs), two cubics.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from scipy import stats

from igo.analysis.statistics import LEVEL, Array
from igo.report.phrases import p_value
from lab.exponent import trainings
from lab.exponent.stream import ETA, B
from lab.exponent.trainings import Trainings
from lab.study import noise_law
from lab.study.noise_law import DEGREE, EXPONENTS
from lab.study.records import Run

SIZES, ETA_SUM = (512, 2048, 8192), 102.4
DRAWS = 2_000
LOSSES = {"training loss": "train_loss", "test loss": "test/loss"}
# The degrees of ln epochs and ln n in each fit.
FITS = {
    "g(ln η − ρ ln b)": (0, 0),
    "g + h(ln epochs)": (DEGREE, 0),
    "g + h(ln epochs) + a ln n": (DEGREE, 1),
}
# n, η, b and epochs of each cell: at least one whole epoch.
CELLS = [
    (n, eta, b, round(epochs))
    for n, eta, b in itertools.product(SIZES, ETA, B)
    if (epochs := ETA_SUM * b / eta / n) > 1 - 1e-9
]
TRAININGS = Trainings(
    sweep="exponent_sizes",
    experiment="exponent_stream",
    arms={
        f"{n}, {eta:g}, {b}": {
            "schedule": "constant",
            "learning_rate": eta,
            "batch_size": b,
            "dataset.samples": n,
            "epochs": epochs,
        }
        for n, eta, b, epochs in CELLS
    },
    seeds=8,
)


@dataclass(frozen=True)
class Fit:
    """ρ̂ and its 95 % interval over seeds, the share explained, and the F test of lack of fit."""

    exponent: float
    low: float
    high: float
    explained: float
    f: float
    p: float


def fit(values: Array, epochs_degree: int, n_degree: int, draws: int = DRAWS, seed: int = 0) -> Fit:
    """Fit ρ to the means over seeds of ln losses (cells, seeds), cells in the order of CELLS.

    Args:
        values: ln losses.
        epochs_degree: degree of the polynomial in ln epochs; 0 leaves it out.
        n_degree: degree of the polynomial in ln n; 0 leaves it out.
        draws: number of draws of the bootstrap over seeds.
        seed: seed of the bootstrap.
    """
    cells, seeds = values.shape
    means = values.mean(axis=1)
    chosen = np.random.default_rng(seed).integers(0, seeds, (draws, seeds))
    resampled = values[:, chosen].mean(axis=2)
    squares = np.stack([
        off_the_curve(basis(rho, epochs_degree, n_degree), np.column_stack([means, resampled]))
        for rho in EXPONENTS
    ])  # fmt: skip
    exponents = EXPONENTS[squares.argmin(axis=0)]
    low, high = np.quantile(exponents[1:], [LEVEL / 2, 1 - LEVEL / 2])
    minimum = float(squares[:, 0].min())
    free = cells - (DEGREE + 2 + epochs_degree + n_degree)  # ρ is fitted too
    within = float(((values - means[:, None]) ** 2).sum()) / (cells * (seeds - 1))
    f = seeds * minimum / free / within
    return Fit(
        float(exponents[0]), float(low), float(high),
        1 - minimum / float(((means - means.mean()) ** 2).sum()),
        f, float(stats.f.sf(f, free, cells * (seeds - 1))),
    )  # fmt: skip


def basis(rho: float, epochs_degree: int, n_degree: int) -> Array:
    """Columns that span g, h and the term in ln n at one ρ, (cells, columns)."""
    n, eta, b, epochs = np.log(np.array(CELLS, dtype=np.float64)).T
    parts = [(eta - rho * b, DEGREE), (epochs, epochs_degree), (n, n_degree)]
    columns = [_polynomial(x, degree)[:, 1:] for x, degree in parts]
    return np.column_stack([np.ones(len(CELLS)), *columns])


def _polynomial(x: Array, degree: int) -> Array:
    scaled = 2 * (x - x.min()) / np.ptp(x) - 1
    return np.asarray(chebyshev.chebvander(scaled, degree))


def off_the_curve(columns: Array, values: Array) -> Array:
    """Sums of squares of values (cells, k) off the space of the columns, which may be dependent.

    At ρ = 1 they are dependent: ln η − ln b + ln epochs + ln n is constant.
    """
    basis = noise_law.directions(columns)
    return np.asarray(((values - basis @ (basis.T @ values)) ** 2).sum(axis=0))


PAGE = """# One exponent for η and b, once the number of epochs is known?

    python -m lab.exponent question=sizes

**{first}**

Question (ii) of the [protocol](protocol.md), second arm, with its amendments. It is not judged.
n is 512, 2,048 or 8,192 images of Fashion-MNIST, Σ η = 102.4, {cells} cells of (n, η, b) with at
least one epoch, {seeds} seeds. The loss is that of the last parameters in eval mode: on all n
images, and on 8,000 others. g and h are cubics, ρ is in [−1, 3].

| loss | fit of ln loss | ρ̂ [95 %] | explained | lack of fit: F | p |
|---|---|---|---|---|---|
{rows}

- Lack of fit compares the means of the cells with the spread between seeds.
- Without h, ρ near 1 may be the number of epochs alone. With h the epochs are known. The term in
  ln n is for what more images do beyond fewer epochs.
- At ρ = 1 the linear parts of g, h and ln n are dependent. So the last fit tells ρ = 1 from others
  by the curvature of g and h alone.

Mean training loss over seeds, by n and η:

| n | η | b = 8 | 16 | 32 | 64 |
|---|---|---|---|---|---|
{losses}

{hardware}
"""


def text(runs: Mapping[str, Run], seeds: Sequence[int]) -> str:
    """The page of these seeds."""
    values = {
        loss: np.array(list(TRAININGS.values(runs, seeds, key).values()))
        for loss, key in LOSSES.items()
    }
    fits = {
        (loss, name): fit(np.log(values[loss]), *degrees)
        for loss in LOSSES
        for name, degrees in FITS.items()
    }
    first = "; ".join(
        f"{name}: ρ̂ = {_interval(fitted)}"
        for (loss, name), fitted in fits.items()
        if loss == "training loss"
    )
    return PAGE.format(
        first=f"Training loss, {first}", cells=len(CELLS), seeds=len(seeds),
        rows="\n".join(_row(*key, fitted) for key, fitted in fits.items()),
        losses="\n".join(_losses(values["training loss"])),
        hardware=trainings.hardware(runs, TRAININGS.names(seeds)),
    )  # fmt: skip


def _row(loss: str, name: str, fitted: Fit) -> str:
    cells = [
        loss, name, _interval(fitted), f"{100 * fitted.explained:.1f} %", f"{fitted.f:.3g}",
        p_value(fitted.p),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _losses(values: Array) -> list[str]:
    means = {cell[:3]: f"{row.mean():.3f}" for cell, row in zip(CELLS, values, strict=True)}
    return [
        f"| {n:,} | {eta:g} | {' | '.join(means.get((n, eta, b), '–') for b in B)} |"
        for n, eta in itertools.product(SIZES, ETA)
    ]


def _interval(fitted: Fit) -> str:
    return f"{fitted.exponent:.2f} [{fitted.low:.2f}, {fitted.high:.2f}]".replace("-", "−")
