"""The exponent of the batch size that SGD's stationary loss obeys, from exact second moments.

Settings (η, b) of equal loss form level sets. The local exponent ρ is d ln η / d ln b along a level
set: η b^(−ρ) is constant there to first order. Nothing here is sampled: the second moments of SGD
on a quadratic follow an affine recursion, which is solved. docs/exponent.md has the derivations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lab.theory.functions import Array


@dataclass(frozen=True)
class Moments:
    """v ← `step` v + `noise`, second moments v; `curvatures` @ v[:modes] / 2 is the excess loss."""

    step: Array
    noise: Array
    curvatures: Array

    def stationary(self) -> Array:
        """Return the excess loss of each mode at the fixed point.

        Raises:
            ValueError: the recursion diverges.
        """
        radius = float(np.abs(np.linalg.eigvals(self.step)).max())
        if radius >= 1:
            raise ValueError(f"SGD diverges at this η and b: spectral radius {radius:.4g}")
        return self._losses(self._fixed_point())

    def after(self, steps: float, start: Array) -> Array:
        """Return the excess loss of each mode after `steps` steps from second moments `start`.

        `steps` may be a fraction, so that a loss can be differentiated in it.
        """
        values, vectors = np.linalg.eig(self.step.astype(complex))
        fixed = self._fixed_point()
        power = (vectors * values**steps) @ np.linalg.inv(vectors)
        return self._losses(fixed + (power @ (start - fixed)).real)

    def _fixed_point(self) -> Array:
        matrix = np.eye(len(self.step), dtype=np.float64) - self.step
        return np.asarray(np.linalg.solve(matrix, self.noise), dtype=np.float64)

    def _losses(self, moments: Array) -> Array:
        losses: Array = self.curvatures * moments[: len(self.curvatures)] / 2
        return losses


def heavy_ball(curvatures: Array, noise: Array, eta: float, b: float, beta: float = 0.0) -> Moments:
    """Return the moments of independent quadratic modes under SGD with momentum β.

    x_{t+1} = x_t − η(λx_t + ε) + β(x_t − x_{t−1}), Var ε = `noise`/b in each mode. The state is
    E x² of all modes, then E x x₋, then E x₋².
    """
    k = len(curvatures)
    a, ones = 1 + beta - eta * curvatures, np.ones(k)
    blocks = [
        [a**2, -2 * a * beta, beta**2 * ones],
        [a, -beta * ones, 0 * ones],
        [ones, 0 * ones, 0 * ones],
    ]
    step = np.block([[np.diag(entry) for entry in row] for row in blocks])
    return Moments(step, np.concatenate([eta**2 * noise / b, np.zeros(2 * k)]), curvatures)


def streaming_regression(curvatures: Array, label_noise: float, eta: float, b: float) -> Moments:
    """Return the moments of SGD on linear regression, fresh Gaussian samples in every batch.

    The inputs have covariance diag(λ), the labels independent noise of variance `label_noise`. The
    gradient's noise grows with the distance: for Gaussian inputs its covariance at error V is
    (λ_i(label_noise + Σ_j λ_j v_j) + λ_i² v_i)/b in mode i.
    """
    h = eta * curvatures
    step = np.diag((1 - h) ** 2 + h**2 / b) + eta**2 / b * np.outer(curvatures, curvatures)
    return Moments(step, eta**2 / b * label_noise * curvatures, curvatures)


def measured(loss: Callable[[float, float], float], eta: float, b: float) -> float:
    """Return d ln η / d ln b along the level set of `loss`(η, b) through (η, b).

    By the implicit function theorem it is −(∂ ln loss/∂ ln b)/(∂ ln loss/∂ ln η), here by central
    differences.
    """
    factor = np.exp(1e-4)
    along_b = np.log(loss(eta, b * factor) / loss(eta, b / factor))
    along_eta = np.log(loss(eta * factor, b) / loss(eta / factor, b))
    return float(-along_b / along_eta)


def predicted(shares: Array, steps: Array, beta: float = 0.0) -> float:
    """Return ρ = 1/Σ w_i · 2(1 + β)/(2(1 + β) − ηλ_i).

    `shares` w_i of the excess loss (they are divided by their sum), `steps` ηλ_i.
    """
    edge = 2 * (1 + beta)
    return float(shares.sum() / (shares * edge / (edge - steps)).sum())
