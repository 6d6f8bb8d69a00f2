"""The exponent's moments against sampling, closed forms, other solvers and traced level sets."""

import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov
from scipy.optimize import brentq

from lab.theory.exponent import heavy_ball, measured, predicted, streaming_regression

CURVATURES = np.array([1.0, 0.4, 0.1])
NOISE = np.array([0.5, 2.0, 1.0])


def within(samples, exact, errors=5):
    """Whether a mean over independent chains is the exact one, by its standard error."""
    error = samples.std(0, ddof=1) / np.sqrt(len(samples))
    return (np.abs(samples.mean(0) - exact) < errors * error).all()


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_moments_of_heavy_ball_are_those_of_simulated_chains(beta):
    """20,000 chains of SGD written as velocity and point; mean ± 5 standard errors."""
    eta, b, steps, rng = 0.7, 4, 60, np.random.default_rng(0)
    x, velocity = np.ones((20_000, 3)), np.zeros((20_000, 3))
    for _ in range(steps):
        velocity = beta * velocity + CURVATURES * x
        velocity += np.sqrt(NOISE / b) * rng.standard_normal(x.shape)
        x = x - eta * velocity
    exact = heavy_ball(CURVATURES, NOISE, eta, b, beta)
    assert within(CURVATURES * x**2 / 2, _loop(exact, np.ones(9), steps))


def test_moments_of_streaming_regression_are_those_of_simulated_chains():
    """Each chain draws its own inputs and labels; mean ± 5 standard errors."""
    eta, b, steps, rng = 0.4, 2, 25, np.random.default_rng(1)
    w = np.ones((10_000, 3))
    for _ in range(steps):
        x = np.sqrt(CURVATURES) * rng.standard_normal((len(w), b, 3))
        residual = np.einsum("nbd,nd->nb", x, w) - np.sqrt(0.3) * rng.standard_normal((len(w), b))
        w = w - eta * np.einsum("nb,nbd->nd", residual, x) / b
    exact = streaming_regression(CURVATURES, 0.3, eta, b)
    assert within(CURVATURES * w**2 / 2, exact.after(steps, np.ones(3)))


def _loop(moments, start, steps):
    """Return the losses after a loop of the recursion, its power taken by no eigenvalue."""
    v = start
    for _ in range(steps):
        v = moments.step @ v + moments.noise
    return moments.curvatures * v[: len(moments.curvatures)] / 2


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("h", [0.05, 1.0, 1.8])
def test_stationary_loss_of_heavy_ball_is_the_closed_form_and_lyapunovs(h, beta):
    b = 16
    eta = h * (1 + beta) / CURVATURES[0]
    losses = heavy_ball(CURVATURES, NOISE, eta, b, beta).stationary()
    edge = 2 * (1 + beta)
    closed = eta * NOISE * (1 + beta) / (2 * b * (1 - beta) * (edge - eta * CURVATURES))
    np.testing.assert_allclose(losses, closed, rtol=1e-9)
    for curvature, noise, loss in zip(CURVATURES, NOISE, losses, strict=True):
        step = np.array([[1 + beta - eta * curvature, -beta], [1, 0]])
        solved = solve_discrete_lyapunov(step, np.diag([eta**2 * noise / b, 0]))
        assert loss == pytest.approx(curvature * solved[0, 0] / 2, rel=1e-9)


@pytest.mark.parametrize("h", [0.05, 0.5, 1.5])
def test_stationary_loss_of_streaming_regression_is_the_closed_form(h):
    """Σ λ v = label_noise A/(1 − A) with A = Σ h_i/(b(2 − h_i) − h_i)."""
    b = 8
    steps = h * CURVATURES
    a = (steps / (b * (2 - steps) - steps)).sum()
    losses = streaming_regression(CURVATURES, 0.3, h, b).stationary()
    assert losses.sum() == pytest.approx(0.3 * a / (1 - a) / 2, rel=1e-9)


def test_a_loop_of_the_recursion_is_its_power():
    moments = streaming_regression(CURVATURES, 0.3, 0.9, 4)
    expected = _loop(moments, np.ones(3), 37)
    np.testing.assert_allclose(moments.after(37, np.ones(3)), expected, rtol=1e-9)


@pytest.mark.parametrize("world", ["quadratic", "momentum", "regression"])
@pytest.mark.parametrize("h", [0.1, 1.0, 1.7])
def test_the_measured_exponent_is_the_slope_of_a_traced_level_set(world, h):
    """Along the level set, found by root finding at b·e^{±0.01}, the slope has error O(0.01²)."""
    beta = 0.9 if world == "momentum" else 0.0
    eta, b, reach = h * (1 + beta), 64.0, 0.01

    def loss(rate, size):
        if world == "regression":
            return streaming_regression(CURVATURES, 1.0, rate, size).stationary().sum()
        return heavy_ball(CURVATURES, NOISE, rate, size, beta).stationary().sum()

    level = loss(eta, b)
    up, down = (
        brentq(lambda r, s=sign: loss(r, b * np.exp(s * reach)) - level, eta * 0.9, eta * 1.1)
        for sign in (1, -1)
    )
    traced = np.log(up / down) / (2 * reach)
    assert measured(loss, eta, b) == pytest.approx(traced, abs=1e-3)


def test_the_law_is_exact_for_one_mode_of_streaming_regression_at_any_batch():
    """The noise that grows with the error has no effect on ρ of one mode."""

    def loss(eta, b):
        return float(streaming_regression(np.ones(1), 1.0, eta, b).stationary().sum())

    for eta, b in ((0.2, 1.0), (0.8, 1.5), (1.5, 8.0)):
        assert measured(loss, eta, b) == pytest.approx(1 - eta / 2, abs=1e-6)


def test_the_gap_of_several_modes_falls_as_one_over_b():
    def gap(b):
        def loss(eta, size):
            return float(streaming_regression(CURVATURES, 1.0, eta, size).stationary().sum())

        shares = streaming_regression(CURVATURES, 1.0, 1.2, b).stationary()
        return predicted(shares, 1.2 * CURVATURES) - measured(loss, 1.2, b)

    assert gap(64.0) > 1e-5
    assert gap(64.0) / gap(640.0) == pytest.approx(10, rel=0.1)


def test_prediction_is_a_weighted_harmonic_mean():
    shares, steps = np.array([3.0, 1.0]), np.array([1.0, 0.2])
    assert predicted(shares, steps) == pytest.approx(1 / (0.75 / 0.5 + 0.25 / 0.9))
    assert predicted(shares, steps, 0.5) == pytest.approx(1 / (0.75 / (2 / 3) + 0.25 / (14 / 15)))


@pytest.mark.parametrize(("eta", "b"), [(2.01, 64), (1.0, 0.6)])
def test_a_step_that_diverges_is_an_error(eta, b):
    with pytest.raises(ValueError, match="diverges"):
        streaming_regression(np.ones(1), 1.0, eta, b).stationary()
