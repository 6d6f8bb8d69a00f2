"""What a stage applies: open loop, by the momentum, and by the measured noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from conftest import configure, examples
from hypothesis import given, settings
from hypothesis import strategies as st

from igo.config.plan import make_plan
from igo.config.schema import Config
from igo.errors import UserError
from igo.method import noise
from igo.method.noise import Noise
from igo.train import control

Make = Callable[..., Config]


def measured(variance: float, square: float = 4.0) -> Noise:
    return Noise(variance, None, square, batch_size=64, batches=8, sampling="disjoint")


def walk(config: Config, variances: list[float]) -> list[control.Applied]:
    """Every stage as applied, C² at their starts given."""
    plan, before, walked = make_plan(config), None, []
    for stage, variance in zip(plan.stages, variances, strict=True):
        before = control.decide(config, stage, measured(variances[0]), measured(variance), before)
        walked.append(before)
    return walked


def test_open_loop_applies_the_plan_whatever_is_measured(make_config: Make) -> None:
    config = make_config("epochs=6", "batch_size=32")
    applied = walk(config, [9.0, 90.0, 0.1, 5.0, 5.0, 5.0])
    for stage, one in zip(make_plan(config).stages, applied, strict=True):
        assert (one.learning_rate, one.batch_size) == (stage.eta_m, stage.b_m)
        b_1 = make_plan(config).stages[0].b_m
        assert one.delta == pytest.approx(0.1 * math.sqrt(9 / b_1) * stage.phi_m, rel=1e-12)


@pytest.mark.parametrize("optimizer", ["shb", "nshb"])
def test_momentum_alone_follows_the_noise_curve(optimizer: str, make_config: Make) -> None:
    config = make_config(
        f"optimizer={optimizer}", "optimizer.decay_momentum=true", "epochs=12", "batch_size=32"
    )
    applied = walk(config, [9.0] * 12)
    betas = [one.momentum for one in applied]
    assert betas[0] == pytest.approx(0.9, abs=1e-9)
    assert betas == sorted(betas, reverse=True)
    b_1 = make_plan(config).stages[0].b_m
    first = noise.noise_level(0.1, b_1, 9.0, optimizer=optimizer, momentum=0.9, gradient_norm=2.0)
    for stage, one in zip(make_plan(config).stages, applied, strict=True):
        made = noise.noise_level(
            one.learning_rate, one.batch_size, 9.0,
            optimizer=optimizer, momentum=one.momentum, gradient_norm=2.0,
        )  # fmt: skip
        assert made == pytest.approx(first * stage.phi_m, rel=1e-9)
        assert one.batch_size == b_1
        assert one.learning_rate == 0.1 or one.momentum == 0


@settings(deadline=None, max_examples=examples(100))
@given(
    beta=st.floats(0.0, 0.99), eta=st.floats(1e-3, 1), c2=st.floats(0.1, 1e4), k=st.floats(0, 50)
)
@pytest.mark.parametrize("optimizer", ["shb", "nshb"])
def test_momentum_for_inverts_the_noise_level(
    optimizer: str, beta: float, eta: float, c2: float, k: float
) -> None:
    target = noise.noise_level(eta, 32, c2, optimizer=optimizer, momentum=beta, gradient_norm=k)
    found = noise.momentum_for(
        target, eta, 32, c2, optimizer=optimizer, gradient_norm=k, largest=0.999
    )
    again = noise.noise_level(eta, 32, c2, optimizer=optimizer, momentum=found, gradient_norm=k)
    assert again == pytest.approx(target, rel=1e-6)


def test_the_root_is_the_cubics_by_bisection() -> None:
    """u = 7.3: β̂(β) - u changes sign at the β that is returned."""
    per_batch, k2, eta = 2.0, 9.0, 0.5
    u = 7.3
    target = eta * math.sqrt(per_batch + u * (per_batch + k2))
    found = noise.momentum_for(
        target, eta, 4, 8.0, optimizer="shb", gradient_norm=3.0, largest=0.99
    )
    low, high = 0.0, 0.99
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if noise.momentum_factor(middle) < u else (low, middle)
    assert found == pytest.approx(low, rel=1e-9)
    assert noise.momentum_factor(0.9) == pytest.approx(81.9, rel=1e-12)


def test_momentum_never_rises_above_the_stage_before() -> None:
    high = noise.momentum_for(9.0, 0.1, 4, 8.0, optimizer="shb", gradient_norm=3.0, largest=0.5)
    assert high == 0.5


@settings(deadline=None, max_examples=examples(60))
@given(
    changes=st.lists(st.floats(0.3, 3.0), min_size=11, max_size=11),
    split=st.sampled_from([0.0, 0.3, 1.0]),
    limit=st.sampled_from([1.2, 2.0, 10.0]),
)
def test_feedback_keeps_its_promises(changes: list[float], split: float, limit: float) -> None:
    config = configure(
        "schedule.feedback=measured",
        f"schedule.feedback_limit={limit}",
        f"split={split}",
        "epochs=12",
        "batch_size=32",
    )
    variances = [50.0, *(50.0 * np.cumprod(changes)).tolist()]
    applied = walk(config, variances)
    plan = make_plan(config)
    for stage, one, variance in zip(plan.stages, applied, variances, strict=True):
        b_1 = plan.stages[0].b_m
        assert one.delta == pytest.approx(0.1 * math.sqrt(50 / b_1) * stage.phi_m, rel=1e-12)
        real = one.learning_rate * math.sqrt(variance / one.batch_size)
        assert one.delta_start == pytest.approx(real, rel=1e-9)
        assert 1 <= one.batch_size <= plan.n
    for stage, one, after in zip(plan.stages, applied, applied[1:], strict=False):
        assert after.batch_size >= one.batch_size
        ratio = after.learning_rate / one.learning_rate
        ratio *= math.sqrt(one.batch_size / after.batch_size)
        assert stage.gamma_m is not None
        assert stage.gamma_m / limit * (1 - 1e-9) <= ratio <= stage.gamma_m * limit * (1 + 1e-9)
        bounded = ratio <= stage.gamma_m / limit * (1 + 1e-9)
        assert bounded or after.delta_start <= one.delta_start * (1 + 1e-12)


def test_feedback_is_on_target_where_the_noise_changes_slowly(make_config: Make) -> None:
    config = make_config("schedule.feedback=measured", "epochs=12", "split=0.5")
    variances = [50.0 * 1.05**m for m in range(12)]
    for one in walk(config, variances):
        assert one.delta_start == pytest.approx(one.delta, rel=1e-9)


def test_feedback_with_constant_noise_is_the_plan(make_config: Make) -> None:
    config = make_config("schedule.feedback=measured", "epochs=12", "split=0.4")
    for stage, one in zip(make_plan(config).stages, walk(config, [7.0] * 12), strict=True):
        assert one.batch_size == stage.b_m
        assert one.learning_rate == pytest.approx(stage.eta_m, rel=1e-12)


def test_noise_that_vanishes_does_not_end_a_run_with_feedback(make_config: Make) -> None:
    """C² = 0 in a stage, as where every sample is fitted: bounded steps, no division by zero."""
    config = make_config("schedule.feedback=measured", "epochs=4", "split=1")
    applied = walk(config, [9.0, 0.0, 0.0, 9.0])
    for one, after in pairwise(applied):
        assert 0 < after.learning_rate <= 2 * one.learning_rate


@pytest.mark.parametrize("way", ["schedule.feedback=measured", "optimizer.decay_momentum=true"])
def test_without_any_noise_at_the_start_there_is_nothing_to_follow(
    way: str, make_config: Make
) -> None:
    optimizer = ["optimizer=shb"] if "momentum" in way else []
    config = make_config(*optimizer, way, "epochs=4")
    with pytest.raises(UserError, match="C² is 0 at the start"):
        walk(config, [0.0, 0.0, 0.0, 0.0])
