import numpy as np
import pytest
from differences import slopes
from scipy import integrate, stats

from lab.theory import smoothed
from lab.theory.functions import DROP_WAVE, RASTRIGIN
from lab.theory.kernels import Kernel
from lab.theory.smoothing import smooth, smooth_by_quadrature

ZERO = np.zeros((1, 1))


def rastrigin_1d(x):
    return x**2 - 10 * np.cos(2 * np.pi * x) + 10


@pytest.mark.parametrize("level", [0.1, 0.5, 0.75, 1.3])
def test_rastrigin_closed_forms_of_the_contract(level):
    x = np.linspace(-2, 2, 9)[:, None]
    wave = np.cos(2 * np.pi * x[:, 0])
    damping = np.sin(2 * np.pi * level) / (2 * np.pi * level)
    ball = x[:, 0] ** 2 + level**2 / 3 + 10 - 10 * wave * damping
    gaussian = x[:, 0] ** 2 + level**2 + 10 - 10 * np.exp(-2 * np.pi**2 * level**2) * wave
    for name, expected in (("ball", ball), ("gaussian", gaussian)):
        function = smoothed.rastrigin(Kernel(name), 1)
        np.testing.assert_allclose(function.value(x, level), expected, rtol=1e-12)


@pytest.mark.parametrize("kernel", ["ball", "sphere", "gaussian"])
@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("level", [0.3, 1.1])
def test_closed_form_is_the_quadrature(kernel, dimension, level):
    x = np.linspace(-0.8, 1.2, 5 * dimension).reshape(5, dimension)
    function = smoothed.rastrigin(Kernel(kernel), dimension)
    for exact, integrand in (
        (function.value, RASTRIGIN.value),
        (function.gradient, RASTRIGIN.gradient),
    ):
        numerical = smooth_by_quadrature(integrand, x, level, Kernel(kernel))
        np.testing.assert_allclose(exact(x, level), numerical, rtol=1e-8, atol=1e-8)


def test_ball_smoothed_rastrigin_has_a_maximum_at_zero_in_a_band_of_noise():
    function = smoothed.rastrigin(Kernel("ball"), 1)
    assert function.curvature(ZERO, 0.75)[0] == pytest.approx(-81.8, abs=0.05)
    assert function.curvature(ZERO, 0.45)[0] > 0
    assert (
        np.array([function.curvature(ZERO, d)[0] for d in np.linspace(0.51, 0.99, 25)]) < 0
    ).all()
    step = 1e-4  # and by differences of an integral, without any formula of ours
    f = [
        integrate.quad(lambda u, y=y: rastrigin_1d(y - 0.75 * u) / 2, -1, 1, epsabs=1e-12)[0]
        for y in (-step, 0, step)
    ]
    assert (f[0] - 2 * f[1] + f[2]) / step**2 == pytest.approx(-81.8, abs=0.1)


def test_gaussian_smoothed_rastrigin_is_convex_from_0_5174():
    function = smoothed.rastrigin(Kernel("gaussian"), 1)
    x = np.linspace(-2, 2, 4001)[:, None]
    assert function.curvature(x, 0.5175).min() > 0
    assert function.curvature(x, 0.5173).min() < 0


@pytest.mark.parametrize("kernel", ["ball", "sphere", "gaussian"])
@pytest.mark.parametrize("dimension", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("method", ["plain", "antithetic", "quasi"])
def test_monte_carlo_lies_within_its_error_bar(kernel, dimension, method):
    x = np.linspace(-1, 1, dimension)[None]
    exact = smoothed.rastrigin(Kernel(kernel), dimension)
    for function, expected in (
        (RASTRIGIN.value, exact.value(x, 0.4)),
        (RASTRIGIN.gradient, exact.gradient(x, 0.4)),
    ):
        estimate = smooth(function, x, 0.4, Kernel(kernel), samples=4096, method=method, seed=5)
        error = np.maximum(estimate.standard_error, 1e-9)
        assert (np.abs(estimate.value - expected) < 5 * error).all()


def test_standard_error_is_the_spread_over_seeds():
    kernel, values, errors = Kernel("gaussian"), [], []
    for seed in range(60):
        estimate = smooth(
            RASTRIGIN.value, np.zeros((1, 3)), 0.5, kernel, samples=256, method="plain", seed=seed
        )
        values.append(estimate.value[0])
        errors.append(estimate.standard_error[0])
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.25)


def test_sobol_and_antithetic_points_reduce_the_variance():
    def error(method):
        return smooth(
            RASTRIGIN.value, np.full((1, 2), 0.2), 0.05, Kernel("ball"), method=method
        ).standard_error.mean()

    assert error("quasi") < error("plain") / 4
    assert error("antithetic") < error("plain")


def test_gaussian_samples_are_independent_and_normal():
    sample = Kernel("gaussian").sample(20_000, 2, np.random.default_rng(1))
    assert stats.kstest(sample[:, 0], stats.norm().cdf).pvalue > 0.001
    assert abs(stats.spearmanr(sample[:, 0], sample[:, 1]).statistic) < 0.03


@pytest.mark.parametrize("dimension", [1, 2, 10])
def test_ball_and_sphere_are_uniform(dimension):
    rng = np.random.default_rng(2)
    radius = np.linalg.norm(Kernel("ball").sample(20_000, dimension, rng), axis=1)
    assert stats.kstest(radius**dimension, "uniform").pvalue > 0.001
    surface = Kernel("sphere").sample(20_000, dimension, rng)
    np.testing.assert_allclose(np.linalg.norm(surface, axis=1), 1)
    assert (surface**2).mean() == pytest.approx(Kernel("sphere").second_moment(dimension), rel=1e-9)
    assert np.abs(surface.mean(0)).max() < 0.03


@pytest.mark.parametrize(
    ("name", "law"), [("gaussian", stats.norm()), ("ball", stats.uniform(-1, 2))]
)
def test_damping_of_a_wave_is_the_mean_of_its_cosine(name, law):
    for t in (0.0, 0.3, 1.2, 3.0):
        assert Kernel(name).cosine_mean(t, 1) == pytest.approx(
            law.expect(lambda u, t=t: np.cos(t * u))
        )


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("kernel", ["ball", "gaussian"])
def test_radial_table_is_the_direct_quadrature(kernel, dimension):
    function = smoothed.radial(DROP_WAVE, Kernel(kernel), dimension, reach=3.0)
    x = np.random.default_rng(0).uniform(-1.4, 1.4, (6, dimension))
    value = smooth_by_quadrature(DROP_WAVE.value, x, 0.4, Kernel(kernel), 128)
    np.testing.assert_allclose(function.value(x, 0.4), value, atol=1e-5)

    def slope(y):
        return smooth_by_quadrature(DROP_WAVE.gradient, y, 0.4, Kernel(kernel), 128)

    np.testing.assert_allclose(function.hessian(x, 0.4), slopes(slope, x, 1e-4), atol=2e-2)


@pytest.mark.parametrize("level", [0.2, 0.3, 1.0, 2.4])
@pytest.mark.parametrize("dimension", [1, 2])
def test_curvature_at_the_centre_of_a_gaussian_is_steins_integral(dimension, level):
    """By Stein f̂_δ''(0) = E[r f'(r)]/(d δ²) with r/δ of the χ law; waves far shorter than δ too."""
    function = smoothed.radial(DROP_WAVE, Kernel("gaussian"), dimension, reach=0.1)

    def integrand(r):
        slope = DROP_WAVE.gradient(np.array([[r]]))[0, 0]
        return stats.chi(dimension, scale=level).pdf(r) * r * slope / (dimension * level**2)

    expected, _ = integrate.quad(integrand, 0, 9 * level, limit=1000, epsabs=1e-7)
    curvature = function.curvature(np.full((1, dimension), 1e-9), level)[0]
    assert curvature == pytest.approx(expected, rel=5e-3, abs=1e-4)


@pytest.mark.parametrize("dimension", [1, 2])
def test_curvature_at_the_centre_of_a_ball_is_the_slope_at_its_edge(dimension):
    """Gauss: the mean of Δf over the ball is the flux d f'(δ)/δ, so f̂_δ''(0) = f'(δ)/δ."""
    function = smoothed.radial(DROP_WAVE, Kernel("ball"), dimension, reach=0.2)
    for level in (0.1, 0.3, 0.6):
        expected = DROP_WAVE.gradient(np.array([[level]]))[0, 0] / level
        curvature = function.curvature(np.full((1, dimension), 1e-9), level)[0]
        assert curvature == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise_level": -1.0}, "noise_level=-1.0"),
        ({"noise_level": np.nan}, "noise_level=nan"),
        ({"noise_level": 1.0, "samples": 3}, "samples=3"),
        ({"noise_level": 1.0, "method": "magic"}, "method='magic'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        smooth(RASTRIGIN.value, ZERO, kernel=Kernel("ball"), **arguments)


def test_unknown_kernel_is_named():
    with pytest.raises(ValueError, match="kernel='box' must be one of ball"):
        Kernel("box")
