"""Loops that are not the plan's: each is refused or noticed, and none trains something else."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler, swa_utils
from torch.utils.data import DataLoader

import igo


def loop(
    workers: int = 0, epochs: int = 3, **given: Any
) -> tuple[Any, igo.BatchSampler, DataLoader[Tensor], Any]:
    plan = igo.plan(
        "linear", n=40, epochs=epochs, stages=3, learning_rate=0.1, batch_size=8, split=0.5
    )
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    batches = igo.BatchSampler(plan, **given)
    loader = DataLoader(torch.arange(40.0), batch_sampler=batches, num_workers=workers)
    return optimizer, batches, loader, igo.Schedule(optimizer, batches)


def test_an_update_without_its_step_of_the_schedule_is_refused() -> None:
    optimizer, _, loader, schedule = loop()
    next(iter(loader))
    with pytest.raises(RuntimeError, match="not once an epoch, and not after the update"):
        optimizer.step()
    schedule.step()
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"schedule\.step\(\) before"):
        optimizer.step()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_is_skipped_before_step_is_noticed(workers: int) -> None:
    optimizer, batches, loader, schedule = loop(workers)

    def train() -> None:
        for _ in batches.epochs():
            for number, _ in enumerate(loader):
                if number == 2:
                    continue  # the loss is NaN
                schedule.step()
                optimizer.step()

    with pytest.raises(RuntimeError, match=r"1 of the loader's batches .*skip optimizer\.step"):
        train()


@pytest.mark.parametrize("parts", [None, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_first_batch_that_is_skipped_is_noticed_at_the_next_step(
    workers: int, parts: int | None
) -> None:
    _, _, loader, schedule = loop(workers, parts=parts)
    for _ in range(2):  # also where an epoch goes on, with batches to come that are few
        for number, _ in enumerate(loader):
            if number == 0:
                continue  # a warm-up of the user's own
            with pytest.warns(igo.PlanWarning, match="1 of the loader's batches were taken before"):
                schedule.step()
            break
    for _ in itertools.islice(loader, 2, 3):
        with pytest.warns(igo.PlanWarning, match="2 of the loader's batches were taken before"):
            schedule.step()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("error")
def test_batches_that_a_generator_holds_are_not_skipped(workers: int) -> None:
    _, batches, loader, schedule = loop(workers)

    def prefetched() -> Iterator[Tensor]:
        held: Tensor | None = None
        for batch in loader:
            if held is not None:
                yield held
            held = batch
        yield held

    for _ in batches.epochs():
        for _ in prefetched():
            schedule.step()
    assert batches.done


@pytest.mark.filterwarnings("ignore:Exception ignored in.*_Stateful")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_is_refused(workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    _, batches, _, _ = loop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        loader = stateful.StatefulDataLoader(
            torch.arange(40.0), batch_sampler=batches, num_workers=workers
        )
        with pytest.raises(RuntimeError, match=r"save batches\.state_dict\(\)"):
            next(iter(loader))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_may_be_left_early(workers: int) -> None:
    optimizer, batches, loader, schedule = loop(workers)
    seen: list[int] = []
    for _ in batches.epochs():
        for batch in loader:
            update = schedule.step()
            optimizer.step()
            seen += batch.tolist()
            if update.batch == 3 and len(seen) < 40:
                break
    assert sorted(seen) == sorted(list(range(40)) * 3)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("after_the_update", [True, False])
def test_another_scheduler_beside_it_is_refused(after_the_update: bool) -> None:
    optimizer, _, _, schedule = loop()
    schedule.step()
    other = lr_scheduler.ExponentialLR(optimizer, 0.5)
    if after_the_update:
        optimizer.step()
    other.step()
    with pytest.raises(RuntimeError, match="something else writes it"):
        (schedule if after_the_update else optimizer).step()


def test_rates_of_another_training_are_refused_when_loaded() -> None:
    optimizer, _, _, schedule = loop()
    other = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.7)
    optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
    with pytest.raises(igo.PlanError, match=r"made with 0\.7; give both the same"):
        schedule.step()


def test_the_newest_schedule_counts_and_the_older_says_so() -> None:
    optimizer, batches, _, schedule = loop()
    second = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=0.1)
    newest = igo.Schedule(second, batches)
    with pytest.raises(RuntimeError, match=r"Schedule\(\[first, second\], batches\)"):
        schedule.step()
    newest.step()
    second.step()
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_several_optimizers_have_one_schedule() -> None:
    plan = igo.plan("linear", n=40, epochs=5, learning_rate=0.1, batch_size=8, split=1)
    first = torch.optim.Muon([nn.Parameter(torch.ones(2, 2))], lr=0.02)
    second = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=0.1)
    schedule = igo.Schedule([first, second], igo.BatchSampler(plan))
    for m in range(5):
        for _ in range(5):
            schedule.step()
            first.step()
            second.step()
            rates = [optimizer.param_groups[0]["lr"] for optimizer in (first, second)]
            assert rates == pytest.approx([0.02 * (1 - m / 5), 0.1 * (1 - m / 5)], rel=1e-12)


def test_an_optimizer_that_never_steps_is_named() -> None:
    plan = igo.plan("linear", n=400, epochs=2, learning_rate=0.1, batch_size=8)
    optimizers = [torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1) for _ in range(2)]
    schedule = igo.Schedule(optimizers, igo.BatchSampler(plan))

    def train() -> None:
        for _ in range(40):
            schedule.step()
            optimizers[0].step()

    with pytest.raises(RuntimeError, match="optimizer 2 of 2 made no step in 16 updates"):
        train()


def test_an_update_amid_its_parts_is_refused() -> None:
    optimizer, batches, loader, schedule = loop(parts=4)
    ended = 0
    for _ in loader:
        update = schedule.step()
        if update.ends:
            optimizer.step()
            ended += 1
        else:
            with pytest.raises(RuntimeError, match="after part 1 of 2"):
                optimizer.step()
    assert ended == batches.updates == 5


def _update_bn(loader: DataLoader[Tensor]) -> None:
    swa_utils.update_bn(loader, nn.Sequential(nn.BatchNorm1d(1)))


def _evaluate(loader: DataLoader[Tensor]) -> None:
    with torch.no_grad():
        for _ in loader:
            pass


@pytest.mark.parametrize("use", [_update_bn, _evaluate])
@pytest.mark.parametrize("updates", [0, 2])
def test_the_training_loader_is_not_for_evaluation(
    use: Callable[[DataLoader[Tensor]], None], updates: int
) -> None:
    _, batches, loader, _ = loop()
    batches.updates = updates
    with pytest.raises(RuntimeError, match=r"batches\.evaluation\(batch_size\)"):
        use(loader)
    plain = DataLoader(torch.arange(40.0), batch_sampler=batches.evaluation(16))
    with torch.no_grad():
        assert torch.cat(list(plain)).tolist() == list(range(40))


@pytest.mark.parametrize("workers", [0, 2])
def test_two_steps_of_the_schedule_for_one_batch_are_refused_at_the_second(workers: int) -> None:
    optimizer, _, loader, schedule = loop(workers)
    for _ in loader:
        schedule.step()
        optimizer.step()
        with pytest.raises(RuntimeError, match=r"called 2 times .* for 1 of .*: call it once"):
            schedule.step()
        break


def test_a_loader_that_does_not_use_the_sampler_is_noticed_at_the_first_step() -> None:
    optimizer, batches, _, schedule = loop()
    for _ in batches.epochs():
        loader = iter(DataLoader(torch.arange(40.0), batch_size=4, shuffle=True))
        next(loader)
        with pytest.warns(igo.PlanWarning, match="no loader has taken batches from this sampler"):
            schedule.step()
        optimizer.step()
        next(loader)
        schedule.step()  # warned once an epoch: warnings are errors here
        break


@pytest.mark.parametrize(
    ("every", "message"), [(4, "made 8: .*parts="), (99, "made 0: call it for each")]
)
def test_fewer_steps_than_updates_are_noticed(every: int, message: str) -> None:
    """Accumulation without parts, whose batches are four times b; and no step at all."""
    optimizer, _, _, schedule = loop(epochs=10)
    for number in range(1, 33):
        schedule.step()
        if number % every == 0:
            optimizer.step()
    with pytest.warns(igo.PlanWarning, match=f"of 32 updates .* {message}"):
        schedule.step()


def test_steps_that_a_scaler_skips_are_no_accumulation() -> None:
    """Warnings are errors here."""
    optimizer, _, _, schedule = loop(epochs=10)
    for number in range(1, 36):
        schedule.step()
        if number not in (3, 5, 6):
            optimizer.step()


def test_a_resume_without_the_samplers_state_is_noticed() -> None:
    optimizer, batches, _, schedule = loop()
    for _ in range(8):
        schedule.step()
    assert optimizer.param_groups[0]["lr"] < 0.1
    other, again, _, resumed = loop()
    other.load_state_dict(optimizer.state_dict())
    with pytest.warns(igo.PlanWarning, match="load the sampler's state too"):
        resumed.step()
    other, again, _, resumed = loop()
    other.load_state_dict(optimizer.state_dict())
    again.load_state_dict(batches.state_dict())
    resumed.step()


@pytest.mark.parametrize("given", [{"batch_size": 16}, {}])
def test_a_stream_in_batches_of_its_own_is_refused(given: dict[str, int]) -> None:
    counter = igo.Counter(igo.plan("constant", samples=80, learning_rate=0.1, batch_size=8))
    loader = DataLoader(torch.arange(40.0), **given)
    with pytest.raises(igo.PlanError, match="batch_size=None"):
        next(counter.batches(loader))


def test_arguments_in_the_wrong_order_are_named() -> None:
    optimizer, batches, loader, _ = loop()
    swapped: list[tuple[Callable[..., Any], tuple[Any, ...], str]] = [
        (igo.Schedule, (optimizer, batches.plan), "batches is a Plan"),
        (igo.Schedule, (batches, optimizer), "batches is a SGD"),
        (igo.BatchSampler, (loader, batches.plan), "not a DataLoader"),
    ]
    for make, arguments, words in swapped:
        with pytest.raises(TypeError, match=words):
            make(*arguments)
    with pytest.raises(igo.PlanError, match="by_momentum=True"):
        igo.Schedule(optimizer, batches, noise=igo.Noise(1.0, None, 1.0, 8, 2, "disjoint", None))
