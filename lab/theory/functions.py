"""Test functions with their smoothed versions in closed form: value and two derivatives.

f̂_δ(x) = Σ g(x_i), and the Hessian is diagonal: a `Function` has g and its derivatives, elementwise.

The checkers of nice.py need this precision: Monte Carlo noise could hide a violation, or look like
one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lab.theory.smoothing import BALL, Array, Kernel

Elementwise = Callable[[Array, float], Array]  # a function of x and δ ≥ 0


@dataclass(frozen=True)
class Smoothed:
    """A function by its formulas."""

    value: Elementwise
    gradient: Elementwise
    second_derivative: Elementwise
    domain: tuple[float, float]
    dimension: int = 1


def rastrigin(kernel: Kernel, dimension: int) -> Smoothed:
    """Return smoothed Rastrigin, f = Σ x_i² − 10 cos 2πx_i + 10, any dimension.

    f̂_δ = Σ x_i² + δ² E[u_i²] + 10 − 10 φ(2πδ) cos 2πx_i, with φ(t) = E[cos t u_i] of `kernel`.
    In one dimension φ is sin(t)/t for the ball and exp(−t²/2) for the Gaussian kernel.
    """
    moment = kernel.second_moment(dimension)

    def damping(noise_level: float) -> float:
        return float(kernel.cosine_mean(2 * np.pi * noise_level, dimension))

    return Smoothed(
        lambda x, d: x**2 + d**2 * moment + 10 - 10 * damping(d) * np.cos(2 * np.pi * x),
        lambda x, d: 2 * x + 20 * np.pi * damping(d) * np.sin(2 * np.pi * x),
        lambda x, d: 2 + 40 * np.pi**2 * damping(d) * np.cos(2 * np.pi * x),
        (-5.12, 5.12),
        dimension,
    )


def tilted_wave(tilt: float, amplitude: float, frequency: float, kernel: Kernel) -> Smoothed:
    """Return smoothed f(x) = x²/2 + A sin(ωx + tilt), dimension 1.

    It is asymmetric and nonconvex, and x*_δ moves with δ, as Propositions 3.2 and 3.3 need.
    f̂_δ = x²/2 + δ² E[u²]/2 + A φ(ωδ) sin(ωx + tilt).
    """
    moment, reach = kernel.second_moment(1), 2 * amplitude * frequency + 1.0

    def wave(noise_level: float) -> float:
        return amplitude * float(kernel.cosine_mean(frequency * noise_level, 1))

    return Smoothed(
        lambda x, d: x**2 / 2 + d**2 * moment / 2 + wave(d) * np.sin(frequency * x + tilt),
        lambda x, d: x + wave(d) * frequency * np.cos(frequency * x + tilt),
        lambda x, d: 1 - wave(d) * frequency**2 * np.sin(frequency * x + tilt),
        (-reach, reach),
    )


@dataclass(frozen=True)
class Ripple:
    """A nonconvex function of one variable with every constant of Theorem 3.4 known exactly.

    f(x) = right·max(x, 0) + left·max(−x, 0) + A sin ωx + bowl·x²/2, left > Aω > right > 0: minimum
    f(0) = 0, for bowl = 0 local minima on the right, Lipschitz, and under the ball

        f̂_δ'(x) = right·q − left·(1 − q) + Aω·sin(ωδ)/(ωδ)·cos ωx + bowl·x,

    q = (x + δ)/2δ cut to [0, 1]. For bowl = 0 its curvature on N(0; δ) is at least
    ((left + right)/2 − Aω)/δ, so d_m = 1. f(x*_δ) falls like δ, not like δ²: no Lipschitz function
    falls more slowly.
    """

    right: float = 0.3
    left: float = 3.0
    wave_slope: float = 0.35  # Aω
    frequency: float = 7.5  # ω
    bowl: float = 0.0
    domain: ClassVar = (-1.0, 1.0)
    dimension: ClassVar = 1

    @property
    def lipschitz(self) -> float:
        """L_f on [−1, 1]."""
        return self.left + self.wave_slope + self.bowl

    def sigma(self, noise_level: float) -> float:
        """Return σ of f̂_δ on N(0; δ); it also holds for every smaller noise level."""
        return self.bowl + ((self.left + self.right) / 2 - self.wave_slope) / noise_level

    def _damping(self, noise_level: float) -> float:
        return float(BALL.cosine_mean(self.frequency * noise_level, 1))

    def value(self, x: Array, noise_level: float = 0.0) -> Array:
        """Return f̂_δ(x), elementwise; f itself for δ = 0."""
        up, down = np.maximum(x, 0), np.maximum(-x, 0)
        if noise_level > 0:
            near_kink = np.abs(x) < noise_level
            up = np.where(near_kink, (x + noise_level) ** 2 / (4 * noise_level), up)
            down = np.where(near_kink, (x - noise_level) ** 2 / (4 * noise_level), down)
        wave = self.wave_slope / self.frequency * self._damping(noise_level)
        bowl = self.bowl * (x**2 + noise_level**2 / 3) / 2
        return self.right * up + self.left * down + wave * np.sin(self.frequency * x) + bowl

    def gradient(self, x: Array, noise_level: float = 0.0) -> Array:
        """Return f̂_δ'(x), elementwise; for δ = 0 f'(x), with the mean slope at the kink."""
        if noise_level > 0:
            q = np.clip((x + noise_level) / (2 * noise_level), 0, 1)
        else:
            q = (np.sign(x) + 1) / 2
        wave = self.wave_slope * self._damping(noise_level)
        kink = self.right * q - self.left * (1 - q)
        return np.asarray(kink + wave * np.cos(self.frequency * x) + self.bowl * x)

    def second_derivative(self, x: Array, noise_level: float) -> Array:
        """Return f̂_δ''(x), elementwise, δ > 0; at |x| = δ the value inside."""
        near_kink = np.abs(x) <= noise_level * (1 + 1e-12)
        wave = self.wave_slope * self.frequency * self._damping(noise_level)
        kink = np.where(near_kink, (self.left + self.right) / (2 * noise_level), 0.0)
        return kink - wave * np.sin(self.frequency * x) + self.bowl


@dataclass(frozen=True)
class Dented:
    """A nonconvex function that is σ-nice: a bowl and a kink at 0, with a dent on either side.

    f″ of `base` less `depth` where `near` < |x| < `far`. f̂_δ″ is the mean of f″ over
    [x − δ, x + δ]. If N(x*; 3δ) reaches a dent, δ is so large that the dent is a small part of it.
    """

    base: Ripple = field(default_factory=lambda: Ripple(0.3, 1.0, wave_slope=0.0, bowl=1.0))
    near: float = 0.98
    far: float = 1.02
    depth: float = 3.0
    domain: ClassVar = (-3.0, 3.0)
    dimension: ClassVar = 1

    @property
    def lipschitz(self) -> float:
        """L_f on [−1, 1], where the dents lower the slope."""
        return self.base.lipschitz

    def _dent(self, x: Array, order: int) -> Array:
        """The part of the dents in the antiderivative of f″ of this order; the first is f′."""
        part_inside = np.clip(np.abs(x) - self.near, 0, self.far - self.near)
        part_beyond, width = np.maximum(np.abs(x) - self.far, 0), self.far - self.near
        antiderivative = {
            1: part_inside,
            2: part_inside**2 / 2 + width * part_beyond,
            3: part_inside**3 / 6 + width**2 / 2 * part_beyond + width * part_beyond**2 / 2,
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


Function = Smoothed | Ripple | Dented
