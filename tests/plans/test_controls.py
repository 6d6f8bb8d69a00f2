"""The controls of a plan, by η and b of each sample of both; test_curves walks through more."""

from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from conftest import updates_of

import igo

RAMP = {0: 64, 1 / 16: 128, 0.25: 256}
DATA: Any = {"n": 1000, "epochs": 12, "batch_size": 10}
PLANS = {
    "whole epochs": igo.plan("method4", n=997, epochs=10, batch_size=8, learning_rate=0.4),
    "stages inside epochs": igo.plan("graduated", p=0.5, stages=30, **DATA),
    "warm-up": igo.plan("cosine", warmup_samples=1500, max_batch_size=100, **DATA),
    "a stream on a grid": igo.plan(
        "constant", batch_size=RAMP, samples=250_000, stages=64, batch_multiple=32
    ),
    "clock of updates": igo.plan(
        rate="linear", clock="updates", n=1000, epochs=10, batch_size={0: 10, 0.3: 20, 0.6: 40}
    ),
    "stages of less than a batch": igo.plan(
        rate="cosine", batch_size={0: 32, 0.25: 64}, samples=3000
    ),
    "a part of an epoch": igo.plan("linear", n=1000, samples=7300, stages=4, batch_size=10),
}


def by_sample(plan: igo.Plan) -> np.ndarray[Any, Any]:
    """η, without a warm-up, and the mean b of each sample's row, in the order of training."""
    pairs: list[tuple[float, float]] = []
    for number, update in enumerate(updates_of(plan)):
        rate = plan.rates[number] if plan.rates else update.row.eta_m / plan.learning_rate
        pairs += [(rate, update.row.b_m)] * update.batch_size
    return np.array(pairs).T


def sizes_of(plan: igo.Plan) -> list[int]:
    return [update.batch_size for update in updates_of(plan)]


def at_starts(rates: np.ndarray[Any, Any], plan: igo.Plan) -> Any:
    """Of a number for each sample, those of the samples with which an update begins."""
    return rates[[*accumulate(sizes_of(plan)[:-1], initial=0)]]


def test_a_control_keeps_one_curve_at_each_sample() -> None:
    for plan in PLANS.values():
        rates, b = by_sample(plan)
        for kind, kept_rates, updates in (
            ("rate", rates, plan.updates),
            ("noise", rates * np.sqrt(b[0] / b), plan.samples / b[0]),
        ):
            control = plan.control(kind)
            assert (control.samples, control.n) == (plan.samples, plan.n)
            assert control.warmup_samples == plan.warmup_samples
            assert abs(control.updates - updates) <= 1
            control_rates, control_b = by_sample(control)
            # Each update has the η of its first sample, or of one just before it: a row's first
            # batches are the larger ones. Without a clock of updates η makes up for batches that
            # are not quite b_1.
            keeps_noise = kind == "noise" and not plan.rates
            roots = np.sqrt(control_b / control_b[0]) if keeps_noise else np.ones(len(control_b))
            unit = plan.arguments["batch_multiple"]
            expected = [
                at_starts(np.concatenate([kept_rates[:1].repeat(shift), kept_rates]), control)
                * at_starts(roots, control)
                for shift in (0, 0 if plan.rates else unit)
            ]
            actual = at_starts(control_rates, control)
            assert np.isclose(actual, expected, rtol=1e-12, atol=0).any(axis=0).all()
            sizes = np.array(sizes_of(control))
            assert not any(sizes % unit)
            # Each epoch of a data set has a whole number of updates.
            assert np.ptp(sizes) <= (2 if plan.n < plan.samples else unit)
            for end in accumulate(row.epochs * row.samples for row in plan.rows):
                assert abs(control.after(end) - updates * end / plan.samples) <= 2


def test_the_reversed_control_has_the_stages_from_the_last_to_the_first() -> None:
    for name, plan in PLANS.items():
        if name == "a part of an epoch":
            continue
        control = plan.control("reversed")
        np.testing.assert_allclose(by_sample(control), by_sample(plan)[:, ::-1], rtol=1e-12)
        assert control.updates == plan.updates
        assert [row.phi_m for row in control.rows] == [row.phi_m for row in reversed(plan.rows)]
        stages = [row.stage for row in control.rows]
        assert stages == sorted(stages)
        assert stages[0] == 1
        assert "control=reversed" in str(control)


def test_another_plan_is_a_rate() -> None:
    """It has b of its own, and trains on twice as many samples."""
    for plan in PLANS.values():
        arguments: Any = {
            "batch_size": {0: 32, 0.5: 64},
            "n": plan.arguments["n"],
            "samples": 2 * plan.samples,
        }
        longer_plan = igo.plan(rate=plan, **arguments)
        rates = np.repeat(by_sample(plan)[0], 2)
        np.testing.assert_array_equal(longer_plan.rates, at_starts(rates, longer_plan))
        warmup = 2 * plan.warmup_samples
        assert longer_plan.warmup_samples == warmup
        linear_plan = igo.plan(rate="linear", warmup_samples=warmup, **arguments)
        assert sizes_of(longer_plan) == sizes_of(linear_plan)


def test_a_plan_without_a_control_says_why() -> None:
    for plan, kind, words in (
        (PLANS["whole epochs"], "b", "control=b is not allowed: it must be one of rate, noise"),
        (
            igo.plan("method2", **DATA),
            "rate",
            "its b is constant, so it is its own control; leave it out",
        ),
        (igo.plan("constant", **DATA), "reversed", "its η and b are constant, so it is its own"),
        (PLANS["a part of an epoch"], "reversed", "the last epoch must be a whole one"),
        (
            igo.plan("linear", split=1, algorithm3={"final_updates": 2}, **DATA),
            "rate",
            "a plan that ends without noise has none",
        ),
    ):
        with pytest.raises(igo.PlanError, match=words):
            plan.control(kind)


def test_a_plan_whose_size_hardly_changes_is_printed() -> None:
    """It has no control."""
    for split in (0.5, 1):
        plan = igo.plan("graduated", n=96, epochs=6, stages=2, batch_size=32, split=split, p=0.5)
        assert "18 updates" in str(plan)
