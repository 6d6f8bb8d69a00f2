"""What a seed decides: the numbers of igo.Seeded's samples, and those of a loader's workers."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

import igo

PLAN = igo.plan("constant", n=6, epochs=2, batch_size=3)


class Drawn(list[Any]):
    def __getitem__(self, index: Any) -> Any:
        return float(torch.rand(())), random.random(), float(np.random.random())


def test_a_sample_has_numbers_of_its_own_by_seed_and_epoch() -> None:
    drawn: set[tuple[float, ...]] = set()
    for seed in (0, 1, 0):  # the same again with the same seed
        batches = igo.BatchSampler(PLAN, range(6), seed=seed)
        loader = DataLoader(igo.Seeded(Drawn("123456")), batch_sampler=batches, collate_fn=list)
        for batches.updates in (0, 2):  # at the beginning of each epoch
            drawn |= {sample for batch in loader for sample in batch}
    assert [len({*numbers}) for numbers in zip(*drawn, strict=True)] == [24, 24, 24]


class Workers(list[int]):
    """A loader that notes the seed which its workers would get."""

    batches: igo.BatchSampler

    def __iter__(self) -> Iterator[Any]:
        self.append(torch.initial_seed())
        return iter(self.batches)


def test_workers_draw_others_in_each_epoch_rank_and_run() -> None:
    """Whatever numbers the loop itself draws."""
    model, found = torch.nn.Linear(1, 1), set[tuple[int, ...]]()
    for seed, rank, draws in itertools.product((0, 1), (0, 1), (0, 3)):
        torch.manual_seed(seed)
        workers = Workers()
        workers.batches = igo.BatchSampler(PLAN, range(6), rank=rank, ranks=2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loader = igo.Schedule(optimizer, workers.batches)(workers)
        for _ in range(2):
            torch.rand(draws)
            assert sum(1 for _ in loader) == 2
        found.add(tuple(list.__iter__(workers)))
    assert len({*itertools.chain(*found)}) == 2 * len(found) == 8
