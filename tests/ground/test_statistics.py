"""The statistics against SciPy, statsmodels, counting, and simulation; on the committed results."""

import warnings
from functools import cache
from itertools import product

import numpy as np
import pytest
from numpy.random import default_rng
from scipy import stats

from igo.ground import statistics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # statsmodels warns of its own imports.
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.power import TTestPower
    from statsmodels.stats.weightstats import ttost_paired


@cache
def differences() -> list[np.ndarray]:
    """Of 100 pairs of settings with five seeds each, in steps of 0.1 points."""
    random = default_rng(0)
    return list(np.round(random.normal(random.normal(size=(100, 1)), 2, size=(100, 5)), 1))


def test_sign_flips_are_those_that_a_convolution_counts() -> None:
    for n in (1, 2, 5, 11, 23, 40):
        gaps = default_rng(n).integers(-10, 20, size=n)  # Some are ties or zeros.
        counts = np.array([1], dtype=object)  # Each sum from −Σ|d| to Σ|d| has one.
        for d in np.abs(gaps):
            counts = np.convolve(counts, [1, *[0] * (2 * d - 1), 1] if d else [2])
        sums = np.arange(len(counts)) - np.abs(gaps).sum()
        p = counts[np.abs(sums) >= abs(gaps.sum())].sum() / 2**n
        assert statistics.sign_flip(gaps / 10) == p
        assert statistics.sign_flip(np.arange(1.0, n + 1)) == statistics.least_p(n) == 2 ** (1 - n)


def test_sign_flips_of_many_are_drawn_and_of_none_are_nothing() -> None:
    gaps = default_rng(0).normal(0.4, size=60)
    p_of_t = stats.ttest_1samp(gaps, 0).pvalue
    assert statistics.sign_flip(gaps) == pytest.approx(p_of_t, rel=0.1, abs=1e-3)
    assert statistics.sign_flip(gaps) == statistics.sign_flip(-gaps)
    assert statistics.sign_flip([]) is None
    assert statistics.sign_flip([0.0, 0.0]) is None
    assert statistics.least_p(5) > 0.05 > statistics.least_p(6)


def test_holm_is_statsmodels() -> None:
    p = [stats.ttest_1samp(gaps, 0).pvalue for gaps in differences()]
    for family in (p[:1], p[:6], p[10:46], p, [0.02, 0.02, 0.5]):
        adjusted = multipletests(family, method="holm")[1]
        np.testing.assert_allclose(np.array(statistics.holm(family), float), adjusted, rtol=1e-12)
    assert statistics.holm([None, 0.02, None, 0.01]) == [None, 0.02, None, 0.02]
    assert statistics.holm([None]) == [None]


def test_equivalence_is_statsmodels() -> None:
    for gaps, margin in product(differences()[::5], (0.5, 1.0, 3.0)):
        p = ttost_paired(gaps, np.zeros(len(gaps)), -margin, margin)[0]
        assert statistics.equivalence(gaps, margin) == pytest.approx(p, rel=1e-9)
    assert statistics.equivalence([0.1, 0.1], 0.5) == 0
    assert statistics.equivalence([0.7, 0.7], 0.5) == 1


def test_what_is_detectable_has_its_power_by_statsmodels() -> None:
    for n, level in product((13, 20, 50), (0.05, 0.05 / 3, 0.05 / 36)):
        effect = statistics.detectable(0.7, n, level) / 0.7
        power = TTestPower().power(effect, n, level / 2, alternative="larger")
        assert power == pytest.approx(0.8, abs=1e-5)
    assert statistics.detectable(1.0, 5) is None  # Two of 2^5 signs are more than 5 %.
    assert statistics.detectable(1.0, 6, 0.05 / 6) is None


def test_what_few_seeds_detect_has_the_power_of_the_sign_flip_test() -> None:
    """8 pairs at 5 %/4 need all signs alike: P(z > -effect)^8 = 0.8."""
    for n in (7, 9):
        effect = stats.norm.ppf(0.8 ** (1 / 8))
        assert statistics.detectable(1.0, 8, 0.05 / 4) == pytest.approx(effect, rel=0.02)
        samples = default_rng(1).standard_normal((1500, n)) + statistics.detectable(1.0, n)
        are_detected = [statistics.sign_flip(sample) <= 0.05 for sample in samples]
        assert np.mean(are_detected) == pytest.approx(0.8, abs=0.04)
