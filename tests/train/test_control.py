"""The noise level that a stage aims at, and the momentum that makes it."""

from __future__ import annotations

import math

import pytest
from conftest import TINY, configure, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from trained import prepared, train

from igo.config.plan import make_plan
from igo.config.schema import Config
from igo.ground.errors import UserError
from igo.method import momentum
from igo.method.plan import Stage
from igo.noise import noise
from igo.noise.noise import Noise
from igo.train import control, measure


def measured(variance: float, square: float = 4.0) -> Noise:
    return Noise(variance, None, square, batch_size=64, batches=8, sampling="disjoint")


def aims(config: Config) -> list[tuple[Stage, float]]:
    """Every stage and the δ that it aims at, with C² = 9 and ‖∇f‖ = 2 at the start."""
    plan = make_plan(config)
    return [(stage, control.aim(config, plan, stage, measured(9.0))) for stage in plan.stages]


def test_a_stage_aims_at_its_part_of_the_first() -> None:
    config = configure("epochs=6", "batch_size=32")
    b_1 = make_plan(config).stages[0].b_m
    for stage, delta in aims(config):
        assert delta == pytest.approx(0.1 * math.sqrt(9 / b_1) * stage.phi_m, rel=1e-12)


def test_with_another_exponent_it_aims_at_what_eta_and_b_make() -> None:
    config = configure("epochs=6", "schedule.noise_exponent=1", "schedule.final_updates=2")
    *stages, (last, at_the_end) = aims(config)
    for stage, delta in stages:
        assert delta == pytest.approx(stage.eta_m * math.sqrt(9 / stage.b_m), rel=1e-12)
    assert (last.phi_m, at_the_end) == (0, 0)


@pytest.mark.parametrize("optimizer", ["shb", "nshb"])
def test_momentum_alone_follows_the_noise_curve(optimizer: str) -> None:
    config = configure(
        f"optimizer={optimizer}", "optimizer.decay_momentum=true", "epochs=12", "batch_size=32"
    )
    plan = make_plan(config)
    rates = momentum.rates(plan, optimizer, 0.9, measured(9.0))
    betas = [beta for _, beta in rates.values()]
    assert betas[0] == pytest.approx(0.9, abs=1e-9)
    assert betas == sorted(betas, reverse=True)
    for stage, delta in aims(config):
        eta, beta = rates[stage.stage]
        level = noise.noise_level(
            eta, stage.b_m, 9.0, optimizer=optimizer, momentum=beta, gradient_norm=2.0
        )
        assert level == pytest.approx(delta, rel=1e-9)
        assert stage.b_m == plan.stages[0].b_m
        assert eta == 0.1 or beta == 0


@settings(deadline=None, max_examples=examples(100))
@given(
    beta=st.floats(0.0, 0.99), eta=st.floats(1e-3, 1), c2=st.floats(0.1, 1e4), k=st.floats(0, 50)
)
@pytest.mark.parametrize("optimizer", ["shb", "nshb"])
def test_momentum_for_inverts_the_noise_level(
    optimizer: str, beta: float, eta: float, c2: float, k: float
) -> None:
    target = noise.noise_level(eta, 32, c2, optimizer=optimizer, momentum=beta, gradient_norm=k)
    root = noise.momentum_for(
        target, eta, 32, c2, optimizer=optimizer, gradient_norm=k, largest=0.999
    )
    again = noise.noise_level(eta, 32, c2, optimizer=optimizer, momentum=root, gradient_norm=k)
    assert again == pytest.approx(target, rel=1e-6)


def test_momentum_never_rises_above_the_stage_before() -> None:
    high = noise.momentum_for(9.0, 0.1, 4, 8.0, optimizer="shb", gradient_norm=3.0, largest=0.5)
    assert high == 0.5


def test_without_any_noise_at_the_start_there_is_nothing_to_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configure(*TINY, "optimizer=shb", "optimizer.decay_momentum=true")
    monkeypatch.setattr(measure, "mini_batch", lambda *_, **__: measured(0.0))
    with pytest.raises(UserError, match="C² is 0 at the start"):
        train(prepared(config))
