"""What ``igo.plan`` refuses, in one line that names the argument and the cure."""

from typing import Any

import pytest

import igo

pytestmark = pytest.mark.filterwarnings("ignore:b reaches n", "ignore:M = 1")
GIVEN: Any = {"n": 100, "epochs": 4, "learning_rate": 0.1, "batch_size": 10}


def rounds(epsilon: float, alpha_0: float, **options: float) -> dict[str, float]:
    """Algorithm 3's stages by ε: M = ⌈(1/(α_0 ε))^(1/p)⌉."""
    return {"epsilon": epsilon, "alpha_0": alpha_0, **options}


PLAN = igo.plan("cosine", **GIVEN)
HABITS = {  # What people type from other tools, and igo's word.
    "lr": "learning_rate",
    "bs": "batch_size",
    "b_max": "max_batch_size",
    "min_lr": "floor",
    "num_epochs": "epochs",
    "total_steps": "samples",
    "T_max": "samples",
    "steps": "samples",
    "updates": "samples",
    "warmup_steps": "warmup_samples",
}
WRONG_SIZES: list[tuple[Any, str]] = [
    ([2, 4], "a table begins at 0, and goes on by shares of the schedule"),
    ({0.5: 20}, "a table begins at 0"),
    ({0: 10, 1.0: 20}, "or by samples, {0: 256, 40_000: 512}"),
    ({0: 10, -0.5: 20}, "a table begins at 0"),
    ({0: 10, "half": 20}, "a table begins at 0"),
    ({0: 10, 0.5: 0.5}, "a whole number"),
    ({0: 10, 0.5: 0}, "1 or more"),
    ({0: 10, 0.5: 40, 0.7: 20}, "b never shrinks"),
    ({0: 10, 0.5: 101}, "it must be in [1, 100], the training samples"),
    ({0: 10, 400: 20}, "a size begins after all 400 samples"),
    ({0: 10, 4: 20}, "its places are samples, of which an epoch has 100, or shares below 1"),
    (lambda t: 20 - 10 * t, "b is 17.5 in stage 2 of 4, after 20; it never shrinks"),
    (lambda t: 10.5, "a whole number"),
    (lambda t: 10 if t == 0 else None, "at t = 0.25 it returned None; b is a number in [1, ∞)"),
]
REFUSED: list[tuple[Any, dict[str, Any], str, str]] = [
    ("graduated", {}, "p", "p is missing: graduated needs it, e.g. p=0.5"),
    ("graduated", {"p": 2}, "p", "the schedule polynomial takes any p > 0"),
    ("graduated", {"p": "half"}, "p", "p='half' is not allowed: it must be a number"),
    ("graduated", {"p": float("nan")}, "p", "it must be a number"),
    ("graduated", {"p": 0.5, "spilt": 1}, "spilt", "Did you mean 'split'?"),
    ("cosine", {"p": 0.5}, "p", "there is no such argument; cosine has floor of its own"),
    ("cosin", {}, "profile", "Did you mean 'cosine'?"),
    ("step", {}, "gamma", "gamma is missing"),
    ("method3", {"split": 0.5}, "split", "method3 has its own decay and split; leave"),
    ("method2", {"gamma": 0.5}, "gamma", "method2 has its own decay and split; leave"),
    ("step", {"gamma": 1}, "gamma", "(0, 1)"),
    ("exponential", {"decay": -1}, "decay", "(0, 1)"),
    ("cosine_power", {"power": 1}, "power", "above 1"),
    ("diminishing", {"form": "inverse"}, "form", "Did you mean 'inverse_time'?"),
    ("diminishing", {"a": 0}, "a", "above 0"),
    ("cosine", {"split": 1.5}, "split", "at most 1"),
    ("cosine", {"batch_size": 101}, "batch_size", "[1, 100], the training samples"),
    ("cosine", {"batch_size": 0}, "batch_size", "1 or more"),
    ("cosine", {"batch_size": 2.5}, "batch_size", "a whole number"),
    ("cosine", {"batch_size": True}, "batch_size", "a whole number"),
    ("cosine", {"max_batch_size": 5}, "max_batch_size", "at least batch_size=10"),
    ("cosine", {"epochs": 0}, "epochs", "[1, 1,000,000]"),
    ("cosine", {"stages": 41}, "stages", "400 samples have at most 40 stages"),
    ("cosine", {"n": None}, "n", "for a stream give samples instead"),
    ("cosine", {"epochs": None}, "epochs", "epochs with n, or samples"),
    ("cosine", {"samples": 200}, "samples", "leave one out"),
    ("cosine", {"warmup_samples": 400}, "warmup_samples", "below the 400 samples"),
    ("cosine", {"warmup_samples": -1}, "warmup_samples", "0 or more"),
    ("cosine", {"warmup_samples": 0.05}, "warmup_samples", "a whole number"),
    ("cosine", {"warmup_samples": 10}, "warmup_samples", "within the first batch, of 10"),
    ("exponential", {"decay": 0.9, "algorithm3": {"h": 0}}, "h", "other than exponential"),
    (None, {}, "profile", 'give the noise φ as profile ("constant": η ∝ √b), or η/η_1 as rate'),
    ("cosine", {"rate": "linear"}, "rate", "keep two: profile and batch_size, or rate"),
    (
        "cosine",
        {"batch_size": {0: 9}, "split": 1},
        "split",
        "profile and batch_size say how",
    ),
    (None, {"rate": "cosine", "split": 1}, "split", "rate and batch_size say how b grows"),
    (None, {"rate": "cosin"}, "rate", "Did you mean 'cosine'?"),
    (None, {"rate": "method3"}, "rate", "it must be one of constant,"),
    (None, {"rate": lambda t: 1 - 2 * t}, "rate", "η/η_1 is 0 in stage 3 of 4 and must be in (0,"),
    ("method3", {"batch_size": {0: 10, 0.5: 20}}, "batch_size", "own decay and split; give b_1"),
    ("cosine", {"growth": {0.5: 2}}, "growth", "there is no such argument"),
    *(("cosine", {"batch_size": sizes}, "batch_size", words) for sizes, words in WRONG_SIZES),
    ("cosine", {"batch_size": {0: 9, 0.5: 40}, "max_batch_size": 20}, "max_batch_size", "size=40"),
    ("cosine", {"batch_size": {0: 9}, "batch_ratio": 2}, "batch_ratio", "a table has all sizes"),
    (None, {"rate": "cosine", "max_batch_size": 20}, "max_batch_size", "b stays at"),
    (None, {"rate": "cosine", "batch_ratio": 2}, "batch_ratio", "b stays at batch_size=10; le"),
    ("constant", {"max_batch_size": 20}, "max_batch_size", "b stays at batch_size=10; leave"),
    ("method1", {"batch_ratio": 2}, "batch_ratio", "b stays at batch_size=10; leave it out"),
    ("cosine", {"batch_size": {0: 9}, "algorithm3": {"h": 0}}, "h", "a profile and a split"),
    ("cosine", {"clock": "updates"}, "clock", "so rate alone can count them"),
    (None, {"rate": "cosine", "clock": "update"}, "clock", "Did you mean 'updates'?"),
    (
        None,
        {"rate": lambda t: 1 - 2 * t, "clock": "updates"},
        "rate",
        "η/η_1 is 0 in update 21 and must be in (0, ∞); it may be 0 in the last update alone",
    ),
    (None, {"rate": "step", "clock": "updates", "gamma": 0.5}, "clock", "step counts stages"),
    (None, {"rate": [1, 0.5]}, "rate", "=[1, 0.5] is not allowed: it must be one of"),
    (PLAN, {}, "profile", "give it as rate"),
    (None, {"rate": PLAN, "floor": 0.1}, "floor", "a plan that is given as rate takes no more"),
    (None, {"rate": PLAN, "clock": "updates"}, "clock", "given as rate has its own; leave it out"),
    (None, {"rate": PLAN, "warmup_samples": 10}, "warmup_samples", "has its own; leave it out"),
    ("cosine", {"batch_ratio": 0.5}, "batch_ratio", "1 or more"),
    (
        "cosine",
        {"n": None, "epochs": None, "samples": 99, "batch_multiple": 4},
        "batch_size",
        "it must be a multiple of batch_multiple=4",
    ),
    ("graduated", {"p": 0.5, "stages": 40, "algorithm3": {"h": 0}}, "stages", "0.069 updates by"),
    (
        "cosine",
        {"n": None, "epochs": None, "samples": 100, "algorithm3": {"final_updates": 2}},
        "final_updates",
        "whole epochs of a data set",
    ),
    *(("cosine", {word: 9}, word, f"Did you mean '{name}'") for word, name in HABITS.items()),
    ("wsd", {"decay": 0.2}, "decay", "Did you mean 'share'"),
    ("wsd", {"share": 0}, "share", "(0, 1]"),
    ("wsd", {"shape": "lin"}, "shape", "Did you mean 'linear'?"),
    (lambda t: 1.1 - t, {}, "profile", "divide φ by its value at t = 0"),
    (lambda t: 1 - 2 * t, {}, "profile", "must be in (0, 1]"),
    (lambda t: None, {}, "profile", "at t = 0 it returned None; φ is a number in (0, 1]"),
    (lambda t, q: 1 - q * t, {}, "q", "q is missing"),
    ("cosine", {"learning_rate": 0}, "learning_rate", "above 0"),
    ("cosine", {"algorithm3": {"H": 1}}, "algorithm3", "it has epsilon, alpha_0, h, final_updates"),
    ("cosine", {"batch_size": None}, "batch_size", "it must be a whole number"),
    ("cosine", {"algorithm3": {"final_updates": -1}}, "final_updates", "[0,"),
    ("step", {"gamma": 1e-200}, "profile", "φ is 0 in stage 3 of 4 and must be in (0, 1]; use f"),
    ("graduated", {"p": 0.5, "algorithm3": {"epsilon": 0.1}}, "alpha_0", "with the other one"),
    ("graduated", {"p": 0.5, "algorithm3": {"alpha_0": 2}}, "epsilon", "with the other one"),
    ("graduated", {"p": 0.5, "algorithm3": rounds(0.1, 0.1)}, "epsilon", "= 10,000 stages"),
    ("graduated", {"p": 0.5, "algorithm3": rounds(1e-200, 1e-200)}, "epsilon", "larger ε"),
    ("graduated", {"p": 0.5, "algorithm3": {"h": 0.5}}, "h", "in stage 4 of 4"),
    ("graduated", {"p": 0.5, "algorithm3": rounds(0.1, 2), "stages": 3}, "stages", "chooses 25;"),
    ("polynomial", {"p": 0.5, "algorithm3": rounds(0.1, 2)}, "epsilon", "belongs to profile gradu"),
]


@pytest.mark.parametrize(("profile", "changed", "argument", "message"), REFUSED)
def test_a_wrong_argument_is_named_with_its_cure(
    profile: Any, changed: dict[str, Any], argument: str, message: str
) -> None:
    with pytest.raises(igo.PlanError) as raised:
        igo.plan(profile, **{**GIVEN, **changed})
    assert raised.value.argument == argument
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
