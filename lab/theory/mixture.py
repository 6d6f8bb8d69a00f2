"""A mixture of Gaussians in the plane, with −log p smoothed in two ways.

Diffusion models learn the score of p_σ = p * N(0, σ²I): descent on −log p_σ. Graduated
optimization descends on (−log p) * N(0, σ²I). The first is in closed form here.
"""

from dataclasses import dataclass

import numpy as np

from lab.theory.functions import Array
from lab.theory.kernels import Kernel
from lab.theory.smoothing import smooth


@dataclass(frozen=True)
class Mixture:
    """Weights (k,), centres (k, 2) and standard deviations (k,) of round Gaussians."""

    weights: Array
    centres: Array
    spreads: Array

    def _terms(self, x: Array, sigma: float) -> tuple[Array, Array, Array]:
        """Return log of each term of p_σ (..., k), x − centre (..., k, 2), variances (k,)."""
        variance = self.spreads**2 + sigma**2
        away = x[..., None, :] - self.centres
        log = np.log(self.weights / (2 * np.pi * variance)) - (away**2).sum(-1) / (2 * variance)
        return log, away, variance

    def energy(self, x: Array, sigma: float = 0.0) -> Array:
        """Return −log p_σ(x) of x (..., 2), shape (...)."""
        log, _, _ = self._terms(x, sigma)
        return np.asarray(-np.logaddexp.reduce(log, -1))

    def slope(self, x: Array, sigma: float = 0.0) -> Array:
        """Return ∇(−log p_σ)(x), the score with its sign changed, shape as x."""
        log, away, variance = self._terms(x, sigma)
        share = np.exp(log - np.logaddexp.reduce(log, -1)[..., None])
        return np.asarray((share[..., None] * away / variance[:, None]).sum(-2))

    def smoothed_slope(self, x: Array, sigma: float, samples: int = 4096) -> Array:
        """Return ∇ of (−log p) * N(0, σ²I), by quasi-random points."""
        return smooth(self.slope, x, sigma, Kernel("gaussian"), samples=samples).value

    def sample(self, count: int, sigma: float, rng: np.random.Generator) -> Array:
        """Draw from p_σ, shape (count, 2)."""
        chosen = rng.choice(len(self.weights), count, p=self.weights)
        spread = np.sqrt(self.spreads[chosen] ** 2 + sigma**2)
        return np.asarray(self.centres[chosen] + spread[:, None] * rng.standard_normal((count, 2)))

    def nearest(self, x: Array) -> Array:
        """Return the index of the centre nearest to x (..., 2), shape (...)."""
        return np.asarray(((x[..., None, :] - self.centres) ** 2).sum(-1).argmin(-1))
