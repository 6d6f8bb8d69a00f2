"""A nonconvex function of one variable with every constant of Theorem 3.4 known exactly.

f(x) = right·max(x, 0) + left·max(−x, 0) + A sin ωx, left > Aω > right > 0: minimum f(0) = 0, local
minima on the right, Lipschitz, and under the slides' kernel (uniform on [−1, 1])

    f̂_δ'(x) = right·q − left·(1 − q) + Aω·sin(ωδ)/(ωδ)·cos ωx,   q = (x + δ)/2δ cut to [0, 1].

On N(0; δ) its curvature is at least ((left + right)/2 − Aω)/δ, so d_m = 1. f(x*_δ) falls like δ,
not like δ²: no Lipschitz function falls more slowly, and the theorem bounds this case.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from lab.theory.functions import Array
from lab.theory.kernels import Kernel
from lab.theory.smoothed import Smoothed

BALL = Kernel("ball")


@dataclass(frozen=True)
class Ripple:
    """The function with its constants, plus bowl·x²/2; nonconvex if wave_slope > right, bowl = 0.

    ValueError unless left > wave_slope ≥ 0, right > 0 and bowl ≥ 0.
    """

    right: float = 0.3
    left: float = 3.0
    wave_slope: float = 0.35  # Aω
    frequency: float = 7.5  # ω
    bowl: float = 0.0

    def __post_init__(self) -> None:
        if not (self.left > self.wave_slope >= 0 and self.right > 0 and self.bowl >= 0):
            raise ValueError(
                f"left={self.left} > wave_slope={self.wave_slope} ≥ 0, right={self.right} > 0 and "
                f"bowl={self.bowl} ≥ 0 are needed"
            )

    @property
    def lipschitz(self) -> float:
        """L_f on [−1, 1]."""
        return self.left + self.wave_slope + self.bowl

    def sigma(self, noise_level: float) -> float:
        """Return σ of f̂_δ on N(0; δ); it also holds for every smaller noise level."""
        return self.bowl + ((self.left + self.right) / 2 - self.wave_slope) / noise_level

    def _damping(self, noise_level: float, dimension: int = 1) -> float:
        return float(BALL.cosine_mean(self.frequency * noise_level, dimension))

    def value(self, x: Array, noise_level: float = 0.0) -> Array:
        """Return f̂_δ(x), elementwise; f itself for δ = 0."""
        up, down = np.maximum(x, 0), np.maximum(-x, 0)
        if noise_level > 0:
            inside = np.abs(x) < noise_level
            up = np.where(inside, (x + noise_level) ** 2 / (4 * noise_level), up)
            down = np.where(inside, (x - noise_level) ** 2 / (4 * noise_level), down)
        wave = self.wave_slope / self.frequency * self._damping(noise_level)
        bowl = self.bowl * (x**2 + noise_level**2 / 3) / 2
        return self.right * up + self.left * down + wave * np.sin(self.frequency * x) + bowl

    def gradient(self, x: Array, noise_level: float = 0.0, dimension: int = 1) -> Array:
        """Return f̂_δ'(x), elementwise; for δ = 0 f'(x), with the mean slope at the kink.

        In a sum over `dimension` coordinates, smoothed by the ball of R^d, a coordinate's kernel is
        the ball's marginal, (1 + u)/2 ~ Beta((d + 1)/2, (d + 1)/2), uniform for d = 1 [derived].
        """
        if noise_level > 0:
            q = np.clip((x + noise_level) / (2 * noise_level), 0, 1)
            if dimension > 1:
                q = special.betainc((dimension + 1) / 2, (dimension + 1) / 2, q)
        else:
            q = (np.sign(x) + 1) / 2
        wave = self.wave_slope * self._damping(noise_level, dimension)
        kink = self.right * q - self.left * (1 - q)
        return np.asarray(kink + wave * np.cos(self.frequency * x) + self.bowl * x)

    def second_derivative(self, x: Array, noise_level: float) -> Array:
        """Return f̂_δ''(x), elementwise, δ > 0; at |x| = δ the value inside."""
        inside = np.abs(x) <= noise_level * (1 + 1e-12)
        wave = self.wave_slope * self.frequency * self._damping(noise_level)
        kink = np.where(inside, (self.left + self.right) / (2 * noise_level), 0.0)
        return kink - wave * np.sin(self.frequency * x) + self.bowl

    def smoothed(self) -> Smoothed:
        """Return the function in the form of the σ-nice checkers."""
        return Smoothed(
            lambda x, level: self.value(x, level)[:, 0],
            self.gradient,
            lambda x, level: self.second_derivative(x, level)[..., None],
            (-1.0, 1.0),
            1,
        )
