"""Question (ii), second arm: grids of a known exponent and effect of epochs; statsmodels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import curve_fit
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from lab.exponent import sizes

N, ETA, B, EPOCHS = np.log(np.array(sizes.CELLS, dtype=float)).T


def grid(rho: float, of_epochs: float, spread: float = 0.02, of_n: float = 0.0) -> np.ndarray:
    """Ln losses (cells, 8) of a curved g, and of epochs and n."""
    x = ETA - rho * B
    x = x - x.mean()
    means = 0.3 * x + 0.05 * x**2 - of_epochs * (EPOCHS + 0.03 * EPOCHS**2) + of_n * N
    return means[:, None] + spread * np.random.default_rng(1).standard_normal((len(N), 8))


@pytest.mark.parametrize("rho", [0.5, 1.0])
def test_a_known_exponent_is_found_beside_an_effect_of_epochs(rho):
    fitted = sizes.fit(grid(rho, of_epochs=0.5), 3, 0, draws=200)
    assert fitted.low <= rho <= fitted.high
    assert fitted.high - fitted.low < 0.4
    assert fitted.p > 0.01


def test_at_one_n_epochs_are_eta_over_b_and_with_three_they_are_not():
    one_size = np.array([n == 512 for n, *_ in sizes.CELLS])
    assert np.corrcoef((ETA - B)[one_size], EPOCHS[one_size])[0, 1] == pytest.approx(-1)
    of_epochs_alone = -0.5 * EPOCHS[:, None] + 0.02 * np.random.default_rng(1).normal(size=(41, 8))
    assert sizes.fit(of_epochs_alone, 0, 0, draws=50).p < 1e-6
    assert sizes.fit(of_epochs_alone, 3, 0, draws=50).p > 0.01


def test_an_effect_of_n_needs_its_term():
    values = grid(0.5, of_epochs=0.3, of_n=0.2)
    assert sizes.fit(values, 3, 0, draws=50).p < 0.01
    fitted = sizes.fit(values, 3, 1, draws=200)
    assert fitted.p > 0.01
    assert fitted.low <= 0.5 <= fitted.high


def test_the_fit_and_its_f_are_those_of_scipy_and_statsmodels():
    values = grid(0.8, of_epochs=0.4)

    def surface(cells, rho, *of):
        z = cells[0] - rho * cells[1]
        powers = [z, z**2, z**3, cells[2], cells[2] ** 2, cells[2] ** 3]
        return of[0] + sum(weight * power for weight, power in zip(of[1:], powers, strict=True))

    cells = tuple(np.repeat(column, 8) for column in (ETA, B, EPOCHS))
    (rho, *_), _ = curve_fit(surface, cells, values.ravel(), p0=[0.8, *[0.0] * 7])
    fitted = sizes.fit(values, 3, 0, draws=10)
    assert fitted.exponent == pytest.approx(rho, abs=0.006)  # a grid of 0.01
    table = pd.DataFrame({
        "y": values.ravel(), "z": cells[0] - fitted.exponent * cells[1], "e": cells[2],
        "cell": np.repeat(range(len(N)), 8),
    })  # fmt: skip
    less = ols("y ~ z + I(z**2) + I(z**3) + e + I(e**2) + I(e**3)", table).fit()
    whole = ols("y ~ C(cell)", table).fit()
    squares = anova_lm(less, whole)["ss_diff"].iloc[1]
    free = len(N) - 8  # ρ is fitted too
    assert fitted.f == pytest.approx(squares / free / whole.mse_resid, rel=1e-6)
