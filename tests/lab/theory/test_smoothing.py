import numpy as np
import pytest
from scipy import special, stats

from lab.theory.smoothing import BALL, GAUSSIAN, PUBLISHED, in_ball, wave_left


def test_the_ball_is_uniform():
    for dimension in (1, 2, 10):
        sample = in_ball(20_000, dimension, np.random.default_rng(2))
        radius = np.linalg.norm(sample, axis=1)
        assert stats.kstest(radius**dimension, "uniform").pvalue > 0.001
        assert stats.kstest(sample[:, 0], stats.rdist(dimension + 1).cdf).pvalue > 0.001
        assert (sample**2).mean() == pytest.approx(BALL.second_moment(dimension), rel=0.03)


def test_damping_of_a_wave_is_the_mean_of_its_cosine():
    for kernel, dimension, law in (
        (GAUSSIAN, 3, stats.norm()),
        (BALL, 1, stats.uniform(-1, 2)),
        (BALL, 5, stats.rdist(6)),
    ):
        for t in (0.0, 0.3, 1.2, 3.0):
            expected = law.expect(lambda u, t=t: np.cos(t * u))
            assert kernel.cosine_mean(t, dimension) == pytest.approx(expected)


def test_what_the_published_kernels_leave_of_a_wave_is_the_closed_form():
    for t in (0.06, 0.7, 3.0):
        sine, cosine = special.sici(t)
        rayleigh = 1 - 2**0.5 * t * special.dawsn(t / 2**0.5)
        closed = {
            "gaussian": np.exp(-(t**2) / 2),
            "uniform": abs(np.sin(2 * t) / (2 * t)),
            "exponential": (1 + (1.5 * t) ** 2) ** -0.5,
            "rayleigh": np.hypot(rayleigh, t * (np.pi / 2) ** 0.5 * np.exp(-(t**2) / 2)),
            "cauchy": np.exp(-t),
            "levy": np.exp(-(t**0.5)),
            "pareto": np.hypot(np.cos(t) + t * (sine - np.pi / 2), np.sin(t) - t * cosine),
        }
        assert {name: wave_left(name, t) for name in PUBLISHED} == pytest.approx(closed, rel=1e-6)
