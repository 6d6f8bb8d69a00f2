import numpy as np
import pytest
from scipy import stats

from lab.theory.smoothing import BALL, GAUSSIAN, in_ball


@pytest.mark.parametrize("dimension", [1, 2, 10])
def test_the_ball_is_uniform(dimension):
    sample = in_ball(20_000, dimension, np.random.default_rng(2))
    radius = np.linalg.norm(sample, axis=1)
    assert stats.kstest(radius**dimension, "uniform").pvalue > 0.001
    assert stats.kstest(sample[:, 0], stats.rdist(dimension + 1).cdf).pvalue > 0.001
    assert (sample**2).mean() == pytest.approx(BALL.second_moment(dimension), rel=0.03)


@pytest.mark.parametrize(
    ("kernel", "dimension", "law"),
    [(GAUSSIAN, 3, stats.norm()), (BALL, 1, stats.uniform(-1, 2)), (BALL, 5, stats.rdist(6))],
)
def test_damping_of_a_wave_is_the_mean_of_its_cosine(kernel, dimension, law):
    for t in (0.0, 0.3, 1.2, 3.0):
        expected = law.expect(lambda u, t=t: np.cos(t * u))
        assert kernel.cosine_mean(t, dimension) == pytest.approx(expected)
