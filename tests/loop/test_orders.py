"""The loops of public trainers: each in its own order of batches, counts and steps.

With the lines of igo it trains the plan's batches at its rates, or it is refused or warns.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import chain, count, cycle, islice, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import igo
from igo.ground.seeds import generator

N, EPOCHS, RATE = 80, 8, 0.1
DATA: Any = torch.arange(float(N)).unsqueeze(1)  # sample i is the number i
PLAN = igo.plan("step", n=N, epochs=EPOCHS, stages=2, batch_size=8, gamma=0.5)
STOP = 13  # updates: three into the second epoch


class Run:
    """A start of a training program, which notes the samples and the rate of each update."""

    def __init__(self, stop: int = 0, saved: Any = None, workers: int = 0, **sampler: Any) -> None:
        torch.manual_seed(0)
        self.model, self.stop = nn.Linear(1, 1), stop
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        self.batches = igo.BatchSampler(PLAN, DATA, **sampler)
        self.loader: Any = DataLoader(DATA, batch_sampler=self.batches, num_workers=workers)
        self.schedule = igo.Schedule(self.optimizer, self.batches)
        if saved:
            self.schedule.load_state_dict(saved)
        self.first_epoch = next(self.batches.epochs(), EPOCHS + 1) - 1  # counted from 0
        self.samples: list[int] = []
        self.updates: list[tuple[list[int], float]] = []

    def backward(self, batch: Tensor) -> None:
        self.samples += batch.flatten().int().tolist()
        (self.model(batch / N).square().mean() / 1000).backward()

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates.append((self.samples, self.optimizer.param_groups[0]["lr"]))
        self.samples = []
        if len(self.updates) == self.stop:
            raise Stopped

    def train(self, batch: Tensor) -> None:
        self.backward(batch)
        self.step()


class Stopped(Exception):
    """The program is killed here."""


def imagenet(run: Run) -> None:
    """PyTorch's example: a range of epochs, a scheduler that is left in."""
    scheduler = torch.optim.lr_scheduler.StepLR(run.optimizer, step_size=1)
    loader = run.schedule(run.loader)
    for _ in range(run.first_epoch, EPOCHS):
        for number, batch in enumerate(loader):
            run.train(batch)
            assert number < len(loader)
        scheduler.step()


def timm(run: Run) -> None:
    """It sets an attribute of the loader, and steps its own scheduler after each update."""
    scheduler = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda step: 0.9**step)
    loader = run.schedule(run.loader)
    for epoch in range(run.first_epoch, EPOCHS):
        loader.mixup_enabled = epoch < 2
        for batch in loader:
            run.train(batch)
            scheduler.step()
    assert run.loader.mixup_enabled is False


def composer(run: Run, spins: bool = False) -> None:
    """An event before each batch. After a resume it spins the loader to its own place."""
    spin = run.batches.updates - 10 * run.first_epoch if spins else 0
    for _ in range(run.first_epoch, EPOCHS):
        for batch in islice(run.loader, spin, None):
            run.schedule.step()
            run.train(batch)
        spin = 0


def mmengine(run: Run, skips: bool = False) -> None:
    """By iteration. It looks for a sampler, and after a resume fetches what it had before."""
    assert not hasattr(run.loader.batch_sampler.sampler, "set_epoch")
    updates = run.batches.updates
    endless = chain.from_iterable(run.loader for _ in count())
    for batch in islice(endless, updates if skips else 0, None):
        run.schedule.step()
        run.train(batch)
        if run.batches.done:
            return


def by_next(run: Run) -> None:
    """As detectron2's and Megatron's loops do, with the line of the page."""
    loader = run.schedule(run.loader)
    batches = (batch for _ in run.batches.epochs() for batch in loader)
    while not run.batches.done:
        run.train(next(batches))


class Repeating:
    """As ultralytics' and timm's loaders do to their batch sampler."""

    def __init__(self, sampler: igo.BatchSampler) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            yield from self.sampler


def repeating(run: Run) -> None:
    object.__setattr__(run.loader, "batch_sampler", Repeating(run.batches))
    with pytest.raises(TypeError, match=r"Repeating: give PyTorch's own DataLoader"):
        run.schedule(run.loader)
    for batch in islice(run.loader, PLAN.updates):
        run.schedule.step()
        run.train(batch)


def accumulating(run: Run) -> None:
    for number, batch in enumerate(chain.from_iterable(run.schedule(run.loader) for _ in count())):
        run.backward(batch)
        if number % 4 == 3:
            run.step()


def planned_updates() -> list[tuple[list[int], float]]:
    """Cut by PyTorch: four epochs of 10 batches, then four of 5 at √½ of the rate."""
    updates = []
    for epoch in range(1, EPOCHS + 1):
        order = torch.randperm(N, generator=generator(0, "permutation", epoch))
        rate = RATE if epoch <= 4 else RATE * 0.5**0.5
        updates += [(part.tolist(), rate) for part in order.split(8 if epoch <= 4 else 16)]
    return updates


RIGHT = [imagenet, timm, composer, mmengine, by_next]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("trainer", RIGHT)
def test_a_trainer_trains_the_plan_and_resumes(
    trainer: Callable[[Run], None], workers: int
) -> None:
    run = Run(workers=workers)
    trainer(run)
    assert [samples for samples, _ in run.updates] == [samples for samples, _ in planned_updates()]
    planned_rates = [rate for _, rate in planned_updates()]
    assert [rate for _, rate in run.updates] == pytest.approx(planned_rates, rel=1e-12)
    stopped_run = Run(STOP)
    with pytest.raises(Stopped):
        trainer(stopped_run)
    resumed_run = Run(saved=stopped_run.schedule.state_dict(), workers=workers)
    trainer(resumed_run)
    assert stopped_run.updates + resumed_run.updates == run.updates
    finished_run = Run(saved=run.schedule.state_dict())
    for _ in range(2):  # The first is for update_bn, the second to evaluate.
        assert sum(map(len, finished_run.loader)) == N


def cycling(run: Run) -> None:
    for batch in cycle(run.schedule(run.loader)):
        run.train(batch)


def fetching_ahead(run: Run) -> None:
    for batch, _ in pairwise(chain(run.schedule(run.loader), [None])):
        run.train(batch)


LOUD: list[tuple[Callable[[Run], None], dict[str, Any], str]] = [
    (
        partial(composer, spins=True),
        {"saved": True},
        r"3 of its batches were not counted: .*skips .*spin_dataloaders=False",
    ),
    (
        partial(mmengine, skips=True),
        {"saved": True},
        r"7 of its batches were not counted: leave out what skips",
    ),
    (repeating, {"workers": 2}, r"DataLoader, which does not repeat"),
    (cycling, {}, r"in place of itertools\.cycle"),
    (fetching_ahead, {}, r"inside, schedule\(prefetcher\)"),
    (accumulating, {}, r"of 32 updates 8 had an optimizer\.step.*micro_batch_size="),
    (imagenet, {"micro_batch_size": 4}, r"part 1 of 2 of update 1: step if .*is_last_part"),
]


@pytest.mark.parametrize(("trainer", "options", "words"), LOUD)
def test_what_would_train_something_else_is_loud(
    trainer: Callable[[Run], None], options: dict[str, Any], words: str
) -> None:
    if "saved" in options:
        start = Run(STOP)
        with pytest.raises(Stopped):
            composer(start)
        options = {"saved": start.schedule.state_dict()}
    with pytest.raises((RuntimeError, igo.PlanWarning), match=words):
        trainer(Run(**options))


@pytest.mark.parametrize("steps", [0, 23, 24])
def test_some_updates_may_lack_a_step(steps: int) -> None:
    """An overflow of fp16 leaves out a few, and a CUDA graph's steps are not seen."""
    run = Run()
    run.schedule = igo.Schedule(run.optimizer, igo.Counter(PLAN))
    warned = pytest.warns(igo.PlanWarning, match="of 32 updates 23 had")
    with warned if steps == 23 else nullcontext():
        for number in range(33):
            run.schedule.step()
            if number < steps:
                run.step()


def test_a_trainer_that_fetches_the_next_batch_before_the_step() -> None:
    """nanochat's order. Its accumulation has the line of the page, and its loader none."""
    plan = igo.plan("step", samples=128, stages=2, batch_size=8, batch_multiple=8, gamma=0.5)
    run, counter = Run(), igo.Counter(plan)
    run.schedule = igo.Schedule(run.optimizer, counter)
    stream: Any = torch.arange(1000.0).unsqueeze(1)
    loader = iter(DataLoader(stream, batch_size=8))
    batch = next(loader)
    while not counter.done:
        grad_accum_steps = run.schedule.step().batch_size // 8
        for _ in range(grad_accum_steps):
            run.backward(batch)
            batch = next(loader)
        run.step()
    assert [len(samples) for samples, _ in run.updates] == [8] * 8 + [16] * 4
    assert [*chain(*(samples for samples, _ in run.updates))] == [*range(128)]
    rates = [RATE] * 8 + [RATE * 0.5**0.5] * 4
    assert [rate for _, rate in run.updates] == pytest.approx(rates, rel=1e-12)
    # The counting loader would have a part of the next update before the step.
    counter = igo.Counter(plan, micro_batch_size=4)
    run.schedule = igo.Schedule(run.optimizer, counter)
    micro_batches = iter(run.schedule(counter.parts(DataLoader(DATA, batch_size=4))))
    for _ in range(3):
        run.backward(next(micro_batches))
    with pytest.raises(RuntimeError, match=r"part 1 of 2 of update 2: .*before the next batch"):
        run.step()
