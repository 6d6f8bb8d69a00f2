"""What ``Schedule`` writes into optimizers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import igo
from igo.method.plan import Plan
from igo.method.sampler import BatchSampler
from igo.noise.noise import Noise, noise_level


def plan(**changed: Any) -> Plan:
    given = {"n": 12, "epochs": 5, "learning_rate": 0.1, "batch_size": 4, "p": 0.5, "split": 1}
    return igo.plan("graduated", **{**given, **changed})


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.ones(1))


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {}, "AdamW": {}, "Adam": {"fused": True}, "RMSprop": {}, "Adagrad": {}, "NAdam": {},
    "RAdam": {}, "Adamax": {}, "Adafactor": {}, "Muon": {},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("tensor", [False, True])
def test_each_group_follows_pytorchs_own_scheduler(name: str, tensor: bool) -> None:
    if tensor and name not in ("SGD", "AdamW"):
        pytest.skip("not every optimizer takes a tensor as its learning rate")
    make = getattr(torch.optim, name)

    def make_optimizer(rate: float) -> torch.optim.Optimizer:
        second_rate = torch.tensor(rate / 10) if tensor else rate / 10
        groups = [{"params": [nn.Parameter(torch.ones(2, 2))]},
                  {"params": [nn.Parameter(torch.ones(2, 2))], "lr": second_rate}]  # fmt: skip
        return make(groups, lr=rate, **OPTIMIZERS[name])

    mine, theirs = make_optimizer(0.1), make_optimizer(0.1)
    held = mine.param_groups[1]["lr"]
    betas = mine.param_groups[0].get("betas")
    schedule = igo.Schedule(mine, BatchSampler(plan()))
    scheduler = lr_scheduler.PolynomialLR(theirs, total_iters=5, power=0.5)
    for epoch in range(5):
        for _ in range(3):
            update = schedule.step()
            assert update.epoch == epoch + 1
            for group, other in zip(mine.param_groups, theirs.param_groups, strict=True):
                assert float(group["lr"]) == pytest.approx(float(other["lr"]), rel=1e-6)
        assert schedule.learning_rate == update.stage.eta_m
        theirs.step()
        scheduler.step()
    assert mine.param_groups[0].get("betas") == betas
    if tensor:
        assert mine.param_groups[1]["lr"] is held


@pytest.mark.parametrize("schedule_first", [True, False])
def test_a_resumed_optimizer_goes_on_whatever_is_loaded_first(schedule_first: bool) -> None:
    def training() -> tuple[torch.optim.Optimizer, BatchSampler]:
        groups = [{"params": [parameter()]}, {"params": [parameter()], "lr": 0.02}]
        return torch.optim.SGD(groups, lr=0.1), BatchSampler(plan())

    optimizer, batches = training()
    schedule = igo.Schedule(optimizer, batches)
    for _ in range(8):
        schedule.step()
    saved = copy.deepcopy((optimizer.state_dict(), batches.state_dict()))
    rates = []
    while not batches.done:
        schedule.step()
        rates.append([group["lr"] for group in optimizer.param_groups])

    again, its_batches = training()
    if schedule_first:
        resumed = igo.Schedule(again, its_batches)
    again.load_state_dict(saved[0])
    its_batches.load_state_dict(saved[1])
    if not schedule_first:
        resumed = igo.Schedule(again, its_batches)
    for wanted in rates:
        resumed.step()
        assert [group["lr"] for group in again.param_groups] == wanted


def test_a_group_that_comes_later_is_scheduled_too() -> None:
    optimizer = torch.optim.SGD([parameter()], lr=0.1)
    schedule = igo.Schedule(optimizer, BatchSampler(plan()))
    for _ in range(4):
        schedule.step()
    optimizer.add_param_group({"params": [parameter()], "lr": 0.5})
    update = schedule.step()
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.5 * update.stage.eta_m / 0.1)


def test_a_rate_that_is_not_the_plans_is_refused() -> None:
    optimizer = torch.optim.SGD([parameter()], lr=0.2)
    with pytest.raises(igo.PlanError, match=r"optimizer was made with 0\.2; give both the same"):
        igo.Schedule(optimizer, BatchSampler(plan()))


@pytest.mark.parametrize("dampened", [False, True])
def test_momentum_carries_the_decay_where_the_plan_says_so(dampened: bool) -> None:
    noise = Noise(4.0, None, 0.01, 4, 8, "disjoint")
    the_plan = plan(by_momentum=True)
    optimizer = torch.optim.SGD(
        [parameter()], lr=0.1, momentum=0.9, dampening=0.9 if dampened else 0.0
    )
    batches = BatchSampler(the_plan)
    schedule = igo.Schedule(optimizer, batches, noise=noise)
    group = optimizer.param_groups[0]

    def level() -> float:
        return noise_level(
            group["lr"], 4, 4.0, optimizer="nshb" if dampened else "shb",
            momentum=group["momentum"], gradient_norm=0.1,
        )  # fmt: skip

    first, betas = None, []
    while not batches.done:
        update = schedule.step()
        first = level() if first is None else first
        assert level() == pytest.approx(first * update.stage.phi_m, rel=1e-6)
        assert group["dampening"] == (group["momentum"] if dampened else 0.0)
        assert (schedule.learning_rate, schedule.momentum) == (group["lr"], group["momentum"])
        betas.append(group["momentum"])
    assert betas == sorted(betas, reverse=True)
    assert betas[-1] < 0.9


def test_momentum_that_cannot_carry_the_decay_is_refused() -> None:
    the_plan, noise = plan(by_momentum=True), Noise(4.0, None, 0.01, 4, 8, "disjoint")
    sgd = torch.optim.SGD([parameter()], lr=0.1, momentum=0.9)
    with pytest.raises(igo.PlanError, match=r"igo\.measure_noise"):
        igo.Schedule(sgd, BatchSampler(the_plan))
    for optimizer in (
        torch.optim.AdamW([parameter()], lr=0.1),
        torch.optim.SGD([parameter()], lr=0.1),
    ):
        with pytest.raises(igo.PlanError, match=r"torch\.optim\.SGD with the same momentum"):
            igo.Schedule(optimizer, BatchSampler(the_plan), noise=noise)
    without = Noise(0.0, None, 0.01, 4, 8, "disjoint")
    with pytest.raises(igo.PlanError, match="no noise to follow"):
        igo.Schedule(sgd, BatchSampler(the_plan), noise=without)
