"""The exponent of the noise law, found again where it is known, and against polynomial fits."""

from __future__ import annotations

import numpy as np
import pytest

from lab.study.noise_law import EXPONENTS, fit, left_over

ETA, B = (grid.ravel() for grid in np.meshgrid([0.1, 0.2, 0.4, 0.8], [8.0, 16.0, 32.0, 64.0]))


def losses(rho: float, noise: float, seeds: int, random: np.random.Generator) -> np.ndarray:
    """Losses with a minimum in the middle, as of training, that depend on η b^(-ρ) alone."""
    x = np.log(ETA) - rho * np.log(B)
    curve = 0.3 * (x - x.mean()) ** 2 - 0.4 * np.tanh(x - x.mean())
    return curve[:, None] + noise * random.standard_normal((16, seeds))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.75, 1.0])
def test_a_known_exponent_is_found_again(rho: float) -> None:
    law = fit(ETA, B, losses(rho, 0.01, 4, np.random.default_rng(1)))
    assert abs(law.exponent.value - rho) < 0.05
    assert law.explained > 0.98


def test_the_interval_holds_the_true_exponent_and_not_the_rival() -> None:
    """Twelve seeds: 95 % less what a percentile interval of few seeds lacks; 30 studies."""
    random = np.random.default_rng(2)
    exponents = [fit(ETA, B, losses(0.5, 0.05, 12, random), draws=300).exponent for _ in range(30)]
    inside = [interval.low <= 0.5 <= interval.high for interval in exponents]
    assert np.mean(inside) >= 0.8
    assert not any(interval.low <= 1.0 <= interval.high for interval in exponents)


def test_squares_off_the_curve_are_those_of_a_polynomial_fit() -> None:
    y = losses(0.5, 0.1, 3, np.random.default_rng(3))
    ours = left_over(np.log(np.stack([ETA, B])), y)
    for index in range(0, len(EXPONENTS), 40):
        x = np.log(ETA) - EXPONENTS[index] * np.log(B)
        _, theirs, *_ = np.polyfit(x, y, 3, full=True)
        if len(theirs):  # none where x has too few values
            np.testing.assert_allclose(ours[index], theirs, rtol=1e-6)


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_squares_of_two_rates_are_those_of_least_squares(rho: float) -> None:
    """At ρ = 0 two values of η give a parabola two free values, not three."""
    two = np.isin(ETA, [0.4, 0.8])
    logs, y = np.log(np.stack([ETA, B]))[:, two], losses(0.5, 0.1, 3, np.random.default_rng(3))[two]
    x = logs[0] - rho * logs[1]
    solution = np.linalg.lstsq(np.vander(x, 3), y, rcond=1e-9)[0]
    theirs = ((y - np.vander(x, 3) @ solution) ** 2).sum(axis=0)
    ours = left_over(logs, y, degree=2)[list(EXPONENTS).index(rho)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_what_no_curve_explains_is_said_to_be_so() -> None:
    law = fit(ETA, B, np.random.default_rng(4).standard_normal((16, 4)))
    assert law.explained < 0.8


def test_too_little_is_refused() -> None:
    with pytest.raises(ValueError, match="4 settings"):
        fit(ETA[:4], B[:4], np.zeros((4, 2)))
    with pytest.raises(ValueError, match="16 settings"):
        fit(B / 10, B, np.zeros((16, 2)))
