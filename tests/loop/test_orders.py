"""The loops of public trainers and of users, each in its own order of batches, counts and steps.

With the lines of igo it trains the plan's batches at its rates, or it is refused or warns.
"""

import copy
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import chain, count, cycle, islice, pairwise, repeat
from typing import Any

import pytest
import torch
from conftest import rounded
from looped import DATA, EPOCHS, PLAN, RATE, Loop, N, measured, sgd
from torch import Tensor
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader
from tqdm import tqdm

import igo
from igo.ground.seeds import generator

STOP = 15  # updates: three into the second epoch
Use = Callable[[Loop], Iterator[Tensor]]  # Each batch that it yields is trained.


def epochs_left(loop: Loop) -> range:
    """As a script has them, counted from 0."""
    return range(next(loop.batches.epochs()) - 1, EPOCHS)


def imagenet(loop: Loop) -> Iterator[Tensor]:
    """PyTorch's example: a range of epochs, a scheduler that is left in."""
    scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, step_size=1)
    loader = loop.schedule(loop.loader)
    for _ in epochs_left(loop):
        for number, batch in enumerate(loader):
            yield batch
            assert number < len(loader)
        scheduler.step()


def timm(loop: Loop) -> Iterator[Tensor]:
    """It sets an attribute of the loader, and steps its own scheduler after each update."""
    scheduler = torch.optim.lr_scheduler.LambdaLR(loop.optimizer, lambda step: 0.9**step)
    loader = loop.schedule(loop.loader)
    for epoch in epochs_left(loop):
        loader.mixup_enabled = epoch < 2
        for batch in loader:
            yield batch
            scheduler.step()
    assert loop.loader.mixup_enabled is False


def composer(loop: Loop, spins: bool = False) -> Iterator[Tensor]:
    """An event before each batch. After a resume it spins the loader to its own place."""
    epochs = epochs_left(loop)
    spin = loop.batches.updates - 12 * epochs.start if spins else 0
    for _ in epochs:
        for batch in islice(loop.loader, spin, None):
            loop.schedule.step()
            yield batch
        spin = 0


def mmengine(loop: Loop, skips: bool = False) -> Iterator[Tensor]:
    """By iteration. It looks for a sampler, and after a resume fetches what it had before."""
    assert not hasattr(loop.loader.batch_sampler.sampler, "set_epoch")
    updates = loop.batches.updates
    endless = chain.from_iterable(loop.loader for _ in count())
    for batch in islice(endless, updates if skips else 0, None):
        loop.schedule.step()
        yield batch
        if loop.batches.done:
            return


def one_epoch_of_all_updates(loop: Loop) -> Iterator[Tensor]:
    """One view, wrapped before the loop, again and again, as ignite and metric-learning take it."""
    view = loop.schedule(loop.loader)
    assert (view.dataset is DATA, len(view)) == (True, len(view.loader))
    assert loop.batches.updates or measured(loop, view.loader)
    batches = chain.from_iterable(tqdm(view, disable=True) for _ in repeat(None))
    return islice(batches, PLAN.updates - loop.batches.updates)


def copied_and_looked_at(loop: Loop) -> Iterator[Tensor]:
    for _ in loop.batches.epochs():
        for batch in loop.schedule(loop.loader):
            yield batch
            copies = copy.deepcopy(loop.batches), pickle.loads(pickle.dumps(loop.batches))
            assert [[*batches] for batches in copies] == [[*loop.batches]] * 2


def with_statistics_of_all_samples(loop: Loop) -> Iterator[Tensor]:
    """Over the training loader, after each epoch and after the plan."""
    for epoch in loop.batches.epochs():
        yield from loop.schedule(loop.loader)
        assert len(loop.batches) == PLAN.batches_of_epoch(epoch)
        update_bn(loop.loader, loop.model)
        assert float(loop.model.running_mean) == pytest.approx((N - 1) / 2, rel=0.05)
    assert sorted(torch.cat([*loop.loader]).flatten().tolist()) == list(range(N))


def all_batches(loop: Loop) -> Iterator[Tensor]:
    """The page's line for trainers that call next(), as detectron2's and Megatron's do."""
    loader = loop.schedule(loop.loader)
    return (batch for _ in loop.batches.epochs() for batch in loader)


def in_each_epoch(batches_of: Callable[[Loop], Any]) -> Use:
    return lambda loop: (batch for _ in loop.batches.epochs() for batch in batches_of(loop))


RIGHT: dict[str, Use] = {
    "PyTorch's example for ImageNet": imagenet,
    "timm": timm,
    "Composer": composer,
    "MMEngine": mmengine,
    "by next": all_batches,
    "ignite, with a bar": one_epoch_of_all_updates,
    "FixMatch": in_each_epoch(
        lambda x: (b for _, b in zip(count(), x.schedule(x.loader), strict=False))
    ),
    "around a prefetcher": in_each_epoch(
        lambda x: (b for b, _ in x.schedule(pairwise(chain(x.loader, [None]))))
    ),
    "left early": in_each_epoch(lambda x: islice(x.schedule(x.loader), 3)),
    "with a measurement of noise": in_each_epoch(
        lambda x: filter(
            lambda _: measured(x, DataLoader(DATA, 8, shuffle=True)), x.schedule(x.loader)
        )
    ),
    "copied, and a look at the loader": copied_and_looked_at,
    "statistics of all samples": with_statistics_of_all_samples,
}


def trained(use: Use, loop: Loop, stop: int | None = None) -> list[tuple[list[float], float]]:
    """The samples and the rate of each update; after ``stop`` of them the program is killed."""
    updates = []
    for batch in islice(use(loop), stop):
        loop.model(batch).sum().backward()
        loop.optimizer.step()
        loop.optimizer.step()  # A critic may be stepped twice a batch.
        updates.append((batch.flatten().tolist(), loop.optimizer.param_groups[0]["lr"]))
    return updates


def planned_updates() -> list[tuple[list[float], float]]:
    """Cut by PyTorch: two epochs of 12 batches, then two of 6 at √½ of the rate."""
    updates = []
    for epoch in range(1, EPOCHS + 1):
        order = torch.randperm(N, generator=generator(0, "permutation", epoch))
        rate = RATE if epoch <= 2 else RATE * 0.5**0.5
        updates += [(part.tolist(), rate) for part in order.split(8 if epoch <= 2 else 16)]
    return updates


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("use", RIGHT)
def test_a_use_trains_the_plan_and_resumes(use: str, workers: int) -> None:
    loop = Loop(workers)
    updates = trained(RIGHT[use], loop)
    assert [samples for samples, _ in updates] == [samples for samples, _ in planned_updates()]
    planned_rates = [rate for _, rate in planned_updates()]
    assert [rate for _, rate in updates] == rounded(planned_rates)
    stopped_loop = Loop()
    first_updates = trained(RIGHT[use], stopped_loop, STOP)
    resumed_loop = Loop(workers, stopped_loop.schedule.state_dict())
    assert first_updates + trained(RIGHT[use], resumed_loop) == updates
    finished_loop = Loop(saved=loop.schedule.state_dict())
    for _ in range(2):  # The first is for update_bn, the second to evaluate.
        assert sum(map(len, finished_loop.loader)) == N


def repeating(loop: Loop) -> Iterator[Tensor]:
    """As ultralytics' and timm's loaders do to their batch sampler."""
    endless = chain.from_iterable(repeat(loop.batches))
    object.__setattr__(loop.loader, "batch_sampler", endless)
    with pytest.raises(TypeError, match=r"chain: give PyTorch's own DataLoader"):
        loop.schedule(loop.loader)
    for batch in islice(loop.loader, PLAN.updates):
        loop.schedule.step()
        yield batch


def fetching_before_the_step(loop: Loop) -> Iterator[Tensor]:
    """As nanoGPT does, after the backward pass."""
    for batch, _ in pairwise(chain(all_batches(loop), [None])):
        yield batch


def with_a_rate_of_its_own(loop: Loop) -> Iterator[Tensor]:
    """litgpt's ``get_lr``, left in."""
    for number, batch in enumerate(all_batches(loop)):
        loop.optimizer.param_groups[0]["lr"] = RATE * (1 - number / 36)
        yield batch


def left_before_the_step(loop: Loop) -> Iterator[Tensor]:
    for _ in loop.batches.epochs():
        for number, batch in enumerate(loop.schedule(loop.loader)):
            if number == 5:
                break
            yield batch


def looked_at(loop: Loop) -> Iterator[Tensor]:
    loader = loop.schedule(loop.loader)
    assert next(iter(loader)) is not None
    yield from loader


LEFT = r"was left before the optimizer\.step\(\) of update 6, .*zip as the last"
AHEAD = r"1 of the first updates had no gradient .*inside, schedule\(prefetcher\)"
LOUD: list[tuple[Use, dict[str, Any], str]] = [
    (
        partial(composer, spins=True),
        {"saved": True},
        r"3 of its batches were not counted: .*skips .*spin_dataloaders=False",
    ),
    (
        partial(mmengine, skips=True),
        {"saved": True},
        r"9 of its batches were not counted: leave out what skips",
    ),
    (repeating, {"workers": 2}, r"DataLoader, which does not repeat"),
    (lambda x: cycle(x.schedule(x.loader)), {}, r"in place of itertools\.cycle"),
    (fetching_before_the_step, {}, AHEAD),
    (looked_at, {}, AHEAD),
    (lambda x: iter(x.schedule(x.loader)), {}, r"after 12 of 36 updates: .* batches\.epochs\(\)"),
    (
        lambda x: islice(all_batches(x), 3, None, 4),
        {},
        r"3 of the first updates had no gradient",
    ),
    (with_a_rate_of_its_own, {}, r"of update 2 has the learning rate 0\.0972.*schedule set 0\.1:"),
    (left_before_the_step, {}, LEFT),
    (
        in_each_epoch(lambda x: (b for b, _ in zip(x.schedule(x.loader), range(5), strict=False))),
        {},
        LEFT,
    ),
    (
        lambda x: chain.from_iterable(x.schedule(x.loader) for _ in range(EPOCHS + 1)),
        {},
        "all 36 updates of the plan are done",
    ),
]


@pytest.mark.parametrize(("use", "options", "words"), LOUD)
def test_what_would_train_something_else_is_loud(
    use: Use, options: dict[str, Any], words: str
) -> None:
    if "saved" in options:
        start = Loop()
        trained(composer, start, STOP)
        options = {"saved": start.schedule.state_dict()}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", igo.PlanWarning)
        trained(use, Loop(**options), PLAN.updates + 1)
    assert any(re.search(words, str(warning.message)) for warning in said)


def test_parts_are_not_stepped_by_themselves() -> None:
    with pytest.raises(RuntimeError, match=r"part 1 of 2 of update 1: step if .*is_last_part"):
        trained(imagenet, Loop(micro_batch_size=4))


def test_some_updates_may_lack_a_step() -> None:
    """An overflow of fp16 leaves out a few, and a CUDA graph's steps are not seen."""
    for steps in (0, 23, 24):
        loop = Loop()
        loop.schedule = igo.Schedule(loop.optimizer, igo.Counter(PLAN))
        warned = pytest.warns(igo.PlanWarning, match="of 32 updates 23 had")
        with warned if steps == 23 else nullcontext():
            for number in range(33):
                loop.schedule.step()
                if number < steps:
                    loop.optimizer.step()


def test_a_trainer_that_fetches_the_next_batch_before_the_step() -> None:
    """nanochat's order. Its accumulation has the line of the page, and its loader none."""
    plan = igo.plan("step", samples=128, stages=2, batch_size=8, batch_multiple=8, gamma=0.5)
    optimizer, counter = sgd(), igo.Counter(plan)
    schedule = igo.Schedule(optimizer, counter)
    stream: Any = range(1000)
    loader = iter(DataLoader(stream, batch_size=8))
    batch, updates = next(loader), []
    while not counter.done:
        grad_accum_steps = schedule.step().batch_size // 8
        samples: list[int] = []
        for _ in range(grad_accum_steps):
            samples += batch.tolist()
            batch = next(loader)
        optimizer.step()
        updates.append((samples, optimizer.param_groups[0]["lr"]))
    assert [len(samples) for samples, _ in updates] == [8] * 8 + [16] * 4
    assert [*chain(*(samples for samples, _ in updates))] == [*range(128)]
    rates = [RATE] * 8 + [RATE * 0.5**0.5] * 4
    assert [rate for _, rate in updates] == rounded(rates)
