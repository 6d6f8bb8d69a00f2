"""Uses of the public loop: each trains the plan's batches at its rates, or is refused in a line."""

from __future__ import annotations

import copy
import itertools
import pickle
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

import igo
from igo.ground.seeds import generator

N, EPOCHS, RATE = 40, 3, 0.1
DATA: Any = torch.arange(float(N)).unsqueeze(1)  # sample i is the number i


class Loop:
    """All that a loop of one's own has; ``seen`` are the samples and the rate of each update."""

    def __init__(self, workers: int = 0, **given: Any) -> None:
        self.plan = igo.plan("linear", n=N, epochs=EPOCHS, batch_size=8, split=0.5)
        self.model = nn.BatchNorm1d(1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        self.batches = igo.BatchSampler(self.plan, DATA, **given)
        self.loader: DataLoader[Tensor] = DataLoader(
            DATA, batch_sampler=self.batches, num_workers=workers, persistent_workers=workers > 0
        )
        self.schedule = igo.Schedule(self.optimizer, self.batches)
        self.seen: list[tuple[list[int], float]] = []

    def train(self, batch: Tensor) -> None:
        self.seen.append((batch.flatten().int().tolist(), self.schedule.learning_rate))
        self.optimizer.step()

    def epoch(self, wrapped: Callable[[Any], Iterable[Any]] = iter) -> None:
        for batch in self.schedule(wrapped(self.loader)):
            self.train(batch)


def planned() -> list[tuple[list[int], float]]:
    """Cut by PyTorch, with the rates of the plan's table."""
    plan, wanted = Loop().plan, []
    for epoch, row in enumerate(plan.rows, 1):
        order = torch.randperm(N, generator=generator(0, "permutation", epoch))
        wanted += [(part.tolist(), RATE * row.eta_m) for part in order.tensor_split(row.batches)]
    return wanted


def by_epochs(loop: Loop) -> None:
    for _ in loop.batches.epochs():
        loop.epoch()


def by_range(loop: Loop) -> None:
    for _ in range(EPOCHS):
        loop.epoch()


def by_callback(loop: Loop) -> None:
    for _ in range(EPOCHS):
        for batch in loop.loader:
            loop.schedule.step()
            loop.train(batch)


def beside_another_iterable(loop: Loop) -> None:
    for _ in loop.batches.epochs():
        for batch, _ in loop.schedule(zip(loop.loader, itertools.count(), strict=False)):
            loop.train(batch)


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


def through_prefetchers(loop: Loop) -> None:
    for _ in loop.batches.epochs():
        loop.epoch(from_a_thread if loop.batches.updates else held_back)


def left_early(loop: Loop) -> None:
    """The next loop finishes the epoch."""
    for _ in loop.batches.epochs():
        for number, batch in enumerate(loop.schedule(loop.loader)):
            loop.train(batch)
            if number == 2:
                break


def with_a_look_at_a_batch(loop: Loop) -> None:
    for _ in loop.batches.epochs():
        for batch in loop.schedule(loop.loader):
            loop.train(batch)
            if len(loop.seen) == 2:
                next(iter(DataLoader(DATA, batch_sampler=loop.batches)))


def skipping_a_loss_that_is_not_finite(loop: Loop) -> None:
    for _ in loop.batches.epochs():
        for batch in loop.schedule(loop.loader):
            loop.seen.append((batch.flatten().int().tolist(), loop.schedule.learning_rate))
            if len(loop.seen) % 2:
                continue
            loop.optimizer.step()


def with_more_steps_than_batches(loop: Loop) -> None:
    """A critic that is stepped three times a batch, and a step after the plan."""
    for _ in loop.batches.epochs():
        for batch in loop.schedule(loop.loader):
            loop.train(batch)
            loop.optimizer.step()
    loop.optimizer.step()


def copied_in_mid_epoch(loop: Loop) -> None:
    for batch in loop.schedule(loop.loader):
        loop.train(batch)
        if len(loop.seen) == 3:
            break
    for copied in (copy.deepcopy(loop.batches), pickle.loads(pickle.dumps(loop.batches))):
        assert list(copied) == list(loop.batches)
    by_epochs(loop)


def resumed_with_other_workers(loop: Loop) -> None:
    for batch in loop.schedule(loop.loader):
        loop.train(batch)
        if len(loop.seen) == 3:
            break
    again = Loop(workers=2 - loop.loader.num_workers, seed=1)
    again.optimizer.load_state_dict(loop.optimizer.state_dict())
    again.batches.load_state_dict(loop.batches.state_dict())
    again.seen = loop.seen
    by_epochs(again)


def with_statistics_of_all_samples(loop: Loop) -> None:
    """Over the training loader, after each epoch and after the plan."""
    for _ in loop.batches.epochs():
        loop.epoch()
        update_bn(loop.loader, loop.model)
        assert float(loop.model.running_mean) == pytest.approx((N - 1) / 2, rel=0.05)
    assert sorted(torch.cat([*loop.loader]).flatten().tolist()) == list(range(N))


RIGHT = [
    by_epochs, by_range, by_callback, beside_another_iterable, through_prefetchers, left_early,
    with_a_look_at_a_batch, skipping_a_loss_that_is_not_finite, with_more_steps_than_batches,
    copied_in_mid_epoch, resumed_with_other_workers, with_statistics_of_all_samples,
]  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("use", RIGHT)
def test_a_use_trains_the_plan(use: Callable[[Loop], None], workers: int) -> None:
    loop = Loop(workers)
    use(loop)
    assert loop.seen == planned()


def counted_twice(loop: Loop) -> None:
    for _ in loop.schedule(loop.loader):
        loop.schedule.step()


def with_another_loader(loop: Loop) -> None:
    next(loop.schedule(DataLoader(DATA, batch_size=8, shuffle=True)))


def without_the_schedule(loop: Loop) -> None:
    for _ in loop.batches.epochs():
        for batch in loop.loader:
            loop.train(batch)


def after_the_plan(loop: Loop) -> None:
    by_epochs(loop)
    loop.epoch()


def resumed_within_a_pass(loop: Loop) -> None:
    state = loop.batches.state_dict()
    for number, _ in enumerate(loop.schedule(loop.loader)):
        if number == 2:
            loop.batches.load_state_dict(state)


NOT_GIVEN = r"gave no batch for it: .*batch_sampler=batches .*count each batch once"
REFUSED = [
    (counted_twice, NOT_GIVEN),
    (with_another_loader, NOT_GIVEN),
    (without_the_schedule, r"no update was counted in epoch 1: loop over schedule\(loader\)"),
    (after_the_plan, "all 11 updates of the plan are done"),
    (resumed_within_a_pass, NOT_GIVEN),
]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("use", "words"), REFUSED)
def test_a_use_is_refused(use: Callable[[Loop], None], words: str, workers: int) -> None:
    with pytest.raises(RuntimeError, match=words) as raised:
        use(Loop(workers))
    assert "\n" not in str(raised.value)


def sgd(**group: Any) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], **group}], lr=RATE)


def own(t: float, *, k: Any) -> float:
    """A profile that is given what was typed: a whole number, a list."""
    assert type(k) in (int, list)
    return 1 - t / 2


def plan(profile: Any = "linear", **given: Any) -> Any:
    return igo.plan(profile, **{"n": N, "epochs": EPOCHS, "batch_size": 8, **given})


def sampler(**given: Any) -> igo.BatchSampler:
    return igo.BatchSampler(plan(), DATA, **given)


ARGUMENTS: list[tuple[Callable[[], Any], str | None]] = [
    (lambda: igo.Schedule(sgd(), plan()), "batches is a Plan"),
    (lambda: igo.Schedule(sampler(), sgd()), "batches is a SGD"),
    (lambda: igo.Schedule([torch.zeros(1)], sampler()), "optimizer is a Tensor"),
    (lambda: igo.Schedule(sgd(lr=None), sampler()), "lr is missing: the optimizer chooses its"),
    (lambda: igo.BatchSampler(DataLoader(DATA), plan()), "not a DataLoader"),
    (lambda: igo.BatchSampler(plan(), DATA[1:]), "has 39 samples; make the plan with n=len"),
    (lambda: igo.BatchSampler(plan(), iter(DATA)), "use igo.Counter for it"),
    (lambda: sampler(seed=1.5), "seed=1.5 .* must be a whole number"),
    (lambda: sampler(seed=None), "seed=None .* must be a whole number"),
    (lambda: sampler(seed=np.int64(3), micro_batch_size=np.int64(3)), None),
    (lambda: sampler(micro_batch_size=0), "micro_batch_size=0 .* must be 1 or more"),
    (lambda: sampler(rank=1), "ranks is missing"),
    (lambda: sampler(rank=2, ranks=2), r"rank=2 .* in \[0, 2\)"),
    (lambda: sampler(rank=0, ranks=2, group=object()), "group=.* not both"),
    (lambda: plan(own, k=4), None),
    (lambda: plan(own, k=[1, 2]), None),
    (lambda: plan("graduated", p=[1]), r"p='?\[1\]'? .* must be a number"),
    (lambda: plan(lr=0.1), "lr=0.1 .* Did you mean 'learning_rate'"),
    (lambda: igo.NoiseMeter(ddp(), 10), "no part has a gradient of its own"),
    (lambda: igo.NoiseMeter(sharded(), 10), "no part has a gradient of its own"),
]


def ddp() -> nn.Module:
    kind = nn.parallel.DistributedDataParallel
    return kind.__new__(kind)


def sharded() -> nn.Module:
    model = nn.Linear(1, 1)
    model.weight.device_mesh = "as of FSDP"
    return model


@pytest.mark.parametrize("number", range(len(ARGUMENTS)))
def test_an_argument_is_taken_or_refused_in_a_line(number: int) -> None:
    make, words = ARGUMENTS[number]
    if words is None:
        make()
        return
    with pytest.raises((TypeError, ValueError), match=words) as raised:
        make()
    assert "\n" not in str(raised.value)
