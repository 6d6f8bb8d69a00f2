"""Question (ii): grids of a known exponent, and the tests of the fit by SciPy and statsmodels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import curve_fit
from scipy.stats import f as f_distribution
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from lab.exponent import stream

LOGS = np.log(np.array(stream.CELLS).T)


def grid(rho: float, spread: float, seed: int = 0, bend: float = 0.0) -> np.ndarray:
    """Losses (16, 8) of a cubic in ln η − ρ ln b; ``bend`` adds what no such cubic has."""
    random = np.random.default_rng(seed)
    x = LOGS[0] - rho * LOGS[1]
    x = x - x.mean()
    curve = -0.5 - 0.3 * x + 0.05 * x**2 + 0.01 * x**3
    odd = bend * np.where(np.arange(16) % 2, 1, -1)
    return np.exp(curve[:, None] + odd[:, None] + spread * random.standard_normal((16, 8)))


@pytest.mark.parametrize(("rho", "true", "other"), [(0.5, "½", "1"), (1.0, "1", "½")])
def test_a_true_constant_is_confirmed_and_the_other_refuted(rho, true, other):
    judged = stream.judge(grid(rho, 0.03), studies=4)
    assert judged.fit.exponent.value == pytest.approx(rho, abs=0.05)
    assert judged.fit.constants[true].verdict == "confirmed"
    assert judged.fit.constants[other].verdict == "refuted"
    assert set(judged.power.values()) == {stream.Power(confirms=1.0, errs=0.0, refutes=1.0)}
    for half in judged.halves.values():
        assert half.low <= rho <= half.high


def test_an_exponent_between_refutes_both():
    judged = stream.judge(grid(0.75, 0.02), studies=1)
    assert {constant.verdict for constant in judged.fit.constants.values()} == {"refuted"}


def test_wide_intervals_are_undecided_and_so_is_the_power():
    judged = stream.judge(grid(0.5, 1.0), studies=10)
    assert {constant.verdict for constant in judged.fit.constants.values()} == {"undecided"}
    assert max(power.confirms for power in judged.power.values()) < 0.5


def test_a_grid_that_no_curve_fits_gives_no_verdict():
    judged = stream.judge(grid(0.5, 0.02, bend=0.1), studies=1)
    assert judged.fit.p_fit < 0.001
    assert {constant.verdict for constant in judged.fit.constants.values()} == {"undecided"}


def test_lack_of_fit_has_its_level_where_a_cubic_is_true():
    p = [stream.lack_of_fit(LOGS, np.log(grid(0.6, 0.05, seed)), 16 * 7)[1] for seed in range(200)]
    assert 0.01 < np.mean(np.array(p) <= 0.05) < 0.1


def test_the_fit_and_its_f_are_those_of_scipy_and_statsmodels():
    y = np.log(grid(0.8, 0.05, seed=3, bend=0.02))
    eta, b = np.repeat(LOGS[0], 8), np.repeat(LOGS[1], 8)

    def cubic(x, rho, *of):
        z = x[0] - rho * x[1]
        return of[0] + of[1] * z + of[2] * z**2 + of[3] * z**3

    (rho, *_), _ = curve_fit(cubic, (eta, b), y.ravel(), p0=[0.8, 0, 0, 0, 0])
    fitted = stream.fit_of(LOGS, y, 100, 0)
    assert fitted.exponent.value == pytest.approx(rho, abs=0.006)  # a grid of 0.01
    rho = fitted.exponent.value
    table = pd.DataFrame({"y": y.ravel(), "z": eta - rho * b, "cell": np.repeat(range(16), 8)})
    less = ols("y ~ z + I(z**2) + I(z**3)", table).fit()
    whole = ols("y ~ C(cell)", table).fit()
    squares = anova_lm(less, whole)["ss_diff"].iloc[1]  # on 12; ρ is fitted too, so on 11
    f = squares / 11 / whole.mse_resid
    assert fitted.f == pytest.approx(f, rel=1e-6)
    assert fitted.p_fit == pytest.approx(f_distribution.sf(f, 11, whole.df_resid), rel=1e-6)


def test_holm_is_statsmodels_and_goes_with_the_intervals():
    random = np.random.default_rng(1)
    for centre in (0.5, 0.62, 0.75, 0.86, 1.0):
        draws = centre + 0.06 * random.standard_normal(10_000)
        verdicts = stream.verdicts(draws, p_fit=0.5)
        p = [constant.p for constant in verdicts.values()]
        theirs = multipletests(p, method="holm")[1]
        assert [constant.adjusted for constant in verdicts.values()] == pytest.approx(list(theirs))
        for constant, adjusted in zip(verdicts.values(), theirs, strict=True):
            assert (constant.verdict == "refuted") == (adjusted <= 0.05)


def test_two_rates_fix_an_exponent_though_they_are_two_lines():
    """Two values of η: at ρ near 0 a cubic is a line of its own for each, and fits everything."""
    slow = np.array([eta <= stream.SLOW for eta, _ in stream.CELLS])
    for seed in range(5):
        y = np.log(grid(0.7, 0.01, seed))[slow]
        exponent = stream._of_half(LOGS[:, slow], y, 0)
        assert abs(exponent.value - 0.7) < 0.15
