"""The numbers of the noise studies: pure functions, no network and no drawing.

X (n, d) are the one-sample gradients minus their mean, and c_i is how often sample i is in a
mini-batch S. The noise of S is ω = Σ_i c_i x_i / b, and ‖ω‖² = cᵀ G c / b² with the Gram matrix
G = X Xᵀ. So 1,000 mini-batches are drawn without computing another gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor

from igo.report.statistics import Array, Estimate


def centred_gram(gradients: Tensor) -> Array:
    """G = X Xᵀ, (n, n), of gradients (n, d) minus their mean; its rows sum to 0."""
    rows = gradients - gradients.mean(dim=0)
    gram: Array = (rows @ rows.T).double().numpy()
    across = gram.mean(axis=0)  # not 0 in single precision: the next line removes the rest
    gram += across.mean() - across - across[:, None]
    return gram


def variance_of(gram: Array) -> float:
    """C² = tr Cov of a one-sample gradient, 1/n Σ‖x_i‖²."""
    return float(np.trace(gram)) / len(gram)


def draw_counts(
    sampling: str, n: int, batch_size: int, draws: int, random: np.random.Generator
) -> Array:
    """How often each sample is in each mini-batch, (draws, n).

    Args:
        sampling: with_replacement, or independent: each batch drawn without replacement.
        n: training samples.
        batch_size: b.
        draws: number of batches.
        random: generator of the draws.
    """
    if sampling == "with_replacement":
        return random.multinomial(batch_size, np.full(n, 1 / n), size=draws).astype(np.float64)
    counts = np.zeros((draws, n))
    for row in counts:
        row[random.choice(n, batch_size, replace=False)] = 1
    return counts


def squared_noise(gram: Array, counts: Array, batch_size: int) -> Array:
    """‖ω‖² = ‖∇f_S - ∇f‖² of each mini-batch, (draws,)."""
    squares: Array = np.einsum("ri,ri->r", counts @ gram, counts) / batch_size**2
    return np.maximum(squares, 0.0)


def fit_slope(batch_sizes: Sequence[float], values: Sequence[Estimate]) -> Estimate:
    """Slope of log value against log b: least squares weighted by the intervals of the values."""
    x, y = np.log(batch_sizes), np.log([v.value for v in values])
    errors = np.array([(v.high - v.low) / (2 * 1.96 * v.value) for v in values])
    weights = 1 / np.maximum(errors, 1e-9) ** 2
    centred = x - np.average(x, weights=weights)
    spread = float((weights * centred**2).sum())
    slope = float((weights * centred * y).sum()) / spread
    reach = 1.96 / math.sqrt(spread)
    return Estimate(slope, slope - reach, slope + reach)


def finite_factor(batch_size: int, n: int) -> float:
    """(n - b)/(n - 1): the factor of sampling without replacement on the variance of a mean."""
    return (n - batch_size) / (n - 1)


def ball_marginal(dimension: int) -> stats.distributions.rv_frozen:
    """One coordinate of u, uniform in the unit ball of R^d: density ∝ (1 - t²)^((d - 1)/2)."""
    shape = (dimension + 1) / 2
    return stats.beta(shape, shape, loc=-1, scale=2)


@dataclass(frozen=True)
class Spectrum:
    """The shares of C² in the directions of the noise covariance, (n,), largest first."""

    shares: Array
    leading: Array  # projections of the centred gradients on the first direction, (n,)

    @property
    def effective_rank(self) -> float:
        """(tr Σ)²/tr Σ²: d for isotropic noise, 1 for noise along one line."""
        return 1 / float(np.square(self.shares).sum())


def spectrum(gram: Array) -> Spectrum:
    """The spectrum of the noise covariance: the eigenvalues of the Gram matrix, divided by n."""
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values[::-1], 0.0)
    return Spectrum(values / values.sum(), vectors[:, -1] * math.sqrt(values[0]))


def normality(projections: Array, scale: float) -> tuple[float, float]:
    """Two p-values of the hypothesis that draws (R,) come from N(0, scale²).

    The first is D'Agostino and Pearson's test of skewness and kurtosis, for any scale. The second
    is Kolmogorov and Smirnov's test with the given scale.
    """
    return (
        float(stats.normaltest(projections).pvalue),
        float(stats.kstest(projections / scale, "norm").pvalue),
    )
