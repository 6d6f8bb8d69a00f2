"""The ripple of the study of escapes, and the lengths of its stages."""

import numpy as np
import pytest
from scipy import integrate, stats

from lab.theory.implicit import length_shares
from lab.theory.kernels import Kernel
from lab.theory.ripple import Ripple
from lab.theory.studies import escape


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
