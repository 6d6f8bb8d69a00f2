"""The plan: the paper's golden values, PyTorch's own schedulers, and invariants of many plans."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from conftest import composing, configure
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

import igo
from igo.config.load import make_plan
from igo.config.schema import Config
from igo.ground.errors import ConfigError
from igo.method.plan import Plan
from igo.method.profiles import paper_method

PYTORCH = {
    "schedule=graduated p=0.3": lambda o: lr_scheduler.PolynomialLR(o, total_iters=20, power=0.3),
    "schedule=polynomial p=4": lambda o: lr_scheduler.PolynomialLR(o, total_iters=20, power=4.0),
    "schedule=linear": lambda o: lr_scheduler.LinearLR(
        o, start_factor=1.0, end_factor=0.0, total_iters=20
    ),
    "schedule=cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=20),
    "schedule=exponential": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.95),
    "schedule=step schedule.stages=20 schedule.gamma=0.7": lambda o: lr_scheduler.StepLR(
        o, step_size=1, gamma=0.7
    ),
    "schedule=diminishing": lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / math.sqrt(k + 1)),
    "schedule=diminishing schedule.form=inverse_time schedule.a=10": lambda o: (
        lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + 10 * k / 20))
    ),
    "schedule=constant": lambda o: lr_scheduler.ConstantLR(o, factor=1.0),
}


@pytest.mark.parametrize("overrides", PYTORCH)
def test_all_decay_in_the_learning_rate_is_the_pytorch_scheduler(overrides: str) -> None:
    split = [] if "constant" in overrides else ["split=1"]
    config = configure(*overrides.split(), *split, "epochs=20", "learning_rate=0.3")
    plan = make_plan(config)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    scheduler, wanted = PYTORCH[overrides](optimizer), []
    for _ in range(20):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [stage.eta_m for stage in plan.rows] == pytest.approx(wanted, rel=1e-12)
    assert {stage.batches for stage in plan.rows} == {math.ceil(plan.n / config.batch_size)}


def test_cosine_power_is_between_its_published_end_points() -> None:
    plan = make_plan(configure("schedule=cosine_power", "split=1", "epochs=100"))
    q, halfway = 10.0, plan.rows[50]
    assert plan.rows[0].phi_m == 1.0
    assert halfway.phi_m == pytest.approx((q**1.5 - q) / (q**2 - q), rel=1e-12)  # cos(π/2) = 0
    near_cosine = make_plan(
        configure("schedule=cosine_power", "schedule.power=1.000001", "split=1", "epochs=100")
    )
    cosine = make_plan(configure("schedule=cosine", "split=1", "epochs=100"))
    for ours, theirs in zip(near_cosine.rows, cosine.rows, strict=True):
        assert ours.phi_m == pytest.approx(theirs.phi_m, abs=1e-5)


GOLDEN = {  # ResNet18 on CIFAR-100, n = 50,000, 5 stages of 40 epochs, η_1 = 0.1, b_1 = 32
    "method1": ([1563] * 5, [0.1] * 5, 312_600),
    "method2": ([1563] * 5, [0.1 / math.sqrt(2) ** m for m in range(5)], 312_600),
    "method3": ([1563, 782, 391, 196, 98], [0.1] * 5, 121_200),
    "method4": (  # 1563 (2/3)^m = 1563, 1042, 694.7, 463.1, 308.7, counted by hand
        [1563, 1042, 695, 464, 309],
        [0.1 * (math.sqrt(3) / 2) ** m for m in range(5)],
        162_920,
    ),
}


@pytest.mark.parametrize("method", GOLDEN)
def test_published_methods_have_their_published_numbers(method: str) -> None:
    """By κ and λ of conf/schedule, and by ``igo.plan`` of the name."""
    config = configure("experiment=cifar100", f"schedule={method}")
    plan = make_plan(config)
    batches, rates, updates = GOLDEN[method]
    assert [stage.batches for stage in plan.rows] == batches
    assert [stage.b_m for stage in plan.rows] == [50_000 / k for k in batches]
    published = [stage.eta_m for stage in plan.rows]
    assert published == pytest.approx(rates, rel=5e-3)  # a whole k takes the rest into η
    assert all(eta <= rate * (1 + 1e-12) for eta, rate in zip(published, rates, strict=True))
    assert plan.updates == updates
    if method != "method1":  # the others have one noise curve
        curve = [2 ** (-m / 2) for m in range(5)]
        assert [stage.phi_m for stage in plan.rows] == pytest.approx(curve, rel=1e-12)
    assert [(stage.first_epoch, stage.epochs) for stage in plan.rows] == [
        (1, 40), (41, 40), (81, 40), (121, 40), (161, 40),
    ]  # fmt: skip
    name = paper_method(config.schedule.profile, config.schedule.gamma, config.split)
    assert str(name).startswith(f"Method {method[-1]}")
    for schedule in ("step", "cosine"):  # of others, numbers near those of a method
        gamma = 2**-0.5 + (0.002 if schedule == "step" else 0)
        assert paper_method(schedule, gamma, config.split) is None
    assert method == "method1" or paper_method("step", 2**-0.5, config.split + 0.002) is None
    by_name = partial(igo.plan, method, n=50_000, epochs=200, learning_rate=0.1, batch_size=32)
    assert by_name().is_that_of(plan.identity)
    assert [stage.epochs for stage in by_name(stages=4).rows] == [50] * 4


PROFILES: dict[str, st.SearchStrategy[Any]] = {
    "graduated": st.fixed_dictionaries({"p": st.floats(0.05, 1)}),
    "polynomial": st.fixed_dictionaries({"p": st.floats(0.05, 8)}),
    "step": st.fixed_dictionaries({"schedule.gamma": st.floats(0.3, 0.99)}),
    "exponential": st.fixed_dictionaries({"schedule.decay": st.floats(0.7, 0.99)}),
    "cosine": st.just({}),
    "cosine_power": st.fixed_dictionaries({"schedule.power": st.floats(1.1, 100)}),
    "diminishing": st.fixed_dictionaries(
        {"schedule.form": st.just("inverse_time"), "schedule.a": st.floats(0.1, 100)}
    ),
}


@st.composite
def settings_of_plans(draw: st.DrawFn) -> list[str]:
    profile = draw(st.sampled_from(sorted(PROFILES)))
    epochs = draw(st.integers(1, 60))
    multiple = draw(st.sampled_from([1, 1, 1, 4, 16]))
    b_1 = multiple * draw(st.integers(1, 8))
    chosen = {
        "schedule": profile,
        "split": draw(st.floats(0, 1)),
        "epochs": epochs,
        "schedule.stages": draw(st.integers(1, epochs)),
        "schedule.batch_multiple": multiple,
        "batch_size": b_1,
        "max_batch_size": draw(st.sampled_from(["null", b_1, b_1 + 100, 700, 5000])),
        "schedule.final_updates": draw(st.sampled_from([0, 0, 1, 7])),
        "learning_rate": draw(st.floats(1e-3, 2)),
        **draw(PROFILES[profile]),
    }
    return [f"{name}={value}" for name, value in chosen.items()]


def test_every_plan_keeps_its_promises() -> None:
    with composing() as make:

        @given(overrides=settings_of_plans())
        def check(overrides: list[str]) -> None:
            config = make(*overrides)
            plan = make_plan(config)
            noisy = check_final_stage(config, plan)
            check_stages_cover_all_epochs(config, noisy)
            check_noise_curve(config, noisy)
            check_batches(config, noisy)

        check()


def check_final_stage(config: Config, plan: Plan) -> Plan:
    """δ_{M+1} = 0: full batches at the last η, if asked for. Returns the plan without it."""
    updates = config.schedule.final_updates
    if not updates:
        return plan
    *noisy, last = plan.rows
    assert (last.phi_m, last.b_m, last.eta_m) == (0.0, plan.n, noisy[-1].eta_m)
    assert (last.updates, last.epochs) == (updates, updates)
    assert (last.stage, last.first_epoch) == (len(noisy) + 1, config.epochs + 1)
    assert (last.gamma_m, last.kappa_m, last.lambda_m) == (None, None, None)
    before = noisy[-1]
    assert (before.gamma_m, before.kappa_m) == (0.0, 1.0)
    assert before.lambda_m == pytest.approx(plan.n / before.b_m, rel=1e-12)
    assert plan.epochs == config.epochs + updates
    assert plan.updates == sum(stage.updates for stage in noisy) + updates
    noisy[-1] = replace(before, gamma_m=None, kappa_m=None, lambda_m=None)
    return Plan(tuple(noisy), plan.n)


def check_stages_cover_all_epochs(config: Config, plan: Plan) -> None:
    epochs = [epoch for stage in plan.rows for epoch in stage.epoch_range]
    assert epochs == list(range(1, config.epochs + 1))
    assert len(plan.rows) == config.schedule.stages
    lengths = {stage.epochs for stage in plan.rows}
    assert max(lengths) - min(lengths) <= 1  # as even as can be
    for stage in plan.rows:
        assert stage.updates == stage.epochs * stage.batches
        assert stage.b_m == plan.n / stage.batches


def check_noise_curve(config: Config, plan: Plan) -> None:
    """δ_m/δ_1 = φ_m to 1e-12, from what will be applied: η_m and b_m."""
    first = plan.rows[0]
    assert first.phi_m == 1.0
    assert first.eta_m == config.learning_rate
    for stage in plan.rows:
        applied = (stage.eta_m / math.sqrt(stage.b_m)) / (first.eta_m / math.sqrt(first.b_m))
        assert applied == pytest.approx(stage.phi_m, rel=1e-12)
    for stage, after in zip(plan.rows, plan.rows[1:], strict=False):
        assert after.phi_m < stage.phi_m
        assert stage.kappa_m is not None  # above 1 where a whole k falls further than φ asks for
        assert stage.kappa_m <= math.sqrt(stage.batches / after.batches) * (1 + 1e-12)
    last = plan.rows[-1]
    assert (last.gamma_m, last.kappa_m, last.lambda_m) == (None, None, None)


def check_batches(config: Config, plan: Plan) -> None:
    """k_m = ⌈k_1 φ_m^(2(1-s))⌉ in its bounds, or the next k whose larger batch is on the grid."""
    multiple, n, s = config.schedule.batch_multiple, plan.n, config.split
    cap = min(config.max_batch_size or n, n)
    first = -(-n // config.batch_size)
    assert plan.rows[0].batches == first
    before = first
    for stage in plan.rows:
        k, largest = stage.batches, -(-n // stage.batches)
        assert largest <= cap
        assert k <= before
        exact = Fraction(first) * Fraction(stage.phi_m ** (2 * (1 - s)))
        needed = min(max(math.ceil(exact * Fraction(1 - 1e-9)), -(-n // cap), 1), before)
        assert k >= needed
        if multiple == 1 or largest % multiple:
            assert k == needed  # and no k up to the last one has its larger batch on the grid
        if multiple > 1:
            on_grid = [j for j in range(needed, before + 1) if -(-n // j) % multiple == 0]
            assert k == (on_grid[0] if on_grid else needed)
        assert stage.eta_m <= config.learning_rate * stage.phi_m**s * (1 + 1e-9) or k == -(
            -n // cap
        )
        before = k


def test_stage_lengths_of_algorithm_3() -> None:
    """Updates ∝ 1/(φ_m² - h η_m/η_1), by hand for M = 3, p = 1, all decay in η: 1, 9/4, 9."""
    config = configure(
        "schedule=graduated", "p=1", "split=1", "epochs=49", "schedule.stages=3",
        "schedule.lengths=algorithm3",
    )  # fmt: skip
    assert [stage.epochs for stage in make_plan(config).rows] == [4, 9, 36]  # of 49 = 4·(1+9/4+9)
    config.schedule.h = 0.25  # brackets 1 - 1/4, 4/9 - 1/6, 1/9 - 1/12
    exact = [1 / (3 / 4), 1 / (5 / 18), 1 / (1 / 36)]
    plan = make_plan(config)
    for m, share in enumerate(exact, 1):
        samples = sum(row.epochs * row.samples for row in plan.rows if row.stage == m)
        assert abs(samples - plan.samples * share / sum(exact)) <= config.batch_size
    config.schedule.h = 0.34
    with pytest.raises(ConfigError, match=r"schedule\.h=0\.34 .* stage 3 of 3"):
        make_plan(config)
