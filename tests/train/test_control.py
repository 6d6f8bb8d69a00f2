"""The noise level that a stage aims at."""

from __future__ import annotations

import math

import pytest
from conftest import configure

from igo.config.plan import make_plan
from igo.config.schema import Config
from igo.method.plan import Stage
from igo.noise.noise import Noise
from igo.train import control


def measured(variance: float, square: float = 4.0) -> Noise:
    return Noise(variance, None, square, batch_size=64, batches=8, sampling="disjoint")


def aims(config: Config) -> list[tuple[Stage, float]]:
    """Every stage and the δ that it aims at, with C² = 9 and ‖∇f‖ = 2 at the start."""
    plan = make_plan(config)
    return [(stage, control.aim(config, stage, measured(9.0))) for stage in plan.stages]


def test_a_stage_aims_at_its_part_of_the_first() -> None:
    config = configure("epochs=6", "batch_size=32")
    b_1 = make_plan(config).stages[0].b_m
    for stage, delta in aims(config):
        assert delta == pytest.approx(0.1 * math.sqrt(9 / b_1) * stage.phi_m, rel=1e-12)
