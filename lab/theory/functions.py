"""Test functions with their smoothed versions in closed form: value and two derivatives.

f̂_δ(x) = Σ g(x_i), and the Hessian is diagonal: a `Function` has g and its derivatives, elementwise.

The checkers of nice.py need this precision: Monte Carlo noise could hide a violation, or look like
one.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lab.theory.smoothing import BALL, Array, Kernel


@dataclass(frozen=True)
class Ripple:
    """A kink at 0, a wave and a bowl, with every constant of Theorem 3.4 known exactly.

    g(x) = right·max(x, 0) + left·max(−x, 0) + A (sin(ωx + tilt) − sin tilt) + bowl·x²/2. A kink is
    for the ball in one dimension. There

        f̂_δ'(x) = right·q − left·(1 − q) + Aω·φ(ωδ)·cos(ωx + tilt) + bowl·x,

    q = (x + δ)/2δ cut to [0, 1], the share of the ball about x that lies right of the kink, and
    φ(t) = E[cos t u] of the kernel, sin(t)/t for the ball. With
    left > Aω > right > 0 and tilt = bowl = 0 the function is nonconvex and Lipschitz, with the
    minimum f(0) = 0 and local minima on the right. Its curvature on N(0; δ) is at least
    ((left + right)/2 − Aω)/δ, so d_m = 1. f(x*_δ) falls like δ, not like δ²: no Lipschitz function
    falls more slowly.
    """

    right: float = 0.3
    left: float = 3.0
    wave_slope: float = 0.35  # Aω
    frequency: float = 7.5  # ω
    bowl: float = 0.0
    tilt: float = 0.0
    kernel: Kernel = BALL
    dimension: int = 1
    domain: tuple[float, float] = (-1.0, 1.0)

    @property
    def lipschitz(self) -> float:
        """L_f on [−1, 1]."""
        return self.left + self.wave_slope + self.bowl

    def sigma(self, noise_level: float) -> float:
        """Return σ of f̂_δ on N(0; δ); it also holds for every smaller noise level."""
        return self.bowl + ((self.left + self.right) / 2 - self.wave_slope) / noise_level

    def _slope_left(self, noise_level: float) -> float:
        """The slope Aω φ(ωδ) that smoothing leaves of the wave's."""
        phi = self.kernel.cosine_mean(self.frequency * noise_level, self.dimension)
        return self.wave_slope * float(phi)

    def value(self, x: Array, noise_level: float = 0.0) -> Array:
        """Return f̂_δ(x), elementwise; f itself for δ = 0."""
        up, down = np.maximum(x, 0), np.maximum(-x, 0)
        if noise_level > 0:
            # Where the kink is in the ball, E[max(x − δu, 0)] = (x + δ)²/4δ.
            near_kink = np.abs(x) < noise_level
            up = np.where(near_kink, (x + noise_level) ** 2 / (4 * noise_level), up)
            down = np.where(near_kink, (x - noise_level) ** 2 / (4 * noise_level), down)
        wave = self._slope_left(noise_level) * np.sin(self.frequency * x + self.tilt)
        wave = (wave - self.wave_slope * np.sin(self.tilt)) / self.frequency
        spread = noise_level**2 * self.kernel.second_moment(self.dimension)  # E[(x − δu)²] − x²
        kink = self.right * up + self.left * down
        return np.asarray(kink + wave + self.bowl * (x**2 + spread) / 2)

    def gradient(self, x: Array, noise_level: float = 0.0) -> Array:
        """Return f̂_δ'(x), elementwise; for δ = 0 f'(x), with the mean slope at the kink."""
        if noise_level > 0:
            q = np.clip((x + noise_level) / (2 * noise_level), 0, 1)
        else:
            q = (np.sign(x) + 1) / 2
        wave = self._slope_left(noise_level) * np.cos(self.frequency * x + self.tilt)
        return np.asarray(self.right * q - self.left * (1 - q) + wave + self.bowl * x)

    def second_derivative(self, x: Array, noise_level: float = 0.0) -> Array:
        """Return f̂_δ''(x), elementwise; at |x| = δ the value inside; for δ = 0 without the kink."""
        wave = self.frequency * self._slope_left(noise_level)
        bend = self.bowl - wave * np.sin(self.frequency * x + self.tilt)
        if noise_level > 0:
            # The end of an interval of radius δ counts as inside, with its rounding.
            near_kink = np.abs(x) <= noise_level * (1 + 1e-12)
            bend += np.where(near_kink, (self.left + self.right) / (2 * noise_level), 0.0)
        return np.asarray(bend)


def rastrigin(kernel: Kernel, dimension: int) -> Ripple:
    """Return Rastrigin, f = Σ x_i² − 10 cos 2πx_i + 10, any dimension.

    A ripple has a sine: −10 cos 2πx + 10 = 10 (sin(2πx − π/2) − sin(−π/2)), so Aω = 10·2π.
    """
    return Ripple(
        right=0.0,
        left=0.0,
        wave_slope=20 * np.pi,
        frequency=2 * np.pi,
        bowl=2.0,
        tilt=-np.pi / 2,
        kernel=kernel,
        dimension=dimension,
        domain=(-5.12, 5.12),
    )


def tilted_wave(tilt: float, amplitude: float, frequency: float, kernel: Kernel) -> Ripple:
    """Return f(x) = x²/2 + A (sin(ωx + tilt) − sin tilt), dimension 1.

    It is asymmetric and nonconvex, and x*_δ moves with δ, as Propositions 3.2 and 3.3 need. All
    minima lie in [−Aω, Aω], as f' = x + Aω cos(ωx + tilt); the domain is more than twice as wide.
    """
    slope = amplitude * frequency
    end = 2 * slope + 1
    return Ripple(0.0, 0.0, slope, frequency, 1.0, tilt, kernel, domain=(-end, end))


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

    @property
    def lipschitz(self) -> float:
        """L_f on [−1, 1], where the dents lower the slope."""
        return self.base.lipschitz

    def _dents(self, x: Array, noise_level: float, order: int) -> Array:
        """What the dents add to the derivative of f̂_δ of this order; the value has order 0.

        The mean of a function over [x − δ, x + δ] is the difference of its antiderivative there,
        over 2δ.
        """
        if noise_level == 0:
            return self._antiderivative(x, 2 - order)
        right = self._antiderivative(x + noise_level, 3 - order)
        return (right - self._antiderivative(x - noise_level, 3 - order)) / (2 * noise_level)

    def _antiderivative(self, x: Array, order: int) -> Array:
        """What the dents add to the antiderivative of f″ of this order; the first is f′.

        Right of 0 a dent is −depth where x > near, less the same where x > far. Each of the two has
        the antiderivative (x − near)₊^order/order!, and left of 0 there is the mirror image.
        """
        beyond, inside = (np.maximum(np.abs(x) - end, 0) ** order for end in (self.far, self.near))
        sign = np.sign(x) ** order
        return np.asarray(self.depth * sign * (beyond - inside) / math.factorial(order))

    def value(self, x: Array, noise_level: float = 0.0) -> Array:
        """Return f̂_δ(x), elementwise; f itself for δ = 0."""
        return self.base.value(x, noise_level) + self._dents(x, noise_level, 0)

    def gradient(self, x: Array, noise_level: float = 0.0) -> Array:
        """Return f̂_δ′(x), elementwise."""
        return self.base.gradient(x, noise_level) + self._dents(x, noise_level, 1)

    def second_derivative(self, x: Array, noise_level: float) -> Array:
        """Return f̂_δ″(x), elementwise, δ > 0."""
        return self.base.second_derivative(x, noise_level) + self._dents(x, noise_level, 2)


Function = Ripple | Dented
