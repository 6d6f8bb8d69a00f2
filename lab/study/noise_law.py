"""The law of constant noise: the exponent ρ for which results lie on one curve of ηb^(-ρ).

If the result of training depends on η and b through the noise δ = ηCb^(-ρ) alone, then the results
y of many settings (η, b) are one function of x = log η - ρ log b. ρ̂ is the ρ with the least sum of
squares off a cubic in x. ρ = 1/2 is the published law, ρ = 1 the law of Smith et al. (2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import eval_chebyt

from igo.analysis.statistics import CONFIDENCE, Array, Estimate

DEGREE = 3
EXPONENTS = np.round(np.arange(-1, 3.0001, 0.01), 2)
DRAWS = 2_000


@dataclass(frozen=True)
class Law:
    """ρ̂ with its interval (``exponent``), and the share of the variance on the curve."""

    exponent: Estimate
    explained: float


def fit(eta: ArrayLike, b: ArrayLike, values: ArrayLike, draws: int = DRAWS, seed: int = 0) -> Law:
    """Fit ρ to the means over seeds, with a bootstrap interval over seeds (percentiles).

    Args:
        eta: learning rates, (settings,), above 0.
        b: batch sizes, (settings,).
        values: results of training, such as log test loss, (settings, seeds). A seed is one draw
            of data and initialisation, the same for all settings.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: there are too few settings for the curve, or η determines b.
    """
    y = np.asarray(values, dtype=np.float64)
    logs = np.log(np.stack([np.asarray(eta, np.float64), np.asarray(b, np.float64)]))
    settings = len(y)
    if settings < DEGREE + 3 or np.linalg.matrix_rank(logs - logs.mean(1, keepdims=True)) < 2:
        raise ValueError(f"{settings} settings of η and b do not fix a curve and its exponent")
    rho, least = exponents(logs, y, draws, seed)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(rho[1:], [tail, 1 - tail])
    total = float(((y.mean(axis=1) - y.mean()) ** 2).sum())
    return Law(Estimate(float(rho[0]), float(low), float(high)), 1 - least / total)


def exponents(
    logs: Array, y: Array, draws: int, seed: int = 0, degree: int = DEGREE
) -> tuple[Array, float]:
    """ρ̂ of the means over seeds, then of each bootstrap draw; the least squares of the means.

    Args:
        logs: ln η and ln b, (2, settings).
        y: values, (settings, seeds).
        draws: of the bootstrap.
        seed: of the bootstrap.
        degree: of the curve; at most the number of values of η. With a higher degree a curve near
            ρ = 0 can have another slope at each η. At ρ = 0 it has one value at each η.
    """
    random = np.random.default_rng(seed)
    seeds = y.shape[1]
    means = y[:, random.integers(0, seeds, (draws, seeds))].mean(axis=2)  # (settings, draws)
    left = left_over(logs, np.column_stack([y.mean(axis=1), means]), degree)
    return EXPONENTS[left.argmin(axis=0)], float(left[:, 0].min())


def left_over(logs: Array, y: Array, degree: int = DEGREE) -> Array:
    """Sum of squares off the best curve, (EXPONENTS, k), for each column of y (settings, k)."""
    squares = (y**2).sum(axis=0)
    rows = []
    for rho in EXPONENTS:
        x = logs[0] - rho * logs[1]
        x = 2 * (x - x.min()) / np.ptp(x) - 1
        curve = directions(np.stack([eval_chebyt(k, x) for k in range(degree + 1)], axis=1))
        rows.append(squares - ((curve.T @ y) ** 2).sum(axis=0))
    return np.asarray(np.maximum(np.stack(rows), 0.0))


def directions(columns: Array) -> Array:
    """An orthonormal basis, (settings, rank), of the space of the columns, dependent or not."""
    basis, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(basis[:, sizes > 1e-9 * sizes[0]])
