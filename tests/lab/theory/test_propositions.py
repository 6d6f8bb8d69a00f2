import numpy as np
import polars as pl
import pytest
from conftest import ROOT, rounded
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng
from scipy import optimize, stats

from lab.theory import propositions as props
from lab.theory.studies import movement
from lab.theory.studies.convexity import sample_widths
from lab.theory.studies.decay_rates import decay_rates


@given(a=st.floats(1.4143, 50), share=st.floats(1e-6, 1), r=st.floats(0.01, 10))
def test_delta_minus_is_the_smaller_root_of_its_quadratic(a, share, r):
    along = r * (np.sqrt(a**2 - 1) + share * (a - np.sqrt(a**2 - 1)))
    roots = np.roots([1.0, -2 * along, r**2 * (a**2 - 1)]).real
    assert props.delta_minus(along, 1.0, 1.0, r, a) == pytest.approx(roots.min(), rel=1e-5)


def test_random_widths_fill_the_exact_range_for_theta_below_a_right_angle():
    for a in (1.42, 1.7, 2.0, 4.0):
        _, d, cosine = sample_widths(default_rng(1), a)
        front = d[cosine > 0]
        low, high = props.exact_width_bounds(a)
        assert low * (1 - 1e-9) <= front.min() < 1.1 * low
        assert 0.8 * high < front.max() <= high < props.printed_width_bound(a)
        assert (d[cosine < 0] < 1).any()  # the printed lower bound needs θ < π/2


def test_existence_probability_is_the_share_of_directions_in_the_plane():
    angle = default_rng(0).uniform(0, np.pi, 400_000)
    for a, distance, length in ((1.5, 1.4, 0.95), (2.0, 1.99, 0.99), (3.0, 2.9, 1.0)):
        real = np.isfinite(
            props.delta_minus(np.full(angle.shape, distance), length, np.cos(angle), 1.0, a)
        ).mean()
        assert props.existence_probability(distance, length, a) == pytest.approx(real, abs=4e-3)
    assert props.existence_probability(0.5, 1.0, 2.0) == 0


def test_the_share_of_pairs_with_a_probability_above_0_is_its_closed_form():
    """−d ln(‖x* − x‖‖u‖/a r) has the law Γ(2), as the radii of two uniform points in a ball."""
    table = pl.read_csv(ROOT / "results" / "theory" / "existence_probability.csv")
    for d, a, share in table.select("d", "a", "positive").iter_rows():
        expected = stats.gamma(2).cdf(-d / 2 * np.log1p(-1 / a**2))
        assert share == pytest.approx(expected, abs=5e-3)


@given(stages=st.integers(1, 60), power=st.floats(0.05, 2))
def test_optimal_levels_telescope(stages, power):
    expected = [2 * (1 - m / stages) ** power for m in range(stages)]
    np.testing.assert_allclose(props.optimal_levels(2.0, stages, power), expected)


@pytest.mark.parametrize("p", [0.5, 1, 2, 8])
def test_a_rate_is_allowed_up_to_the_a_whose_printed_floor_it_is(p):
    smallest = decay_rates(p, 200).min()
    assert smallest == rounded(0.5**p)  # at m = M − 1
    root = optimize.brentq(lambda a: 1 / props.printed_width_bound(a) - smallest, 2**0.5, 9)
    assert props.largest_a(smallest) == pytest.approx(root)


@pytest.mark.parametrize("level", [0.0, 0.2, 0.7])
@pytest.mark.parametrize("draw", [movement.wave, movement.bowl])
def test_minimisers_are_those_of_a_bounded_search(draw, level):
    for seed in range(5):
        function = draw(default_rng(seed))
        minimum = movement.minimiser(function, level)
        grid = np.linspace(*function.domain, 3001)[:, None]
        best = grid[function.value(grid, level).argmin(), 0]
        search = optimize.minimize_scalar(
            lambda x, f=function: f.value(np.array([[x]]), level).item(),
            bounds=(best - 0.01, best + 0.01),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert minimum == pytest.approx(search.x, abs=1e-5)


def test_the_noise_of_a_case_of_3_2_is_delta_minus_of_some_x_and_u():
    rng = default_rng(7)
    for c in [case for _ in range(50) if (case := movement.case_of_3_2(rng, 0.1))]:
        along = (c["delta"] ** 2 + c["r"] ** 2 * (c["a"] ** 2 - 1)) / (2 * c["delta"])
        assert along <= c["a"] * c["r"] * (1 + 1e-9)
        assert props.delta_minus(along, 1.0, 1.0, c["r"], c["a"]) == pytest.approx(c["delta"])
