"""Configurations that the documentation allows: each trains a step.

What is right is written here from the documented ranges (README, `--help`), not taken from the
rules. What is wrong is in tests/config/test_messages.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Quiet, configure
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from trained import prepared

from igo.config.plan import make_plan
from igo.train import loop
from igo.train.record import Progress, Training

pytestmark = pytest.mark.faults
Settings = dict[str, object]

GROUPS = {
    "schedule": [
        "constant", "graduated", "polynomial", "linear", "step", "exponential", "cosine",
        "cosine_power", "diminishing",
    ],
    "optimizer": ["sgd", "shb", "nshb"],
}  # fmt: skip
PROFILE: dict[str, dict[str, st.SearchStrategy[object]]] = {
    "graduated": {"p": st.floats(1e-3, 1)},
    "polynomial": {"p": st.floats(1e-3, 20)},
    "exponential": {"schedule.decay": st.floats(0.5, 0.999)},
    "cosine_power": {"schedule.power": st.floats(1.001, 1e9)},
}


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    """As they are typed: few digits, the ends among them."""
    return st.floats(low, high).map(lambda x: float(f"{x:.3g}")).filter(lambda x: low <= x <= high)


@st.composite
def right(draw: st.DrawFn) -> Settings:
    """Settings that the documentation allows, small enough to train a step in a moment."""
    n = draw(st.integers(12, 96))
    epochs = draw(st.integers(1, 12))
    b_1 = draw(st.integers(1, n))
    profile = draw(st.sampled_from(GROUPS["schedule"]))
    optimizer = draw(st.sampled_from(GROUPS["optimizer"]))
    chosen: Settings = {
        "schedule": profile,
        "optimizer": optimizer,
        "dataset.samples": n,
        "model.width": draw(st.integers(1, 6)),
        "epochs": epochs,
        "batch_size": b_1,
        "max_batch_size": draw(st.sampled_from([None, b_1, n, 5 * n])),
        "learning_rate": draw(floats(1e-6, 0.5)),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "noise.batches": draw(st.integers(2, 6)),
        "dataset.augment.crop": draw(st.integers(0, 7)),
        "dataset.augment.flip": draw(st.booleans()),
        "dataset.augment.rotation": draw(floats(0, 180)),
        "dataset.mean": [draw(floats(0, 1))],
        "dataset.std": [draw(floats(0.01, 10))],
        "schedule.final_updates": draw(st.integers(0, 3)),
        "schedule.stages": draw(st.integers(1, epochs)),
        "schedule.batch_multiple": draw(st.sampled_from([d for d in (1, 2, 3, 8) if not b_1 % d])),
        "optimizer.weight_decay": draw(floats(0, 0.1)),
        "engine.micro_batch_size": draw(st.sampled_from([None, 1, 7, 64])),
        "engine.precision": draw(st.sampled_from(["auto", "fp32", "bf16"])),
        **{name: draw(values) for name, values in PROFILE.get(profile, {}).items()},
    }
    if optimizer != "sgd":
        chosen["optimizer.momentum"] = draw(floats(0.01, 0.99))
    if profile not in ("step", "constant"):  # which say themselves what the split is
        chosen["split"] = draw(floats(0, 1))
    return chosen | draw(_of_the_schedule(profile))


@st.composite
def _of_the_schedule(draw: st.DrawFn, profile: str) -> Settings:
    if profile == "step":
        rates = {"schedule.kappa": draw(floats(0.3, 1)), "schedule.lam": draw(floats(1.01, 3))}
        return rates if draw(st.booleans()) else {"schedule.gamma": draw(floats(0.3, 0.99))}
    if profile == "diminishing" and draw(st.booleans()):
        return {"schedule.form": "inverse_time", "schedule.a": draw(floats(1e-3, 1e3))}
    return {}


def typed(chosen: Settings) -> list[str]:
    return [
        f"{name}={'null' if value is None else str(value).replace(' ', '')}"
        for name, value in chosen.items()
    ]


class OneStep(Exception):
    """Training got as far as its second update."""


def step(training: Training) -> int:
    """Measure C² and train to the second update; how many updates there were."""
    asked = 0

    def stop_after_one() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise OneStep

    bar, ignore = Quiet(), lambda _: None
    try:
        loop.train(training, Progress(), bar, ignore, stop_after_one)  # type: ignore[arg-type]
    except OneStep:
        asked -= 1
    return asked


def test_right_configurations_train_a_step(tmp_path: Path) -> None:
    @settings(  # the same ones each time; a failing one is made smaller
        derandomize=True, phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(right())
    def check(chosen: Settings) -> None:
        own = ("tracking=none", "engine.device=cpu", f"data_dir={tmp_path}")
        config = configure(*own, *typed(chosen))
        training = prepared(config)
        before = [p.detach().clone() for p in training.network.parameters()]
        assert step(training) == min(make_plan(config).updates, 1) == 1
        after = list(training.network.parameters())
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert all(bool(parameter.isfinite().all()) for parameter in after)

    check()
