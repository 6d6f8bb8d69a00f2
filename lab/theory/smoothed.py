"""Functions with smoothed versions to machine precision: value, gradient, Hessian.

They are in closed form or, for radial functions in one and two dimensions, by quadrature. The
checkers of nice.py need this precision: Monte Carlo noise could hide a violation, or look like one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline, PPoly

from lab.theory.functions import Array, TestFunction
from lab.theory.kernels import Kernel
from lab.theory.smoothing import nodes, smooth_by_quadrature


@dataclass(frozen=True)
class Smoothed:
    """f̂_δ as functions of x (n, d) and δ ≥ 0: value (n,), gradient (n, d), Hessian (n, d, d)."""

    value: Callable[[Array, float], Array]
    gradient: Callable[[Array, float], Array]
    hessian: Callable[[Array, float], Array]
    domain: tuple[float, float]
    dimension: int

    def curvature(self, x: Array, noise_level: float) -> Array:
        """Return the smallest eigenvalue of the Hessian of f̂_δ at x (n, d), shape (n,)."""
        return np.asarray(np.linalg.eigvalsh(self.hessian(x, noise_level))[:, 0], float)


def quadratic() -> Smoothed:
    """Return f = x²/2. Smoothing only adds a constant, so it is σ-nice with σ = 1."""
    return Smoothed(
        lambda x, d: ((x**2).sum(-1) + d**2 / 3) / 2,
        lambda x, _: x,
        lambda x, _: np.ones((len(x), 1, 1)),
        (-5.0, 5.0),
        1,
    )


def rastrigin(kernel: Kernel, dimension: int) -> Smoothed:
    """Return smoothed Rastrigin in closed form, any dimension.

    f̂_δ = Σ x_i² + δ² E[u_i²] + 10 − 10 φ(2πδ) cos 2πx_i, with φ(t) = E[cos t u_i] of `kernel`.
    In one dimension φ is sin(t)/t for the ball and exp(−t²/2) for the Gaussian kernel.
    """

    def damping(noise_level: float) -> float:
        return float(kernel.cosine_mean(2 * np.pi * noise_level, dimension))

    def value(x: Array, noise_level: float) -> Array:
        bowl = x**2 + noise_level**2 * kernel.second_moment(dimension)
        return np.asarray((bowl + 10 - 10 * damping(noise_level) * np.cos(2 * np.pi * x)).sum(-1))

    def gradient(x: Array, noise_level: float) -> Array:
        return 2 * x + 20 * np.pi * damping(noise_level) * np.sin(2 * np.pi * x)

    def hessian(x: Array, noise_level: float) -> Array:
        diagonal = 2 + 40 * np.pi**2 * damping(noise_level) * np.cos(2 * np.pi * x)
        return np.asarray(diagonal[..., None] * np.eye(dimension))

    return Smoothed(value, gradient, hessian, (-5.12, 5.12), dimension)


def _slope_along_a_ray(
    function: TestFunction, kernel: Kernel, dimension: int, r: Array, noise_level: float, order: int
) -> CubicSpline:
    """A spline through f̂_δ'(r) at these radii, by quadrature."""
    ray = np.zeros((len(r), dimension))
    ray[:, 0] = r
    rows = [
        smooth_by_quadrature(function.gradient, part, noise_level, kernel, order)[:, 0]
        for part in np.array_split(ray, 16)
    ]
    values = np.concatenate(rows)
    values[0] = 0.0
    return CubicSpline(r, values)


def radial(
    function: TestFunction, kernel: Kernel, dimension: int, reach: float | None = None
) -> Smoothed:
    """Return a smoothed test function of ‖x‖ alone, dimension 1 or 2, for ‖x‖ up to `reach`.

    A radial kernel keeps it radial: f̂_δ'(r) is a spline through values along a ray, by quadrature.
    The nodes are enough for waves of 12 radians per unit, as in Drop-Wave, and δ up to 2.5. The
    Hessian has the eigenvalues f̂_δ''(r) along the ray and f̂_δ'(r)/r across. ValueError as `nodes`.
    """
    order, step = (160 if kernel.name == "gaussian" else 64), 0.02
    nodes(kernel, dimension, order)
    end = reach or 2 * function.domain[1] * np.sqrt(dimension)

    @lru_cache(maxsize=64)
    def slope(noise_level: float) -> CubicSpline:
        return _slope_along_a_ray(function, kernel, dimension, np.arange(0, end + step, step),
                                  noise_level, order)  # fmt: skip

    @lru_cache(maxsize=64)
    def primitive(noise_level: float) -> tuple[PPoly, float]:
        origin = np.zeros((1, dimension))
        bottom = smooth_by_quadrature(function.value, origin, noise_level, kernel, order)
        return slope(noise_level).antiderivative(), float(bottom[0])

    def value(x: Array, noise_level: float) -> Array:
        rise, bottom = primitive(noise_level)
        return np.asarray(bottom + rise(np.linalg.norm(x, axis=-1)))

    def gradient(x: Array, noise_level: float) -> Array:
        r = np.maximum(np.linalg.norm(x, axis=-1), 1e-12)
        return np.asarray((slope(noise_level)(r) / r)[:, None] * x)

    def hessian(x: Array, noise_level: float) -> Array:
        r = np.maximum(np.linalg.norm(x, axis=-1), 1e-9)
        along, across = slope(noise_level)(r, 1), slope(noise_level)(r) / r
        direction = x / r[:, None]
        outer = direction[:, :, None] * direction[:, None, :]
        return np.asarray(
            across[:, None, None] * np.eye(dimension) + (along - across)[:, None, None] * outer
        )

    return Smoothed(value, gradient, hessian, function.domain, dimension)


def tilted_wave(tilt: float, amplitude: float, frequency: float, kernel: Kernel) -> Smoothed:
    """Return smoothed f(x) = x²/2 + A sin(ωx + tilt) in closed form, dimension 1.

    The function is asymmetric and nonconvex, and x*_δ moves with δ, as Propositions 3.2 and 3.3
    need. f̂_δ = x²/2 + δ² E[u²]/2 + A φ(ωδ) sin(ωx + tilt).
    """
    moment = kernel.second_moment(1)

    def wave(noise_level: float) -> float:
        return amplitude * float(kernel.cosine_mean(frequency * noise_level, 1))

    def value(x: Array, noise_level: float) -> Array:
        bowl = x**2 / 2 + noise_level**2 * moment / 2
        return np.asarray((bowl + wave(noise_level) * np.sin(frequency * x + tilt)).sum(-1))

    def gradient(x: Array, noise_level: float) -> Array:
        return x + wave(noise_level) * frequency * np.cos(frequency * x + tilt)

    def hessian(x: Array, noise_level: float) -> Array:
        second = 1 - wave(noise_level) * frequency**2 * np.sin(frequency * x + tilt)
        return np.asarray(second[..., None])

    reach = 2 * amplitude * frequency + 1.0
    return Smoothed(value, gradient, hessian, (-reach, reach), 1)
