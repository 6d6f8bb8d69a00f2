"""What ``igo.plan`` refuses, in one line that names the argument and the cure."""

import math
from typing import Any

import pytest
from conftest import arguments_of

import igo

pytestmark = pytest.mark.filterwarnings("ignore:b reaches n", "ignore:M = 1")
GIVEN: Any = {"n": 100, "epochs": 4, "learning_rate": 0.1, "batch_size": 10}


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
# The words of a call, of which the last one is refused, and what is said of it.
WRONG = {
    "profile='graduated' p=2": "the schedule polynomial takes any p > 0",
    "profile='graduated' p='half'": "p='half' is not allowed: it must be a number",
    "profile='graduated' p=0.5 spilt=1": "Did you mean 'split'?",
    "profile='cosine' p=0.5": "there is no such argument; cosine has floor of its own",
    "profile='cosine' rate='linear'": "keep two: profile and batch_size, or rate",
    "profile='cosine' growth={0.5:2}": "there is no such argument",
    "profile='method3' split=0.5": "method3 has its own decay and split; leave",
    "profile='method2' gamma=0.5": "method2 has its own decay and split; leave",
    "profile='method3' batch_size={0:10,0.5:20}": "own decay and split; give b_1",
    "profile='step' gamma=1": "(0, 1)",
    "profile='exponential' decay=-1": "(0, 1)",
    "profile='cosine_power' power=1": "above 1",
    "profile='diminishing' form='inverse'": "Did you mean 'inverse_time'?",
    "profile='diminishing' a=0": "above 0",
    "profile='wsd' decay=0.2": "Did you mean 'share'",
    "profile='wsd' share=0": "(0, 1]",
    "profile='wsd' shape='lin'": "Did you mean 'linear'?",
    "profile='cosine' learning_rate=0": "above 0",
    "profile='cosine' split=1.5": "at most 1",
    "profile='cosine' batch_size=101": "[1, 100], the training samples",
    "profile='cosine' batch_size=0": "1 or more",
    "profile='cosine' batch_size=2.5": "a whole number",
    "profile='cosine' batch_size=True": "a whole number",
    "profile='cosine' batch_size=None": "it must be a whole number",
    "profile='cosine' batch_size=[2,4]": "a table begins at 0, and goes on by shares of the"
    " schedule",
    "profile='cosine' batch_size={0.5:20}": "a table begins at 0",
    "profile='cosine' batch_size={0:10,1.0:20}": "or by samples, {0: 256, 40_000: 512}",
    "profile='cosine' batch_size={0:10,-0.5:20}": "a table begins at 0",
    "profile='cosine' batch_size={0:10,'half':20}": "a table begins at 0",
    "profile='cosine' batch_size={0:10,0.5:0.5}": "a whole number",
    "profile='cosine' batch_size={0:10,0.5:0}": "1 or more",
    "profile='cosine' batch_size={0:10,0.5:40,0.7:20}": "b never shrinks",
    "profile='cosine' batch_size={0:10,0.5:101}": "it must be in [1, 100], the training samples",
    "profile='cosine' batch_size={0:10,400:20}": "a size begins after all 400 samples",
    "profile='cosine' batch_size={0:10,4:20}": "its places are samples, of which an epoch has 100,"
    " or shares below 1",
    "profile='cosine' max_batch_size=5": "at least batch_size=10",
    "profile='cosine' batch_size={0:9,0.5:40} max_batch_size=20": "size=40",
    "profile='constant' max_batch_size=20": "b stays at batch_size=10; leave",
    "profile='cosine' batch_ratio=0.5": "1 or more",
    "profile='cosine' batch_size={0:9} batch_ratio=2": "a table has all sizes",
    "profile='method1' batch_ratio=2": "b stays at batch_size=10; leave it out",
    "profile='cosine' batch_size={0:9} split=1": "profile and batch_size say how",
    "profile='cosine' epochs=0": "[1, 1,000,000]",
    "profile='cosine' epochs=None": "epochs with n, or samples",
    "profile='cosine' n=None": "for a stream give samples instead",
    "profile='cosine' samples=200": "leave one out",
    "profile='cosine' stages=41": "400 samples have at most 40 stages",
    "profile='cosine' warmup_samples=400": "below the 400 samples",
    "profile='cosine' warmup_samples=-1": "0 or more",
    "profile='cosine' warmup_samples=0.05": "a whole number",
    "profile='cosine' warmup_samples=10": "within the first batch, of 10",
    "profile='cosine' algorithm3={'H':1}": "it has epsilon, alpha_0, h, final_updates",
    "profile='cosine' clock='updates'": "so rate alone can count them",
    "rate='cosine' clock='update'": "Did you mean 'updates'?",
    "rate='step' gamma=0.5 clock='updates'": "step counts stages",
    "rate='cosine' split=1": "rate and batch_size say how b grows",
    "rate='cosine' max_batch_size=20": "b stays at",
    "rate='cosine' batch_ratio=2": "b stays at batch_size=10; le",
    "rate='cosin'": "Did you mean 'cosine'?",
    "rate='method3'": "it must be one of constant,",
    "rate=[1,0.5]": "=[1, 0.5] is not allowed: it must be one of",
    **{f"profile='cosine' {word}=9": f"Did you mean '{name}'" for word, name in HABITS.items()},
}


def assert_refused(argument: str, message: str, **call: Any) -> None:
    with pytest.raises(igo.PlanError) as raised:
        igo.plan(**{**GIVEN, **call})
    assert raised.value.argument == argument
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_argument_is_named_with_its_cure(words: str) -> None:
    arguments = arguments_of(words)
    assert_refused([*arguments][-1], WRONG[words], **arguments)


HALF: Any = {"profile": "graduated", "p": 0.5}


def in_rounds(epsilon: float, alpha_0: float, **call: Any) -> dict[str, Any]:
    """Of Algorithm 3, whose stages are given by ε: M = ⌈(1/(α_0 ε))^(1/p)⌉."""
    return {**HALF, **call, "algorithm3": {"epsilon": epsilon, "alpha_0": alpha_0}}


STREAM: Any = {"profile": "cosine", "n": None, "epochs": None, "samples": 99}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"profile": "graduated"}, "p", "p is missing: graduated needs it, e.g. p=0.5"),
    ({"profile": "graduated", "p": math.nan}, "p", "it must be a number"),
    ({"profile": "step"}, "gamma", "gamma is missing"),
    (
        {"profile": "step", "gamma": 1e-200},
        "profile",
        "φ is 0 in stage 3 of 4 and must be in (0, 1]",
    ),
    ({"profile": "cosin"}, "profile", "Did you mean 'cosine'?"),
    ({}, "profile", 'give the noise φ as profile ("constant": η ∝ √b), or η/η_1 as rate'),
    ({"profile": lambda t: 1.1 - t}, "profile", "divide φ by its value at t = 0"),
    ({"profile": lambda t: 1 - 2 * t}, "profile", "must be in (0, 1]"),
    ({"profile": lambda t: None}, "profile", "at t = 0 it returned None; φ is a number in (0, 1]"),
    ({"profile": lambda t, q: 1 - q * t}, "q", "q is missing"),
    ({"rate": lambda t: 1 - 2 * t}, "rate", "η/η_1 is 0 in stage 3 of 4 and must be in (0,"),
    (
        {"rate": lambda t: 1 - 2 * t, "clock": "updates"},
        "rate",
        "η/η_1 is 0 in update 21 and must be in (0, ∞); it may be 0 in the last update alone",
    ),
    ({"profile": PLAN}, "profile", "give it as rate"),
    ({"rate": PLAN, "floor": 0.1}, "floor", "a plan that is given as rate takes no more"),
    ({"rate": PLAN, "clock": "updates"}, "clock", "given as rate has its own; leave it out"),
    ({"rate": PLAN, "warmup_samples": 10}, "warmup_samples", "has its own; leave it out"),
    (
        {"profile": "cosine", "batch_size": lambda t: 20 - 10 * t},
        "batch_size",
        "b is 17.5 in stage 2 of 4, after 20; it never shrinks",
    ),
    ({"profile": "cosine", "batch_size": lambda t: 10.5}, "batch_size", "a whole number"),
    (
        {"profile": "cosine", "batch_size": lambda t: 10 if t == 0 else None},
        "batch_size",
        "at t = 0.25 it returned None; b is a number in [1, ∞)",
    ),
    (
        {**STREAM, "batch_multiple": 4},
        "batch_size",
        "it must be a multiple of batch_multiple=4",
    ),
    (
        {**STREAM, "algorithm3": {"final_updates": 2}},
        "final_updates",
        "whole epochs of a data set",
    ),
    ({"profile": "cosine", "algorithm3": {"final_updates": -1}}, "final_updates", "[0,"),
    (
        {"profile": "exponential", "decay": 0.9, "algorithm3": {"h": 0}},
        "h",
        "other than exponential",
    ),
    (
        {"profile": "cosine", "batch_size": {0: 9}, "algorithm3": {"h": 0}},
        "h",
        "a profile and a split",
    ),
    ({**HALF, "algorithm3": {"h": 0}, "stages": 40}, "stages", "0.069 updates by"),
    ({**HALF, "algorithm3": {"h": 0.5}}, "h", "in stage 4 of 4"),
    ({**HALF, "algorithm3": {"epsilon": 0.1}}, "alpha_0", "with the other one"),
    ({**HALF, "algorithm3": {"alpha_0": 2}}, "epsilon", "with the other one"),
    (in_rounds(0.1, 0.1), "epsilon", "= 10,000 stages"),
    (in_rounds(1e-200, 1e-200), "epsilon", "larger ε"),
    (in_rounds(0.1, 2, stages=3), "stages", "chooses 25;"),
    (in_rounds(0.1, 2, profile="polynomial"), "epsilon", "belongs to profile gradu"),
]


@pytest.mark.parametrize(("call", "argument", "message"), REFUSED)
def test_what_no_literal_says_is_refused_as_well(
    call: dict[str, Any], argument: str, message: str
) -> None:
    """Functions and plans as arguments, and Algorithm 3; and what is missing."""
    assert_refused(argument, message, **call)
