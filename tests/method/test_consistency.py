"""Loops that are not the plan's are refused, and correct ones of any kind are not."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import igo


def loop(
    workers: int = 0, epochs: int = 3, **given: Any
) -> tuple[Any, igo.BatchSampler, DataLoader[Tensor], Any]:
    data = torch.arange(40.0)
    plan = igo.plan("linear", n=len(data), epochs=epochs, stages=3, batch_size=8, split=0.5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    batches = igo.BatchSampler(plan, data, **given)
    loader = DataLoader(data, batch_sampler=batches, num_workers=workers)
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
@pytest.mark.parametrize("skipped", [{2}, {0, 3}])
def test_batches_that_are_never_counted_end_the_epoch_with_an_error(
    workers: int, skipped: set[int]
) -> None:
    """Skipping the first batch alone is seen only where nothing is fetched ahead before it."""
    optimizer, batches, loader, schedule = loop(workers, epochs=9)

    def train() -> None:
        for _ in batches.epochs():
            for number, _ in enumerate(loader):
                if number in skipped:
                    continue  # the loss is NaN
                schedule.step()
                optimizer.step()

    count = len(skipped - {0})
    with pytest.raises(RuntimeError, match=rf"{count} of the loader's .*skip optimizer\.step"):
        train()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_is_counted_twice_is_refused(workers: int) -> None:
    _, _, loader, schedule = loop(workers)

    def train() -> None:
        for _ in loader:
            schedule.step()
            schedule.step()

    with pytest.raises(RuntimeError, match=r"was called \d times for \d batches .*: call it once"):
        train()


def test_a_loader_that_does_not_use_the_sampler_is_refused_at_the_first_step() -> None:
    _, batches, _, schedule = loop()
    next(batches.epochs())
    next(iter(DataLoader(torch.arange(40.0), batch_size=4, shuffle=True)))
    with pytest.raises(RuntimeError, match=r"for 0 batches .*batch_sampler=batches"):
        schedule.step()


def held_back(loader: Iterable[Tensor]) -> Iterator[Tensor]:
    held: Tensor | None = None
    for batch in loader:
        if held is not None:
            yield held
        held = batch
    assert held is not None
    yield held


def from_a_thread(loader: Iterable[Tensor]) -> Iterator[Tensor]:
    fetched: queue.Queue[Tensor | None] = queue.Queue(3)

    def fetch() -> None:
        for batch in loader:
            fetched.put(batch)
        fetched.put(None)

    threading.Thread(target=fetch, daemon=True).start()
    yield from iter(fetched.get, None)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("prefetcher", [held_back, from_a_thread])
def test_prefetchers_of_ones_own_train_the_plan(prefetcher: Any, workers: int) -> None:
    _, batches, loader, schedule = loop(workers)
    for _ in batches.epochs():
        for _ in prefetcher(loader):
            schedule.step()
    assert batches.done


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


def test_the_newest_schedule_counts_and_the_older_says_so() -> None:
    optimizer, batches, _, schedule = loop()
    second = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=0.1)
    newest = igo.Schedule(second, batches)
    with pytest.raises(RuntimeError, match=r"Schedule\(\[first, second\], batches\)"):
        schedule.step()
    newest.step()
    second.step()
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_second_plan_of_one_optimizer_replaces_the_first() -> None:
    optimizer, _, _, schedule = loop()
    for _ in range(8):
        schedule.step()
    data = torch.arange(40.0)
    plan = igo.plan("constant", n=40, epochs=1, batch_size=20)
    again = igo.Schedule(optimizer, igo.BatchSampler(plan, data))
    again.step()
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0.1  # of η_1, which the optimizer was made with


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


@pytest.mark.parametrize("given", [{"batch_size": 16}, {}])
def test_a_stream_in_batches_of_its_own_is_refused(given: dict[str, int]) -> None:
    counter = igo.Counter(igo.plan("constant", samples=80, batch_size=8))
    loader = DataLoader(torch.arange(40.0), **given)
    with pytest.raises(igo.PlanError, match="batch_size=None"):
        next(counter.batches(loader))


def test_arguments_in_the_wrong_place_are_named() -> None:
    optimizer, batches, loader, _ = loop()
    swapped: list[tuple[Any, tuple[Any, ...], str]] = [
        (igo.Schedule, (optimizer, batches.plan), "batches is a Plan"),
        (igo.Schedule, (batches, optimizer), "batches is a SGD"),
        (igo.Schedule, ([torch.zeros(1)], batches), "optimizer is a Tensor"),
        (igo.BatchSampler, (loader, batches.plan), "not a DataLoader"),
    ]
    for make, arguments, words in swapped:
        with pytest.raises(TypeError, match=words):
            make(*arguments)
    for seed in (None, 1.5, torch.tensor(0)):
        with pytest.raises(igo.PlanError, match=r"seed.* must be a whole number"):
            igo.BatchSampler(batches.plan, torch.arange(40.0), seed=seed)
    with pytest.raises(igo.PlanError, match=r"n=40 .* has 9 samples; make the plan with n=len"):
        igo.BatchSampler(batches.plan, torch.arange(9.0))
    with pytest.raises(igo.PlanError, match=r"lr is missing: the optimizer chooses its rate"):
        igo.Schedule(
            torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": None}]), batches
        )
