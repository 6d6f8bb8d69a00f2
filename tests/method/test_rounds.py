"""Algorithm 3's M from ε: by enumeration, in a plan, in a run's settings, and refused."""

import math

import pytest
from conftest import configure

import igo
from igo.config.plan import make_plan
from igo.ground.errors import ConfigError
from igo.method.rounds import alpha_0, rounds

PLAN = {"n": 1000, "epochs": 40, "learning_rate": 0.1, "batch_size": 10, "p": 0.5}


@pytest.mark.parametrize("p", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("product", [2.0, 0.5, 0.3, 0.2, 0.1])
def test_m_is_the_smallest_whole_number_with_which_the_bound_reaches_epsilon(product, p):
    """The published M^p = 1/(α_0 ε); 1/(α_0 M^p) is the bound after M rounds."""
    m = next(m for m in range(1, 20_000) if m**p * product >= 1 - 1e-12)
    assert rounds(product / 4, 4.0, p) == m


def test_alpha_0_is_the_printed_minimum():
    known = {"learning_rate": 0.2, "batch_size": 9, "variance": 4.0}
    steep = alpha_0(**known, lipschitz=3, width=2, sigma=0.1)
    assert steep == pytest.approx(math.sqrt(9) / (4 * 3 * 0.2 * 2 * (1 + 2)))
    curved = alpha_0(**known, lipschitz=0.01, width=1, sigma=8)
    assert curved == pytest.approx(math.sqrt(9) / (math.sqrt(2 * 8) * 0.2 * 2))
    with pytest.raises(ValueError, match="sigma=0"):
        alpha_0(**known, lipschitz=1, width=1, sigma=0)


def test_a_plan_has_the_stages_that_epsilon_asks_for():
    """α_0 ε = 1/4 and p = 1/2: M = 16; the same plan as with stages=16."""
    assert igo.plan("graduated", **PLAN, algorithm3={"epsilon": 0.125, "alpha_0": 2}) == igo.plan(
        "graduated", **PLAN, stages=16
    )
    lengthened = igo.plan("graduated", **PLAN, algorithm3={"epsilon": 0.125, "alpha_0": 2, "h": 0})
    assert len(lengthened.stages) == 16


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"epsilon": 0.1}, "alpha_0 is missing: epsilon needs it"),
        ({"alpha_0": 2}, "epsilon is missing"),
        ({"epsilon": 0.1, "alpha_0": 0.001}, r"M = .* = 100,000,000 stages"),
        ({"epsilon": -1, "alpha_0": 2}, "epsilon=-1"),
        ({"epsilon": 1e-4, "alpha_0": 2}, r"M = .* = 25,000,000 stages for it, .* 4,000 batches"),
        (
            {"epsilon": 0.05, "alpha_0": 2, "h": 0},
            "100 stages for it, .* 40 epochs",
        ),
        ({"epsilon": 1e-200, "alpha_0": 1e-200}, "larger ε"),
        (
            {"epsilon": 0.125, "alpha_0": 2, "h": 0.3},
            r"h=0.3 .*ε_m > H_3 η_m\); use a smaller h or fewer stages",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(more, message):
    with pytest.raises(igo.PlanError, match=message):
        igo.plan("graduated", **PLAN, algorithm3=more)


def test_epsilon_chooses_the_stages_of_graduated_alone():
    chosen = {"epsilon": 0.1, "alpha_0": 2}
    with pytest.raises(igo.PlanError, match=r"stages=3 .* leave one out"):
        igo.plan("graduated", **PLAN, stages=3, algorithm3=chosen)
    with pytest.raises(igo.PlanError, match="belongs to profile graduated"):
        igo.plan("polynomial", **PLAN, algorithm3=chosen)


def test_a_run_takes_both_as_settings():
    ask = ("epochs=20", "p=0.5", "schedule.alpha_0=2")
    assert len(make_plan(configure(*ask, "schedule.epsilon=0.125")).stages) == 16
    with pytest.raises(ConfigError, match=r"schedule\.stages=5 .*: schedule\.epsilon chooses 16"):
        configure(*ask, "schedule.epsilon=0.125", "schedule.stages=5")
    with pytest.raises(ConfigError, match=r"schedule\.epsilon=1e-05 .*: Algorithm 3 needs M"):
        configure(*ask, "schedule.epsilon=0.00001")
