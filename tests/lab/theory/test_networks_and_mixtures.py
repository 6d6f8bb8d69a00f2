"""What the newer studies stand on, against sampling, quadrature, differences and closed forms."""

import numpy as np
import pytest
import torch
from differences import slopes
from scipy import integrate, stats

from lab.theory import teacher
from lab.theory.implicit import length_shares
from lab.theory.kernels import Kernel
from lab.theory.ripple import Ripple
from lab.theory.smoothing import smooth
from lab.theory.studies import escape, langevin, tails


def test_teachers_loss_is_the_mean_over_inputs():
    w = teacher.initial(3, 4, seed=0)
    x = np.random.default_rng(1).standard_normal((400_000, 4))
    for weights, closed in zip(w, teacher.loss(w), strict=True):
        gap = np.maximum(x @ weights.T, 0).sum(1) - np.maximum(x, 0).sum(1)
        sampled = gap**2 / 2
        assert abs(sampled.mean() - closed) < 5 * sampled.std() / np.sqrt(sampled.size)


def test_teachers_gradient_is_the_difference_of_its_loss():
    w = teacher.initial(2, 5, seed=3)
    step = 1e-6
    for index in ((0, 1), (2, 2), (4, 0)):
        up, down = w.copy(), w.copy()
        up[:, *index] += step
        down[:, *index] -= step
        slope = (teacher.loss(up) - teacher.loss(down)) / (2 * step)
        np.testing.assert_allclose(teacher.gradient(w)[:, *index], slope, rtol=1e-6, atol=1e-8)


def test_teacher_is_a_global_minimum_and_so_is_every_order_of_its_units():
    w = np.stack([np.eye(6), np.eye(6)[[3, 1, 0, 2, 5, 4]]])
    np.testing.assert_allclose(teacher.loss(w), 0, atol=1e-12)
    np.testing.assert_allclose(teacher.gradient(w), 0, atol=1e-7)


def test_a_mini_batch_gradient_is_that_of_autograd_and_unbiased():
    w, rng = teacher.initial(1, 3, seed=0), np.random.default_rng(2)
    gradient = teacher.sampled_gradient(w, 16, np.random.default_rng(7))
    x = torch.from_numpy(np.random.default_rng(7).standard_normal((16, 3)))
    point = torch.from_numpy(w[0]).requires_grad_()
    gap = torch.relu(x @ point.T).sum(1) - torch.relu(x).sum(1)
    (slope,) = torch.autograd.grad((gap**2 / 2).mean(), point)
    np.testing.assert_allclose(gradient[0], slope.numpy(), atol=1e-12)
    many = teacher.sampled_gradient(np.repeat(w, 20_000, 0), 4, rng)
    error = many.std(0) / np.sqrt(len(many))
    assert (np.abs(many.mean(0) - teacher.gradient(w)[0]) < 5 * error).all()


@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_mixtures_slope_is_the_difference_of_its_energy(sigma):
    x = np.random.default_rng(0).uniform(-5, 5, (20, 2))
    slope = slopes(lambda y: langevin.MIXTURE.energy(y, sigma), x, 1e-6)
    np.testing.assert_allclose(langevin.MIXTURE.slope(x, sigma), slope, atol=1e-6)


def test_noised_mixture_is_the_density_smoothed():
    """p_σ(x) = E p(x − σu), by Monte Carlo."""
    x = np.array([[0.3, 1.0], [-3.0, 2.0]])
    smoothed = smooth(
        lambda y: np.exp(-langevin.MIXTURE.energy(y)), x, 0.8, Kernel("gaussian"), samples=2**14
    )
    noised = np.exp(-langevin.MIXTURE.energy(x, 0.8))
    assert (np.abs(smoothed.value - noised) < 5 * smoothed.standard_error).all()


def test_of_one_gaussian_both_ways_of_smoothing_have_slopes_in_a_known_ratio():
    """−log p of N(0, s²) is a bowl: smoothing leaves its slope x/s², noise makes it x/(s² + σ²)."""
    single = type(langevin.MIXTURE)(np.ones(1), np.zeros((1, 2)), np.array([0.5]))
    x = np.array([[1.0, -2.0]])
    np.testing.assert_allclose(single.slope(x, 1.0), x / 1.25)
    np.testing.assert_allclose(single.smoothed_slope(x, 1.0), x / 0.25, rtol=2e-3)


def test_the_first_mode_is_the_global_minimum():
    energy = langevin.MIXTURE.energy(langevin.CENTRES)
    assert energy.argmin() == 0
    assert np.diff(np.sort(energy))[0] > 0.3


@pytest.mark.parametrize("dimension", [2, 10])
@pytest.mark.parametrize("level", [0.1, 0.9])
def test_ripple_in_a_ball_of_more_dimensions_is_the_integral_over_its_marginal(dimension, level):
    problem = Ripple()
    marginal = stats.rdist(dimension + 1)
    for x in (-0.4, 0.02, 0.3):
        expected, _ = integrate.quad(
            lambda u, x=x: marginal.pdf(u) * float(problem.gradient(np.array(x - level * u))),
            -1,
            1,
            points=[np.clip(x / level, -1, 1)],
            limit=200,
        )
        slope = float(problem.gradient(np.array(x), level, dimension))
        assert slope == pytest.approx(expected, abs=1e-6)
    sample = Kernel("ball").sample(20_000, dimension, np.random.default_rng(0))[:, 0]
    assert stats.kstest(sample, marginal.cdf).pvalue > 0.001


def test_the_ripple_of_the_escapes_has_other_minima_and_its_basin_ends_at_a_maximum():
    x = np.linspace(0, 1, 100_001)
    value = escape.PROBLEM.value(x)
    up = np.diff(value) > 0
    minima = np.flatnonzero(~up[:-1] & up[1:])
    maxima = np.flatnonzero(up[:-1] & ~up[1:])
    assert len(minima) == 2  # beside the global one at 0
    assert x[maxima[0]] == pytest.approx(escape.BASIN, abs=1e-4)


def test_stage_lengths_by_hand():
    phi, rates = np.array([1.0, 0.5]), np.array([1.0, 1.0])
    np.testing.assert_allclose(length_shares(phi, rates), [1 / 5, 4 / 5])
    # 1/(1 − 0.2) = 1.25 and 1/(0.25 − 0.2) = 20
    np.testing.assert_allclose(length_shares(phi, rates, 0.2), [1.25 / 21.25, 20 / 21.25])
    # with the decay in η: 1/(0.25 − 0.2·0.5) = 1/0.15
    shares = length_shares(phi, phi, 0.2)
    np.testing.assert_allclose(shares[1] / shares[0], (1 - 0.2) / 0.15)
    with pytest.raises(ValueError, match=r"h=0\.25"):
        length_shares(phi, rates, 0.25)


def test_typical_noise_of_gaussian_draws_falls_as_the_root_of_the_batch():
    rows = tails.typical_noise(2.0, np.random.default_rng(0))
    # levy_stable with α = 2 is N(0, 2): the median of |mean of b| is 0.6745·√(2/b)
    for row in rows:
        assert row["size"] == pytest.approx(0.6745 * np.sqrt(2 / row["b"]), rel=0.1)
