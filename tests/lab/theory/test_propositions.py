import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from lab.theory import laboratory
from lab.theory import propositions as props
from lab.theory.studies.convexity import sample_widths
from lab.theory.studies.decay_rates import SCHEDULES, STUDY, decay_rates, powers_are_allowed
from lab.theory.studies.movement import movement_checks

A = st.floats(1.4143, 50)


@given(a=A, share=st.floats(0, 1), r=st.floats(0.01, 10))
def test_delta_minus_is_the_smaller_root_of_its_quadratic(a, share, r):
    along = r * (np.sqrt(a**2 - 1) + share * (a - np.sqrt(a**2 - 1)))
    delta = props.delta_minus(np.array([along]), np.array([1.0]), np.array([1.0]), r, a)[0]
    if np.isnan(delta):  # the double root, lost to rounding
        assert share < 1e-6
        return
    roots = np.roots([1.0, -2 * along, r**2 * (a**2 - 1)]).real
    assert delta == pytest.approx(roots.min(), rel=1e-5)


def test_the_noise_of_proposition_3_1_brings_the_point_into_the_ball():
    """What δ⁻ is for: x moved by δ⁻u (θ < π/2) lies in B(x*; r)."""
    rng = np.random.default_rng(0)
    for a in (1.5, 2.0, 4.0):
        to_star = rng.standard_normal((50_000, 3))
        length = a * rng.random((50_000, 1))
        to_star *= length / np.linalg.norm(to_star, axis=1, keepdims=True)
        u = rng.standard_normal((50_000, 3))
        u *= rng.random((50_000, 1)) / np.linalg.norm(u, axis=1, keepdims=True)
        norms = np.linalg.norm(u, axis=1)
        cosine = (to_star * u).sum(1) / (length[:, 0] * norms)
        delta = props.delta_minus(length[:, 0], norms, cosine, 1.0, a)
        kept = np.isfinite(delta) & (cosine > 0)
        moved = to_star[kept] - delta[kept, None] * u[kept]
        assert kept.sum() > 0
        assert np.linalg.norm(moved, axis=1).max() <= 1 + 1e-9


@pytest.mark.parametrize("a", [1.42, 1.7, 2.5, 4.0])
def test_random_widths_stay_within_the_bounds_where_the_text_proves_them(a):
    _, d, cosine = sample_widths(np.random.default_rng(1), a)
    front = d[cosine > 0]
    low, high = props.printed_width_bounds(a)
    exact_low, exact_high = props.exact_width_bounds(a)
    assert front.min() >= max(low, exact_low * (1 - 1e-9))
    assert front.max() <= exact_high < high
    assert front.max() > 0.8 * exact_high
    assert (d[cosine < 0] < 1).any()  # the finding: the printed lower bound needs θ < π/2


def test_existence_probability_is_the_share_of_directions_in_the_plane():
    angle = np.random.default_rng(0).uniform(0, np.pi, 400_000)
    for a, distance, length in ((1.5, 1.4, 0.95), (2.0, 1.99, 0.99), (3.0, 2.9, 1.0)):
        real = np.isfinite(
            props.delta_minus(np.full(angle.shape, distance), length, np.cos(angle), 1.0, a)
        ).mean()
        assert props.existence_probability(distance, length, 1.0, a) == pytest.approx(
            real, abs=4e-3
        )


def test_existence_probability_vanishes_for_large_a_and_where_no_root_exists():
    assert props.existence_probability(100.0, 1.0, 1.0, 100.0) < 0.01
    assert props.existence_probability(0.5, 1.0, 1.0, 2.0) == 0


def test_random_functions_never_violate_proposition_3_2():
    records = movement_checks(np.random.default_rng(7), 150)
    met = [r for r in records if r["needed"] <= r["delta"]]
    assert len(met) > 50
    assert all(r["moved"] <= r["allowed"] + 1e-9 for r in met)


def test_sufficient_noise_level_is_the_printed_quotient():
    assert props.sufficient_noise_level((0.3, 0.2), sigma=2.0, rate=0.7) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="rate=1"):
        props.sufficient_noise_level((0.1, 0.1), 1.0, 1)


@given(stages=st.integers(1, 60), power=st.floats(0.05, 1))
def test_optimal_decay_rates_telescope(stages, power):
    rates = props.optimal_decay_rates(stages, power)
    expected = [(1 - m / stages) ** power for m in range(1, stages + 1)]
    np.testing.assert_allclose(np.cumprod(rates), expected, atol=1e-12)
    assert rates[-1] == 0


@given(rate=st.floats(0.01, 0.99))
def test_largest_a_is_where_the_lower_bound_of_one_over_d_meets_the_rate(rate):
    a = props.largest_a(rate)
    assert 1 / props.printed_width_bounds(a)[1] == pytest.approx(rate, abs=1e-9)
    assert (props.largest_a(rate, printed=False) - 1) / props.largest_a(
        rate, printed=False
    ) == pytest.approx(rate)


def test_only_powers_up_to_one_keep_half_the_noise_each_stage():
    smallest = {
        p: decay_rates(profile, 200, **parameters).min()
        for p in (0.1, 0.5, 0.9, 1, 2, 4, 8)
        for profile, parameters in [SCHEDULES[f"p = {p}"]]
    }
    for p, rate in smallest.items():
        assert rate == pytest.approx(0.5**p, rel=1e-12)  # at m = M - 1: (1/2)^p
    assert [p for p, rate in smallest.items() if rate >= 0.5] == [0.1, 0.5, 0.9, 1]


@pytest.mark.parametrize("a", [1.0, 1.4142])
def test_a_at_most_root_two_is_refused(a):
    with pytest.raises(ValueError, match="√2"):
        props.printed_width_bounds(a)


def test_no_sampled_width_at_a_2_lets_p_1_in():
    """γ of p = 1 is ½ at its smallest, and Prop. 3.3 asks for γ > 1/d."""
    rng = np.random.default_rng(0)
    distance = 2 * np.sqrt(rng.random(200_000))  # inside N(x*; a r), r = 1
    cosine, u = np.cos(rng.uniform(0, np.pi / 2, 200_000)), rng.random(200_000)
    delta = props.delta_minus(distance, u, cosine, 1.0, 2.0)
    widths = props.width(1.0, 2.0, delta[np.isfinite(delta)])
    assert len(widths) > 100
    assert widths.max() < 2
    assert widths.max() == pytest.approx(2, abs=0.1)
    assert (1 / widths > 0.5).all()
    assert props.optimal_decay_rates(200, 1.0)[:-1].min() == 0.5


def test_the_row_excludes_p_1_at_a_2_alone():
    frames = laboratory.read_frames(ROOT / "results" / "theory", STUDY.frames)
    seen = powers_are_allowed.look(frames)
    refused = [check.what for check in seen.parts if check.holds is False]
    assert refused == ["smallest γ_m less 0.5, p = 1, a_m = 2"]
    assert all(check.holds is False for check in seen.controls)
