"""β_2 of Adam with a half-life in samples, against v̂ as a weighted mean written out."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import igo
from igo.noise import adam

N, EPOCHS = 60, 4
ETA, BETA1, BETA2, EPS, DECAY = 0.01, 0.9, 0.95, 1e-6, 0.1


def plan_of() -> igo.method.plan.Plan:
    return igo.plan(
        "graduated", n=N, epochs=EPOCHS, learning_rate=ETA, batch_size=5, p=1, split=0.3
    )


def start() -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1, 1, 7, dtype=torch.float64))


def gradient(number: int) -> Tensor:
    return torch.randn(7, generator=torch.Generator().manual_seed(number), dtype=torch.float64)


def made_of(x: nn.Parameter, kind: type[torch.optim.Adam] = torch.optim.AdamW) -> torch.optim.Adam:
    return kind([x], lr=ETA, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY)


def by_formula(updates: list[igo.method.update.Update]) -> Tensor:
    """v̂ is a mean of g² with weights of sum one: of it β(1 - β^(t-1))/(1 - β^t) is kept."""
    x, m = start().detach(), torch.zeros(7, dtype=torch.float64)
    v = torch.zeros(7, dtype=torch.float64)
    for t, update in enumerate(updates, 1):
        g, eta = gradient(t), update.learning_rate
        beta = math.exp(math.log(BETA2) * update.stage.b_m / 5)
        kept = beta * (1 - beta ** (t - 1)) / (1 - beta**t)
        v = kept * v + (1 - kept) * g.square()
        m = BETA1 * m + (1 - BETA1) * g
        x = x * (1 - eta * DECAY) - eta * (m / (1 - BETA1**t)) / (v.sqrt() + EPS)
    return x


@pytest.mark.parametrize("broken", [None, 7, 30], ids=["whole", "resumed early", "resumed late"])
def test_updates_are_those_of_the_formula_whether_resumed_or_not(broken: int | None) -> None:
    x, plan, updates = start(), plan_of(), []
    optimizer, counter = made_of(x), igo.Counter(plan)
    schedule = igo.Schedule(optimizer, counter, constant_half_life=True)
    for number in range(1, plan.updates + 1):
        if number == broken:
            state = copy.deepcopy((optimizer.state_dict(), counter.state_dict()))
            optimizer, counter = made_of(x), igo.Counter(plan)
            schedule = igo.Schedule(optimizer, counter, constant_half_life=True)
            optimizer.load_state_dict(state[0])
            counter.load_state_dict(state[1])
        updates.append(schedule.step())
        x.grad = gradient(number)
        optimizer.step()
    assert len({update.stage.b_m for update in updates}) == EPOCHS
    torch.testing.assert_close(x.detach(), by_formula(updates), rtol=1e-12, atol=0)
    half_life = math.log(0.5) / math.log(optimizer.param_groups[0]["betas"][1])
    assert half_life * updates[-1].stage.b_m == pytest.approx(
        math.log(0.5) / math.log(BETA2) * 5, rel=1e-12
    )


def test_betas_stay_where_it_is_not_asked_for() -> None:
    x, plan = start(), plan_of()
    optimizer, counter = made_of(x), igo.Counter(plan)
    schedule = igo.Schedule(optimizer, counter)
    for number in range(1, plan.updates + 1):
        schedule.step()
        x.grad = gradient(number)
        optimizer.step()
    assert optimizer.param_groups[0]["betas"] == (BETA1, BETA2)
    assert "initial_beta2" not in optimizer.param_groups[0]


def test_the_largest_v_of_amsgrad_is_scaled_too() -> None:
    x = start()
    optimizer = torch.optim.Adam([x], lr=ETA, betas=(BETA1, BETA2), amsgrad=True)
    for number in range(1, 6):
        x.grad = gradient(number)
        optimizer.step()
    before = adam.preconditioner(optimizer.state[x], optimizer.param_groups[0])
    adam.follow_batch(optimizer, 3.0)
    after = adam.preconditioner(optimizer.state[x], optimizer.param_groups[0])
    assert optimizer.param_groups[0]["betas"] == (BETA1, pytest.approx(BETA2**3, rel=1e-15))
    torch.testing.assert_close(before, after, rtol=1e-12, atol=0)


def test_without_adam_it_is_refused() -> None:
    optimizer = torch.optim.SGD([start()], lr=ETA)
    with pytest.raises(igo.PlanError, match=r"constant_half_life=True .*Adam or AdamW"):
        igo.Schedule(optimizer, igo.Counter(plan_of()), constant_half_life=True)


def test_beside_an_optimizer_without_a_beta_2_it_follows_adams() -> None:
    x, other = start(), nn.Parameter(torch.zeros(2))
    sgd, adamw = torch.optim.SGD([other], lr=ETA), made_of(x)
    schedule = igo.Schedule([sgd, adamw], igo.Counter(plan_of()), constant_half_life=True)
    for number in range(1, 20):
        update = schedule.step()
        x.grad, other.grad = gradient(number), torch.ones(2)
        sgd.step()
        adamw.step()
    assert adamw.param_groups[0]["betas"][1] == pytest.approx(BETA2 ** (update.stage.b_m / 5))


def test_an_entry_that_was_never_reached_is_bounded_as_adams_own_step_is() -> None:
    """Adam with β_1 = 0 moves an entry by at most η/√(1 − β_2): √((1 − β_2^t)/(1 − β_2)) η."""
    x = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    model = nn.Module()
    model.x = x
    optimizer = torch.optim.Adam([x], lr=1.0, betas=(0.0, 0.99), eps=1e-8)
    for _ in range(500):
        x.grad = torch.tensor([1.0, 0.0], dtype=torch.float64)
        optimizer.step()
    spread = adam.SpreadOfSteps(optimizer, model)
    reached = [torch.tensor([1.0, late], dtype=torch.float64) for late in (0.0, 0.3)]
    for g in reached:
        spread.add([g])
    before = x.detach().clone()
    x.grad = reached[1]
    optimizer.step()
    moved = float((x.detach() - before)[1].abs())
    # Two values, 0 and 1/√(1 − β_2): the variance of one-sample gradients is 4 (Δ/2)² · 2 · F.
    bound = spread.noise(batch_size=4, n=10**9).variance / 4 * 2
    assert moved**2 == pytest.approx(bound, rel=0.01)
