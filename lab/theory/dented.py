"""A nonconvex function that is σ-nice: a bowl and a kink at 0, with a dent on either side.

In the dents f″ is negative. Smoothed by the ball, f̂_δ″ is the mean of f″ over [x − δ, x + δ]. If
N(x*; 3δ) reaches a dent, δ is so large that the dent is a small part of this interval.
"""

from dataclasses import dataclass, field

import numpy as np

from lab.theory.functions import Array
from lab.theory.ripple import Ripple
from lab.theory.smoothed import Smoothed


@dataclass(frozen=True)
class Dented:
    """x²/2 + a kink at 0 − `depth` in the second derivative where `near` < |x| < `far`."""

    base: Ripple = field(default_factory=lambda: Ripple(0.3, 1.0, wave_slope=0.0, bowl=1.0))
    near: float = 0.98
    far: float = 1.02
    depth: float = 3.0

    @property
    def lipschitz(self) -> float:
        """L_f on [−1, 1], where the dents lower the slope."""
        return self.base.lipschitz

    def _dent(self, x: Array, order: int) -> Array:
        """The part of the dents in the antiderivative of f″ of this order; the first is f′."""
        inside = np.clip(np.abs(x) - self.near, 0, self.far - self.near)
        beyond, width = np.maximum(np.abs(x) - self.far, 0), self.far - self.near
        antiderivative = {
            1: inside,
            2: inside**2 / 2 + width * beyond,
            3: inside**3 / 6 + width**2 / 2 * beyond + width * beyond**2 / 2,
        }[order]
        return -self.depth * (antiderivative if order == 2 else np.sign(x) * antiderivative)

    def _mean(self, x: Array, noise_level: float, order: int) -> Array:
        """The mean over [x − δ, x + δ] of the antiderivative before `order`."""
        rise = self._dent(x + noise_level, order) - self._dent(x - noise_level, order)
        return rise / (2 * noise_level)

    def value(self, x: Array, noise_level: float = 0.0) -> Array:
        """Return f̂_δ(x), elementwise; f itself for δ = 0."""
        dent = self._mean(x, noise_level, 3) if noise_level > 0 else self._dent(x, 2)
        return self.base.value(x, noise_level) + dent

    def gradient(self, x: Array, noise_level: float = 0.0) -> Array:
        """Return f̂_δ′(x), elementwise."""
        dent = self._mean(x, noise_level, 2) if noise_level > 0 else self._dent(x, 1)
        return self.base.gradient(x, noise_level) + dent

    def second_derivative(self, x: Array, noise_level: float) -> Array:
        """Return f̂_δ″(x), elementwise, δ > 0."""
        return self.base.second_derivative(x, noise_level) + self._mean(x, noise_level, 1)

    def smoothed(self) -> Smoothed:
        """Return the function in the form of the σ-nice checkers."""
        return Smoothed(
            lambda x, level: self.value(x, level)[:, 0],
            self.gradient,
            lambda x, level: self.second_derivative(x, level)[..., None],
            (-3.0, 3.0),
            1,
        )
