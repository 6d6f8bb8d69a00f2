"""The profiles: PyTorch's own schedulers, and the names of the paper's methods."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from conftest import configure, rounded
from torch.optim import lr_scheduler

import igo
from igo.config.load import make_plan
from igo.plans.profiles import paper_method


def cosine(t: float) -> float:
    return (1 + math.cos(math.pi * t)) / 2


def falling_late(
    optimizer: torch.optim.Optimizer, shape: Callable[[float], float]
) -> lr_scheduler.LRScheduler:
    """The last 8 of 20 epochs are the decay of wsd."""
    return lr_scheduler.LambdaLR(optimizer, lambda k: shape(max(0, k - 12) / 8))


PYTORCH: dict[str, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]] = {
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
    # q^(c + 1) between q² and q for c from 1 to 0
    "schedule=cosine_power": lambda o: lr_scheduler.LambdaLR(
        o, lambda k: (10 ** (cosine(k / 20) + 1) - 10) / 90
    ),
    "schedule=wsd schedule.share=0.4": lambda o: falling_late(o, lambda u: 1 - u),
    "schedule=wsd schedule.share=0.4 schedule.shape=sqrt": lambda o: falling_late(
        o, lambda u: 1 - math.sqrt(u)
    ),
    "schedule=wsd schedule.share=0.4 schedule.shape=cosine": lambda o: falling_late(o, cosine),
    "schedule=constant": lambda o: lr_scheduler.ConstantLR(o, factor=1.0),
}


@pytest.mark.parametrize("overrides", PYTORCH)
def test_all_decay_in_the_learning_rate_is_the_pytorch_scheduler(overrides: str) -> None:
    split = [] if "constant" in overrides else ["split=1"]
    config = configure(*overrides.split(), *split, "epochs=20", "learning_rate=0.3")
    plan = make_plan(config)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    scheduler, rates = PYTORCH[overrides](optimizer), []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [stage.eta_m for stage in plan.rows] == rounded(rates)
    assert {stage.batches for stage in plan.rows} == {math.ceil(plan.n / config.batch_size)}


def test_a_method_is_named_and_is_that_of_the_library() -> None:
    """By κ and λ of conf/schedule, and by ``igo.plan`` of the name."""
    for method in ("method1", "method2", "method3", "method4"):
        config = configure("experiment=cifar100", f"schedule={method}")
        plan = make_plan(config)
        name = paper_method(config.schedule.profile, config.schedule.gamma, config.split)
        assert str(name).startswith(f"Method {method[-1]}")
        for schedule in ("step", "cosine"):  # Other schedules may have numbers near a method's.
            gamma = 2**-0.5 + (0.002 if schedule == "step" else 0)
            assert paper_method(schedule, gamma, config.split) is None
        assert method == "method1" or paper_method("step", 2**-0.5, config.split + 0.002) is None
        by_name = partial(igo.plan, method, n=50_000, epochs=200, learning_rate=0.1, batch_size=32)
        assert by_name().is_that_of(plan.identity)
        assert [stage.epochs for stage in by_name(stages=4).rows] == [50] * 4
