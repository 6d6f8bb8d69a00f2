"""The noise level that a stage aims at."""

from __future__ import annotations

import math

import pytest
from conftest import configure

from igo.config.plan import make_plan
from igo.config.schema import Config
from igo.method.plan import Stage
from igo.noise.noise import Noise
from igo.runs import plan_table
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


@pytest.mark.parametrize("optimizer", ["shb", "nshb"])
@pytest.mark.parametrize("split", [0.5, 1.0])
def test_a_plan_says_where_its_curve_is_not_that_of_heavy_ball(
    optimizer: str, split: float
) -> None:
    """A growing b lowers only the part of δ from C²; with b constant δ falls as φ does."""
    config = configure(f"optimizer={optimizer}", f"split={split}", "epochs=6")
    (first, delta_1), *_, (last, delta) = aims(config)
    on_curve = math.isclose(delta, delta_1 * last.phi_m / first.phi_m, rel_tol=1e-9)
    noted = any("δ_m/δ_1 is that of SGD" in n for n in plan_table.notes(config, make_plan(config)))
    assert (on_curve, noted) == (split == 1, split < 1)
    assert delta > delta_1 * last.phi_m * (1 - 1e-9)
