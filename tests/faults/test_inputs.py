"""Configurations that the documentation allows: each trains a step.

What is right is written here and in tests/method/test_schedule.py from the documented ranges
(README, `--help`), not taken from the rules. What is wrong is in tests/config/test_messages.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Quiet, configure
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_schedule import settings_of_plans
from trained import prepared, train

pytestmark = pytest.mark.faults
OTHERS = (
    "schedule=constant batch_size=128",
    "schedule=linear split=0.3 epochs=1 max_batch_size=null",
    "schedule=step schedule.kappa=0.3 schedule.lam=1.01",
    "schedule=step schedule.kappa=1 schedule.lam=3 batch_size=1",
    "schedule=diminishing schedule.final_updates=3 epochs=12 batch_size=2",
)


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    """As they are typed: few digits, the ends among them."""
    return st.floats(low, high).map(lambda x: float(f"{x:.3g}")).filter(lambda x: low <= x <= high)


@st.composite
def right(draw: st.DrawFn) -> list[str]:
    """Settings that the documentation allows, small enough to train a step in a moment."""
    plan = draw(settings_of_plans() | st.sampled_from(OTHERS).map(str.split))
    chosen: dict[str, object] = {
        **dict(setting.split("=") for setting in plan),
        "dataset.samples": draw(st.integers(128, 200)),
        "model.width": draw(st.integers(1, 6)),
        "learning_rate": draw(floats(1e-6, 0.5)),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "noise.batches": draw(st.integers(2, 6)),
        "dataset.augment.crop": draw(st.integers(0, 7)),
        "dataset.augment.flip": draw(st.booleans()),
        "dataset.augment.rotation": draw(floats(0, 180)),
        "dataset.mean": [draw(floats(0, 1))],
        "dataset.std": [draw(floats(0.01, 10))],
        "optimizer": draw(st.sampled_from(["sgd", "shb", "nshb"])),
        "optimizer.weight_decay": draw(floats(0, 0.1)),
        "engine.micro_batch_size": draw(st.sampled_from([None, 1, 7, 64])),
        "engine.precision": draw(st.sampled_from(["auto", "fp32", "bf16"])),
    }
    if chosen["optimizer"] != "sgd":
        chosen["optimizer.momentum"] = draw(floats(0.01, 0.99))
    return [
        f"{name}={'null' if value is None else str(value).replace(' ', '')}"
        for name, value in chosen.items()
    ]


class OneStep(Exception):
    """The first update is made."""


class Once(Quiet):
    """A progress bar that ends training at its first update."""

    def advance(self, *_: object) -> None:
        raise OneStep


def test_right_configurations_train_a_step(tmp_path: Path) -> None:
    @settings(  # the same ones each time; a failing one is made smaller
        derandomize=True, phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(right())
    def check(chosen: list[str]) -> None:
        own = ("tracking=none", "engine.device=cpu", f"data_dir={tmp_path}")
        training = prepared(configure(*own, *chosen))
        before = [p.detach().clone() for p in training.network.parameters()]
        with pytest.raises(OneStep):
            train(training, bar=Once())
        after = list(training.network.parameters())
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert all(bool(parameter.isfinite().all()) for parameter in after)

    check()
