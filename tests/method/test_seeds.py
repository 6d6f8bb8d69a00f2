"""What a seed decides: the numbers of igo.Seeded's samples, and those of a loader's workers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader

import igo

PLAN = igo.plan("constant", n=6, epochs=2, batch_size=3)


class Drawn:
    """Six samples, each of three generators' numbers."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        return index, float(torch.rand(())), random.random(), float(np.random.random())


def test_a_sample_has_numbers_of_its_own_by_seed_and_epoch() -> None:
    drawn: dict[int, set[tuple[float, ...]]] = {}
    for seed in (0, 1, 0):
        batches = igo.BatchSampler(PLAN, range(6), seed=seed)
        loader = DataLoader(igo.Seeded(Drawn()), batch_sampler=batches, collate_fn=list)
        for batches.updates in (0, 2):  # at the beginning of each epoch
            drawn[seed] = drawn.get(seed, set()) | {sample for batch in loader for sample in batch}
    for numbers in zip(*(sample[1:] for each in drawn.values() for sample in each), strict=True):
        assert len({*numbers}) == len(numbers) == 24  # and the same again with the same seed


class Workers:
    """A loader that notes the seed which its workers would get."""

    def __init__(self, batches: igo.BatchSampler) -> None:
        self.batches, self.seeds = batches, list[int]()

    def __iter__(self) -> Iterator[list[int]]:
        self.seeds.append(torch.initial_seed())
        return iter(self.batches)


def test_workers_draw_others_in_each_epoch_rank_and_run() -> None:
    """Whatever numbers the loop itself draws."""
    model, found = torch.nn.Linear(1, 1), dict[tuple[int, int], list[int]]()
    for seed, rank, draws in itertools.product((0, 1), (0, 1), (0, 3)):
        torch.manual_seed(seed)
        batches = igo.BatchSampler(PLAN, range(6), rank=rank, ranks=2)
        workers = Workers(batches)
        loader = igo.Schedule(torch.optim.SGD(model.parameters(), lr=0.1), batches)(workers)
        for _ in range(2):
            torch.rand(draws)
            list(loader)
        assert found.setdefault((seed, rank), workers.seeds) == workers.seeds
    assert len({seed for seeds in found.values() for seed in seeds}) == 8
