"""Counter and sampler by themselves: streams, parts, ranks and states."""

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, islice, repeat
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from looped import sgd
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, WeightedRandomSampler

import igo
from igo.plans.plan import Plan


def stream_plan() -> Plan:
    return igo.plan("linear", samples=300, stages=5, batch_size=6, split=0.2)


class Stream(IterableDataset[int]):
    """The numbers of this worker: every w-th."""

    def __iter__(self) -> Iterator[int]:
        worker = torch.utils.data.get_worker_info()
        start, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        yield from range(start, 10_000, step)


def assert_refused(words: str, batches: Iterator[Any]) -> None:
    """In place of the first batch, or part."""
    with pytest.raises(igo.PlanError, match=words):
        next(batches)


def test_a_stream_has_batches_of_the_plan_at_the_very_update() -> None:
    for workers in (0, 2):
        plan = stream_plan()
        loader = DataLoader(Stream(), batch_size=None, num_workers=workers)
        counter, samples = igo.Counter(plan), []
        schedule = igo.Schedule(sgd(), counter)
        for batch in schedule(counter.batches(loader)):
            update = schedule.update
            assert schedule.learning_rate == update.learning_rate
            assert len(batch) == update.batch_size == plan.at(update.number).batch_size
            samples += batch.tolist()
            assert counter.samples == len(samples)
        assert len(samples) == 300
        assert (
            sorted(samples) == list(range(300)) or workers
        )  # One worker may be ahead of the other.
        assert len({*samples}) == 300
        assert counter.done


@pytest.mark.parametrize("weights", [None, [1.0, 3.0] * 25])
def test_a_sampler_of_ones_own_is_a_stream_on_a_grid(weights: list[float] | None) -> None:
    """The lines of the pages: weighted samples, or a data set in even batches, as Mixup asks."""
    plan = igo.plan("cosine", samples=200, stages=4, batch_size=4, batch_multiple=2)
    data: Any = range(50)

    def samples_after(updates: int) -> list[list[int]]:
        counter = igo.Counter(plan)
        counter.updates = updates
        generator = torch.Generator().manual_seed(0)
        order: Any = RandomSampler(data, num_samples=plan.samples, generator=generator)
        if weights:
            order = WeightedRandomSampler(weights, plan.samples, generator=generator)
        sampler = [*islice(order, counter.samples, None)]
        loader = DataLoader(data, batch_size=None, sampler=sampler)
        return [batch.tolist() for batch in counter.batches(loader)]

    batches = samples_after(0)
    assert batches[7:] == samples_after(7)
    assert [len(batch) % 2 for batch in batches] == [0] * plan.updates
    samples = [*chain(*batches)]
    if weights:
        assert 0.6 < sum(x % 2 for x in samples) / len(samples) < 0.9
    else:
        assert [len({*samples[n : n + 50]}) for n in (0, 50, 100)] == [50] * 3
        assert 200 - len(samples) < len(batches[-1])


def test_a_stream_that_ends_early_is_an_error() -> None:
    counter = igo.Counter(stream_plan())
    with pytest.raises(RuntimeError, match=r"ended in update 16 of 27, .* 300 .*fewer samples="):
        list(counter.batches(range(100)))
    for _ in range(15):  # The stream gave so many.
        counter.advance()
    with pytest.raises(RuntimeError, match="gave no batch for it"):
        counter.advance()


@given(
    ranks=st.integers(1, 5),
    micro=st.integers(1, 40),
    seed=st.integers(0, 3),
    start=st.integers(0, 7),
)
def test_parts_are_as_many_on_each_rank_and_weights_give_the_whole_mean(
    ranks: int, micro: int, seed: int, start: int
) -> None:
    """Σ over parts of the mean over ranks of weight · mean(part) is the mean of the batch.

    Also from any update on, as after a resume with another number of ranks.
    """
    profile: Any = {"split": 0, "max_batch_size": 30, "stages": 5}
    plan = igo.plan("linear", n=61, epochs=2, learning_rate=0.1, batch_size=11, **profile)
    values = torch.randn(61, dtype=torch.float64, generator=torch.manual_seed(seed))
    batches = igo.BatchSampler(plan, values, seed=seed)
    # A rank may have one sample more than its share of a part: a batch of 3 is 2 and 1.
    most_samples = micro if ranks == 1 else max(2, -(-micro // ranks))
    place: Any = {"ranks": ranks, "micro_batch_size": micro}

    def walked(sampler: igo.BatchSampler) -> list[tuple[igo.Update, list[int]]]:
        parts, sampler.updates = list[tuple[igo.Update, list[int]]](), start
        for _ in sampler.epochs():
            of_epoch = [(sampler.advance(), part) for part in sampler]
            assert start or len(sampler) == len(of_epoch)
            parts += of_epoch
        return parts

    of_ranks = (igo.BatchSampler(plan, values, seed=seed, rank=r, **place) for r in range(ranks))
    means, samples = defaultdict[int, float](float), defaultdict[int, list[int]](list)
    for shares in zip(*map(walked, of_ranks), strict=True):
        assert len({(s.number, s.part, s.parts, s.batch_size) for s, _ in shares}) == 1
        sizes = [len(part) for _, part in shares]
        assert sizes == [step.samples for step, _ in shares]
        assert 1 <= min(sizes) <= max(sizes) <= most_samples
        for step, part in shares:
            means[step.number] += float(values[part].mean()) * step.weight / ranks
            samples[step.number] += part
    for update, batch in walked(batches):
        assert len(batch) == update.batch_size
        assert sorted(samples[update.number]) == sorted(batch)
        mean = float(values[batch].mean())
        assert means[update.number] == pytest.approx(mean, rel=1e-9, abs=1e-12)


def numbers_in(size: int) -> Iterator[Tensor]:
    """Micro-batches of the numbers 0, 1, 2, …, for ever."""
    return (torch.arange(start, start + size) for start in count(step=size))


NUMBERS: Any = range(960)
LOADERS: dict[str, Callable[[int], Iterable[Tensor]]] = {
    "DataLoader": lambda size: DataLoader(Stream(), size),
    "generator": numbers_in,
}
# A micro-batch of the numbers x as libraries make it, the numbers in it, and its size_of.
LAYOUTS: Any = {
    "inputs and targets": (lambda x: (x, -x), itemgetter(0)),
    "webdataset's batched": (lambda x: [x, ["word"] * len(x)], itemgetter(0)),
    "HF datasets' batch, with arrays": (
        lambda x: {"tokens": np.ones((len(x), 5)), "id": x.numpy()},
        itemgetter("id"),
    ),
    "DALI": (lambda x: [{"label": x[:, None], "data": x}], lambda batch: batch[0]["data"]),
}
NO_TENSORS: Any = {
    "HF datasets' batch": (
        lambda x: {"text": ["word"] * len(x), "id": x.tolist()},
        itemgetter("id"),
    ),
    "words": (lambda x: tuple(map(str, x.tolist())), lambda batch: map(int, batch)),
    "detectron2": (
        lambda x: [{"image": torch.ones(3, 4), "id": i} for i in x.tolist()],
        lambda batch: map(itemgetter("id"), batch),
        len,
    ),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", [*LOADERS, *LAYOUTS, *NO_TENSORS])
def test_micro_batches_are_the_parts_as_they_are(name: str, ranks: int) -> None:
    layout, numbers_of, *size_of = (LAYOUTS | NO_TENSORS).get(name, (torch.clone, iter))
    loader_of = LOADERS.get(name, numbers_in)
    place = {"rank": ranks - 1, "ranks": ranks, "micro_batch_size": 8 * ranks}

    def counter(**changed: Any) -> igo.Counter:
        return igo.Counter(igo.plan(**{"samples": 96, "batch_size": 32, **changed}), **place)

    grid: Any = {"profile": "constant", "batch_multiple": 8 * ranks}
    ragged: Any = {"profile": "linear", "samples": 960, "batch_size": 16, "stages": 5}
    whole, updates, numbers = counter(**grid), [], list[int]()
    # A DataLoader is given as it is: its iterator, unlike a map, asks a stream for its length.
    loader = loader_of(8) if name in LOADERS else map(layout, loader_of(8))
    for micro_batch in whole.parts(loader, *size_of):
        update = whole.advance()
        updates.append((update.number, update.part, update.parts, update.samples))
        numbers += map(int, numbers_of(micro_batch))
    parts = range(1, 4 // ranks + 1)
    assert updates == [(number, part, len(parts), 8) for number in (1, 2, 3) for part in parts]
    assert (numbers, whole.samples) == ([*range(96 // ranks)], 96)
    words = rf"no equal parts .*micro_batch_size, here {8 * ranks}, .* {4 * ranks}\b.*size_of="
    assert_refused(words, counter(**grid).parts(map(layout, loader_of(4)), *size_of))
    assert_refused(
        r"no equal parts .*batch_multiple",
        counter(**ragged).parts(map(layout, loader_of(8)), *size_of),
    )
    if name not in NO_TENSORS:
        assert_refused(
            r"micro-batches, .*counter\.parts", counter(**grid).batches(map(layout, loader_of(8)))
        )


def test_samples_with_as_many_rows_as_a_part_are_told_by_their_collate() -> None:
    """A loader's micro-batches of another size are refused, too."""
    counter, ones = igo.Counter(igo.plan("constant", samples=8, batch_size=4)), torch.ones
    stream: Any
    of_two: Any = {"x": ones(2, 9), "y": ones(2)}
    for sample in (ones(4), (ones(4), ones(4)), (ones(2, 3), ones(2)), of_two):
        stream = [sample] * 8
        assert_refused(r"list is not allowed: .*collate=", counter.batches(stream))
        assert len(list(counter.batches(stream, collate=list))) == 2
    for sample in (
        *(ones(5), ones(2, 9), ones(()), "word", {"x": ones(3)}),
        *((ones(4), 1), (ones(2), ones(2)), (ones(2, 5, 5), ones(())), (ones(3, 2), ones(3))),
    ):
        assert len(list(counter.batches([sample] * 8))) == 2
    assert_refused(
        r"DataLoader is not allowed: .*batch_size=None",
        counter.batches(DataLoader(Stream(), batch_size=3)),
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_function_makes_the_samples_of_each_part(ranks: int) -> None:
    """Parts of a ragged plan: 300 samples, each once. ``batch_size`` is the whole batch's."""
    numbers: list[int] = []
    place: Any = {"ranks": ranks, "micro_batch_size": 4}
    for rank in range(ranks):
        counter = igo.Counter(stream_plan(), rank=rank, **place)
        schedule = igo.Schedule(sgd(), counter)

        def get_batch(update: igo.Update) -> Tensor:
            return torch.arange(300)[update.start :: update.ranks][: update.samples]

        for batch in schedule(counter.parts(get_batch)):
            assert len(batch) == schedule.update.samples <= 4
            numbers += batch.tolist()
        assert counter.done
    assert sorted(numbers) == [*range(300)]
    counter = igo.Counter(stream_plan(), rank=0, **place)
    assert_refused(
        rf"it made {6 // ranks} samples here: make",
        counter.parts(lambda update: torch.ones(update.batch_size // ranks)),
    )


def test_the_size_of_an_object_is_asked_for() -> None:
    plan = igo.plan("constant", samples=96, batch_size=16, batch_multiple=8)
    assert_refused(
        r"object is not .*give counter\.parts size_of=",
        igo.Counter(plan, micro_batch_size=8).parts(repeat(object())),
    )


def test_a_loader_with_the_batch_size_of_the_plan_needs_no_other() -> None:
    """Its last batch may be smaller, where the plan's share what is left."""
    for samples in (8, 11):
        counter = igo.Counter(igo.plan("constant", samples=samples, batch_size=4))
        schedule = igo.Schedule(sgd(), counter)
        assert len([*schedule(DataLoader(NUMBERS[:samples], batch_size=4))]) == counter.plan.updates


def test_checkpoints_count_whole_updates_and_a_break_goes_on_with_the_next_part() -> None:
    plan = igo.plan("constant", n=30, epochs=1, learning_rate=0.1, batch_size=10)
    batches = igo.BatchSampler(plan, range(30), micro_batch_size=4)
    parts = list(igo.BatchSampler(plan, range(30), micro_batch_size=4))
    assert [len(part) for part in parts] == [4, 3, 3] * 3
    trained_parts = []
    for part in batches:
        trained_parts.append(part)
        update = batches.advance()
        if update.number == 2 and update.part == 2:
            break
    assert trained_parts == parts[:5]
    assert batches.state_dict()["updates"] == 1
    assert list(batches) == parts[5:]
    batches.load_state_dict(batches.state_dict())
    assert list(batches) == parts[3:]  # A resume begins the update again.


def test_ranks_are_checked_against_what_is_left() -> None:
    plan = igo.plan("step", gamma=0.5**0.5, n=8, epochs=2, batch_size=1, split=0)
    batches = igo.BatchSampler(plan, range(8), rank=0, ranks=2)
    assert_refused("batches of 1 samples", iter(batches))
    batches.load_state_dict({**batches.state_dict(), "updates": 8})  # b is 2 from here on
    assert [len(batch) for batch in batches] == [1] * 4
    # These batches come before those that fit.
    batches.load_state_dict({**batches.state_dict(), "updates": 0})
    assert_refused("batches of 1 samples", iter(batches))


def test_a_state_without_a_seed_leaves_the_samplers() -> None:
    plan = igo.plan("linear", n=50, epochs=4, batch_size=8)
    batches, counter = igo.BatchSampler(plan, range(50), seed=4), igo.Counter(plan)
    with pytest.raises(igo.PlanError, match=r"^the state has model, batches; give what"):
        batches.load_state_dict({"model": {}, "batches": counter.state_dict()})
    _, *batches_left = batches
    counter.advance()
    batches.load_state_dict(counter.state_dict())
    assert list(batches) == batches_left


def test_another_plan_is_named_by_the_arguments_that_differ() -> None:
    arguments = {"n": 50, "epochs": 4, "learning_rate": np.float64(0.1), "batch_size": 5, "p": 0.5}

    def sampler(profile: Any, **changes: Any) -> igo.BatchSampler:
        return igo.BatchSampler(igo.plan(profile, **{**arguments, **changes}), range(50))

    def state(profile: Any, **changes: Any) -> dict[str, Any]:
        buffer = io.BytesIO()
        torch.save(sampler(profile, **changes).state_dict(), buffer)
        buffer.seek(0)
        return dict(torch.load(buffer, weights_only=True))

    batches = sampler("graduated")
    batches.load_state_dict(state("graduated", learning_rate=0.1))
    cases = {
        "a plan with batch_size=10 (here 5); give igo.plan": state("graduated", batch_size=10),
        "with epochs=6 (here 4), learning_rate=0.2 (here 0.1), p=1.0 (here 0.5);": state(
            "graduated", learning_rate=0.2, p=1, epochs=6
        ),
        "with profile='polynomial' (here 'graduated'), split=0.0 (here 0.5);": state(
            "polynomial", split=0
        ),
        "<lambda>' (here 'graduated');": state(lambda t, *, p: 1 - t * p),
        "is of another plan; give igo.plan": {"updates": 0, "plan": "", "rates": [0] * 6},
    }
    for words, saved in cases.items():
        with pytest.raises(igo.PlanError) as raised:
            batches.load_state_dict(saved)
        assert words in str(raised.value)
