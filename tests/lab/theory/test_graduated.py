"""Explicit (Algorithm 1) and implicit (Algorithms 3, 4) graduated optimization."""

import numpy as np
import pytest
from scipy import integrate, optimize

from lab.theory.explicit import (
    algorithm1,
    halving_levels,
    hazan_steps,
    optimal_levels,
    printed_steps,
)
from lab.theory.implicit import Constants, fitted_exponent, plan, rounds_for, run, steps_in_stage
from lab.theory.kernels import Kernel
from lab.theory.ripple import Ripple
from lab.theory.studies.implicit import ROUNDS, constants, rounds_and_errors

KNOWN = Constants(
    sigma=2.0,
    lipschitz=3.0,
    noise=4.0,
    learning_rate=0.1,
    batch_size=4.0,
    width=1.5,
    h3=0.1,
    h4=0.5,
)


@pytest.mark.parametrize("level", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("problem", [Ripple(), Ripple(bowl=1.0, wave_slope=0.0, left=1.0)])
def test_ripple_smoothing_is_the_integral(problem, level):
    for x in (-0.7, -0.1, 0.0, 0.03, 0.4):
        mean, _ = integrate.quad(
            lambda u, x=x: float(problem.value(np.array(x - level * u))) / 2,
            -1,
            1,
            points=[np.clip(x / level, -1, 1)],
            epsabs=1e-12,
        )
        assert float(problem.value(np.array(x), level)) == pytest.approx(mean, abs=1e-10)
        step = 1e-6
        up, down = (float(problem.value(np.array(x + s), level)) for s in (step, -step))
        slope = float(problem.gradient(np.array(x), level))
        assert slope == pytest.approx((up - down) / (2 * step), abs=1e-7)


def test_ripple_constants_hold_by_brute_force():
    problem = Ripple()
    x = np.linspace(-1, 1, 20_001)
    slopes = np.abs(np.diff(problem.value(x)) / np.diff(x))
    assert slopes.max() <= problem.lipschitz
    assert problem.value(x).min() == problem.value(np.zeros(1))[0] == 0
    for level in (0.2, 0.1, 0.02):
        inside = np.linspace(-level, level, 2001)
        bent = np.diff(problem.value(inside, level), 2) / (inside[1] - inside[0]) ** 2
        assert bent.min() >= problem.sigma(0.2) * (1 - 1e-6)


def test_algorithm_3_from_epsilon_by_hand():
    assert KNOWN.noise_level == pytest.approx(0.2)
    assert KNOWN.alpha0 == pytest.approx(min(2 / (4 * 3 * 0.1 * 4 * 2.5), 2 / (2 * 0.1 * 4)))
    assert rounds_for(KNOWN, 0.1, 1.0) == np.ceil(10 / KNOWN.alpha0)
    assert rounds_for(KNOWN, 0.1, 0.5) == np.ceil((10 / KNOWN.alpha0) ** 2)
    assert steps_in_stage(KNOWN, 0.2, 0.1) == np.ceil(0.5 / (4 * 0.04 - 0.1 * 0.1))


@pytest.mark.parametrize("split", [0.0, 0.415, 1.0])
@pytest.mark.parametrize("power", [0.25, 1.0])
def test_plan_follows_the_telescoped_noise_for_every_split(split, power):
    known = Constants(**(KNOWN.__dict__ | {"h3": 0.0}))
    stages = plan(known, 8, power, split)
    phi = (1 - np.arange(8) / 8) ** power
    np.testing.assert_allclose([s.noise_level for s in stages], 0.2 * phi)
    np.testing.assert_allclose([s.learning_rate for s in stages], 0.1 * phi**split)
    np.testing.assert_allclose([s.batch_size for s in stages], 4 * phi ** (-2 * (1 - split)))
    np.testing.assert_allclose([s.steps for s in stages], np.ceil(0.5 / (4 * 0.04 * phi**2)))


def test_steps_do_not_exist_once_the_accuracy_is_below_the_noise():
    with pytest.raises(ValueError, match="T_F does not exist"):
        plan(KNOWN, 100, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"sigma": 0.0}, "sigma=0.0"), ({"h4": -1.0}, "h4=-1.0"), ({"noise": np.inf}, "noise=inf")],
)
def test_constants_must_be_positive(change, message):
    with pytest.raises(ValueError, match=message):
        Constants(**(KNOWN.__dict__ | change))


def test_exact_mode_ends_at_the_minimiser_of_the_last_smoothed_function():
    problem, known = Ripple(), constants(Ripple())
    stages = plan(known, 20, 1.0)
    last = run(problem, stages, np.array([-0.2, 0.2]))
    minimum = optimize.minimize_scalar(
        lambda x: float(problem.value(np.array(x), stages[-1].noise_level)),
        bounds=(-0.05, 0.05),
        method="bounded",
        options={"xatol": 1e-10},
    )
    np.testing.assert_allclose(last, minimum.x, atol=1e-6)


def test_sgd_mode_is_the_exact_step_in_expectation():
    problem, known = Ripple(), constants(Ripple())
    stage = plan(known, 1, 1.0)[0]
    stages = [type(stage)(stage.learning_rate, stage.batch_size, stage.noise_level, 1)]
    start = np.full(400_000, 0.07)
    moved = run(problem, stages, start, "sgd", seed=3)
    exact = run(problem, stages, start[:1])[0]
    assert abs(moved.mean() - exact) < 4 * moved.std() / np.sqrt(moved.size)


@pytest.mark.parametrize("power", [0.25, 0.5, 0.75, 1.0])
def test_rounds_grow_as_theorem_3_4_says(power):
    rows = rounds_and_errors(power, "exact", ROUNDS[power][:4], seed=1)
    slope, _ = fitted_exponent([r["rounds"] for r in rows], [r["error"] for r in rows])
    assert slope == pytest.approx(1 / power, rel=0.1)


def test_fitted_exponent_of_a_power_law():
    errors = np.array([0.1, 0.05, 0.02, 0.01])
    assert fitted_exponent(3 * errors**-1.7, errors)[0] == pytest.approx(1.7)


def test_printed_rule_shrinks_and_hazans_grows():
    levels = halving_levels(1.0, 6)
    np.testing.assert_allclose(levels, [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32])
    assert [printed_steps(320.0, d) for d in levels] == [10, 3, 1, 1, 1, 1]
    steps = [hazan_steps(1.0, 2.0, d) for d in levels]
    assert steps == [128 * 4**m for m in range(6)]


def test_optimal_levels_end_above_zero():
    np.testing.assert_allclose(optimal_levels(2.0, 4, 0.5), 2 * np.sqrt([1, 3 / 4, 2 / 4, 1 / 4]))


def test_algorithm_1_converges_with_hazans_rule_and_not_with_the_printed_one():
    problem = Ripple(right=0.3, left=1.0, wave_slope=0.0, bowl=1.0)
    start = np.random.default_rng(0).uniform(-0.5, 0.5, (100, 1))
    final = {}
    for rule in ("printed", "hazan"):
        stages = algorithm1(
            problem.gradient,
            start,
            halving_levels(0.5, 5),
            sigma=1.0,
            lipschitz=2.3,
            kernel=Kernel("ball"),
            rule=rule,
            constant=0.05,
        )
        final[rule] = problem.value(stages[-1].x).mean()
    assert final["hazan"] < 0.01 < final["printed"]


def test_algorithm_1_stays_within_one_and_a_half_noise_levels_of_a_stages_start():
    start = np.zeros((50, 2))
    (stage,) = algorithm1(
        lambda x: np.full_like(x, -100.0),
        start,
        [0.2],
        sigma=1.0,
        lipschitz=1.0,
        kernel=Kernel("ball"),
        constant=0.01,
    )
    np.testing.assert_allclose(np.linalg.norm(stage.x, axis=1), 0.3)
