"""What ``Schedule`` writes into optimizers."""

import copy
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import rounded
from looped import sgd
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import lr_scheduler

import igo
from igo.plans.plan import Plan


def plan(**changed: Any) -> Plan:
    arguments = {"n": 12, "epochs": 5, "learning_rate": 0.1, "batch_size": 4, "p": 0.5, "split": 1}
    return igo.plan("graduated", **{**arguments, **changed})


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.ones(1))


def scheduled(optimizers: Any) -> igo.Schedule:
    return igo.Schedule(optimizers, igo.Counter(plan()))


@pytest.mark.parametrize(
    ("kind", "tensor"), [(torch.optim.AdamW, True), (torch.optim.Adafactor, False)]
)
def test_each_group_follows_pytorchs_own_scheduler(kind: Any, tensor: bool) -> None:
    def make() -> Any:
        rates = 0.1, torch.tensor(0.01) if tensor else 0.01
        groups = [{"params": [nn.Parameter(torch.ones(2, 2))], "lr": rate} for rate in rates]
        return kind(groups)

    optimizer, their_optimizer = make(), make()
    groups = optimizer.param_groups
    tensor_rate, betas = groups[1]["lr"], groups[0].get("betas")
    schedule = scheduled(optimizer)
    scheduler = lr_scheduler.PolynomialLR(their_optimizer, total_iters=5, power=0.5)
    for epoch in range(5):
        their_rates = [float(group["lr"]) for group in their_optimizer.param_groups]
        for _ in range(3):
            update = schedule.step()
            assert update.epoch == epoch + 1
            assert schedule.get_last_lr() == pytest.approx(their_rates, rel=1e-6)
        assert schedule.learning_rate == pytest.approx(update.row.eta_m, rel=1e-6)
        their_optimizer.step()
        scheduler.step()
    assert groups[0].get("betas") == betas
    assert not tensor or groups[1]["lr"] is tensor_rate


@pytest.mark.filterwarnings("ignore")  # PyTorch warns.
@pytest.mark.parametrize("order", ["schedule", "optimizer"])
def test_a_resumed_optimizer_goes_on_whatever_is_loaded_first(order: str, tmp_path: Path) -> None:
    """Through torch.distributed.checkpoint, which loads only what the new optimizer has already."""

    def training() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Linear(1, 1)
        groups: Any = [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.02}]
        return model, torch.optim.SGD(groups, lr=0.1)

    def run(optimizer: torch.optim.Optimizer, schedule: igo.Schedule, steps: int) -> list[Any]:
        rates = []
        for _ in range(steps):
            rates.append((schedule.step().learning_rate, schedule.get_last_lr()))
            optimizer.step()
        return rates

    model, optimizer = training()
    schedule = scheduled(optimizer)
    run(optimizer, schedule, 8)
    save({"optimizer": get_optimizer_state_dict(model, optimizer)}, checkpoint_id=tmp_path)
    torch.save(schedule.state_dict(), tmp_path / "schedule.pt")
    rates = run(optimizer, schedule, 7)

    new_model, new_optimizer = training()

    def load_optimizer() -> None:
        state: Any = get_optimizer_state_dict(new_model, new_optimizer)
        load({"optimizer": state}, checkpoint_id=tmp_path)
        set_optimizer_state_dict(new_model, new_optimizer, state)

    if order == "optimizer":
        load_optimizer()
    new_schedule = scheduled(new_optimizer)
    new_schedule.load_state_dict(torch.load(tmp_path / "schedule.pt", weights_only=True))
    if order == "schedule":
        load_optimizer()
    assert run(new_optimizer, new_schedule, 7) == rates


def test_timms_layer_decay_is_applied() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model.group_matcher = lambda coarse: {"0": r"^0", "1": r"^1"}
    timm = pytest.importorskip("timm.optim")
    optimizer = timm.create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=0.1, layer_decay=0.5)
    their_optimizer = pytest.importorskip("timm.scheduler").PolyLRScheduler(
        optimizer, t_initial=5, power=0.5
    )
    factors = []
    for epoch in range(5):
        their_optimizer.step(epoch)
        factors += 3 * [[group["lr"] for group in optimizer.param_groups]]
    their_optimizer.step(0)
    schedule = scheduled(optimizer)
    for rates in factors:
        assert schedule.step().learning_rate == schedule.learning_rate
        assert schedule.get_last_lr() == rounded(rates)
    assert len({*rates}) == 2


def test_several_optimizers_have_one_schedule_and_each_may_have_another_one_later() -> None:
    the_plan = igo.plan("linear", n=40, epochs=5, batch_size=8, split=1)
    muon = torch.optim.Muon([nn.Parameter(torch.ones(2, 2))], lr=0.02)
    adamw = torch.optim.AdamW([parameter()], lr=0.1)
    schedule = igo.Schedule([muon, adamw], igo.Counter(the_plan))
    for m in range(5):
        for _ in range(5):
            schedule.step()
            muon.step()
            adamw.step()
            rates = [optimizer.param_groups[0]["lr"] for optimizer in (muon, adamw)]
            assert rates == rounded([0.02 * (1 - m / 5), 0.1 * (1 - m / 5)])
    igo.Schedule(adamw, igo.Counter(the_plan))  # A notebook's cell may run again.
    igo.Schedule(adamw, igo.Counter(the_plan)).step()  # It goes on from its own rate.
    adamw.step()
    assert adamw.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("rate", ["of the moment", "none", "a tensor"])
def test_a_group_that_comes_later_has_the_rate_of_that_moment_or_of_the_optimizer(
    rate: str,
) -> None:
    """In mid-warm-up, too, and before the first update after a resume."""
    initial_rate: Any = torch.tensor(0.1, dtype=torch.float64) if rate == "a tensor" else 0.1
    warming = plan(warmup_samples=24)

    def training() -> tuple[torch.optim.Optimizer, igo.Counter]:
        return sgd(initial_rate), igo.Counter(warming)

    (stopped_optimizer, stopped_counter), (optimizer, counter) = training(), training()
    schedule = igo.Schedule(stopped_optimizer, stopped_counter)
    for _ in range(4):
        schedule.step()
    schedule = igo.Schedule(optimizer, counter)
    optimizer.load_state_dict(copy.deepcopy(stopped_optimizer.state_dict()))
    counter.load_state_dict(stopped_counter.state_dict())
    options = {} if rate == "none" else {"lr": copy.deepcopy(optimizer.param_groups[0]["lr"])}
    optimizer.add_param_group({"params": [parameter()], **options})
    while not counter.done:
        eta = schedule.step().learning_rate
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        assert rates == rounded([eta, eta])


@pytest.mark.parametrize("skipped", [0, 1, 2])
@pytest.mark.parametrize("loop", ["steps", "overflows", "has no backward"])
def test_a_loop_that_skips_batches_after_a_resume_is_refused(loop: str, skipped: int) -> None:
    """Not one whose first updates overflow in fp16, which has gradients and no step.

    One that leaves out its first update, because the loss is not finite, warns.
    """
    batches_before = scheduled(sgd())
    for _ in range(2):
        batches_before.step()
    weight = parameter()
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    schedule = scheduled(optimizer)
    schedule.load_state_dict(batches_before.state_dict())

    def train() -> None:
        for number in range(3):
            schedule.step()
            if loop == "has no backward":
                weight.grad = torch.ones(1)
                optimizer.step()
            else:
                factor = 2.0**120 if loop == "overflows" and number < 2 else 1.0
                scaler.scale((weight * factor).sum()).backward()
                scaler.step(optimizer)
                scaler.update()
            optimizer.zero_grad()

    for _ in range(skipped):
        schedule.step()
    words = f"{skipped} of the first updates .*leave out what skips batches"
    if skipped == 2:
        with pytest.raises(RuntimeError, match=words):
            train()
        return
    with pytest.warns(igo.PlanWarning, match=words) if skipped else nullcontext():
        train()
    assert not weight._backward_hooks, "it costs nothing later"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one epoch of five
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda view: pickle.loads(pickle.dumps(view))])
@pytest.mark.parametrize("when", ["new", "running", "loaded"])
def test_a_copy_of_a_schedule_goes_on_by_itself_and_is_a_witness(
    copied: Callable[[Any], Any], when: str
) -> None:
    optimizer = sgd()
    schedule = igo.Schedule(optimizer, igo.BatchSampler(plan(), range(12)))
    sampler: Any = schedule.batches
    view = schedule(sampler)
    if when == "running":
        for _ in view:
            optimizer.step()
            break
    if when == "loaded":
        schedule.load_state_dict(schedule.state_dict())
    other_view = copied(view)
    other = other_view.schedule
    if when != "running":
        with pytest.raises(RuntimeError, match="came before the schedule's first update"):
            other.optimizers[0].step()
    rates = []
    for batch in other_view:
        other.optimizers[0].step()
        rates.append((batch, other.learning_rate))
    assert len(rates) == 3 - (when == "running")
    assert other.batches.updates == 3
    originals = [(batch, schedule.learning_rate) for batch in view if optimizer.step() is None]
    assert rates == originals


def test_a_schedule_that_goes_back_to_a_state_begins_anew() -> None:
    """A step before its next batch is none of the plan's, and the second pass warns of nothing."""
    optimizer = sgd()
    sampler: Any = igo.BatchSampler(plan(), range(12))
    schedule = igo.Schedule(optimizer, sampler)
    state = schedule.state_dict()
    for _ in schedule(sampler):
        optimizer.step()
    schedule.load_state_dict(state)
    with pytest.raises(RuntimeError, match="came before the schedule's first update"):
        optimizer.step()
    for _ in sampler.epochs():
        for _ in schedule(sampler):
            optimizer.step()


def test_a_state_is_of_these_groups_and_of_this_plan() -> None:
    first, second = ({"params": [parameter()], "lr": rate} for rate in (0.1, 0.2))
    schedule = igo.Schedule(torch.optim.SGD([first, second]), igo.BatchSampler(plan(), range(12)))
    state = schedule.state_dict()
    cases: list[tuple[str, list[Any], str]] = [
        ("base_lrs", [[], [[0.1]], [[0.1, 0.2], [0.1]]], r"have \[2\] parameter groups"),
        ("base_lrs", [None, [["0.1", 0.2]]], "base_lrs=.* damaged"),
        ("updates", [16, -3], r"updates=-?\d+ .* the plan has 15"),
        ("updates", ["x", None, 2.5, True], "updates=.* damaged"),
        ("seed", ["0"], "seed='0' .* damaged"),
        ("rates", [None, ["a"]], "rates=.* damaged"),
        ("arguments", [[]], "arguments=.* damaged"),
    ]
    for name, values, words in cases:
        for value in values:
            with pytest.raises(igo.PlanError, match=words):
                schedule.load_state_dict({**state, name: value})
            assert schedule.state_dict() == state
    schedule.load_state_dict({**state, "updates": 15})
    assert schedule.batches.done


class Container(torch.optim.Optimizer):
    """Torchtitan's: an optimizer in name, whose own groups lack a rate."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        super().__init__([p for o in optimizers for g in o.param_groups for p in g["params"]], {})
        self.optimizers = optimizers


def test_a_container_has_the_optimizers_inside() -> None:
    optimizers: list[Any] = [sgd(), sgd()]
    for container in (Container(optimizers), [Container(optimizers)]):
        schedule = scheduled(container)
        assert schedule.optimizers == optimizers
    with pytest.raises(igo.PlanError, match="lr is missing: the optimizer chooses its"):
        igo.Schedule(torch.optim.Optimizer([parameter()], {}), igo.Counter(plan()))
