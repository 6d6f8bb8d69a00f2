"""What the public loop refuses, in a line.

And what a seed decides: the numbers of igo.Seeded's samples, and those of a loader's workers.
"""

import copy
import pickle
import random
import traceback
from collections.abc import Callable, Iterator
from itertools import chain, product
from typing import Any

import numpy as np
import pytest
import torch
from looped import DATA, PLAN, Loop, N, measured, plan, sgd
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

import igo


def sampler(**arguments: Any) -> igo.BatchSampler:
    return igo.BatchSampler(PLAN, DATA, **arguments)


def sharded() -> nn.Module:
    model: Any = nn.Linear(1, 1)
    model.weight.device_mesh = "as of FSDP"
    return model


def cooling(t: float, stages: int = 4) -> float:
    """A profile whose argument would be the plan's."""
    return 0.5 ** int(stages * t)


def own(t: float, *, h: Any) -> float:
    """A profile that is given what was typed, a whole number or a list."""
    return 1 - t / 2 if type(h) in (int, list) else 0


START = sampler().state_dict()
NOT_GIVEN = r"gave no batch for it: .*batch_sampler=batches, .*count each batch once"
OTHER = r"has another sampler, torch\.\S+BatchSampler: .*batch_sampler=batches, .* accelerator"
WRONGLY: Any = igo  # Types refuse what it is given here.
REFUSED: list[tuple[Callable[[Any], Any], str]] = [
    (lambda x: [x.schedule.step() for _ in x.schedule(x.loader)], NOT_GIVEN),
    (lambda x: [x.schedule.step() for _ in DataLoader(DATA, 8, shuffle=True)], NOT_GIVEN),
    (lambda x: [x.batches.load_state_dict(START) for _ in x.schedule(x.loader)], NOT_GIVEN),
    (lambda x: [b for _ in x.batches.epochs() for b in x.loader], r"loop over schedule\(loader\)"),
    (lambda x: x.schedule(DataLoader(DATA, 8, shuffle=True)), OTHER),
    (lambda x: x.schedule(x.schedule(x.loader)), "loader counts updates already"),
    (lambda x: x.schedule(DataLoader(DATA, sampler=x.batches)), OTHER),
    (lambda x: x.schedule(DataLoader(DATA[1:], batch_sampler=x.batches)), "has 95 samples"),
    (lambda x: x.schedule.load_state_dict(START), r"is a sampler's; give schedule\.state_dict\(\)"),
    (lambda x: x.schedule.update, r"no update has begun: loop over schedule\(loader\)"),
    (lambda x: x.optimizer.step(), r"came before .*loop over schedule\(loader\)"),
    (lambda x: update_bn(x.schedule(x.loader), x.model), "gradients are off: to evaluate"),
    (
        lambda x: igo.Schedule(x.optimizer, igo.Counter(plan(learning_rate=0.3))).step(),
        "learning_rate=0.3 .* was made with 0.1",
    ),
    (
        lambda x: igo.Schedule(x.optimizer, igo.Counter(PLAN))(DataLoader(DATA, 8)),
        r"batch_size=8 .* the plan has batches of 8 to 16 samples; .*counter\.batches\(loader\)",
    ),
    (lambda _: [*DataLoader(WRONGLY.Seeded(DATA), 8)], "give other loaders its data"),
    (lambda _: igo.Schedule([], sampler()), "one of torch.optim or several, .* not BatchSampler$"),
    (lambda _: igo.Schedule([DATA], sampler()), "not Tensor, BatchSampler$"),
    (lambda _: WRONGLY.BatchSampler(DataLoader(DATA), PLAN), "not a DataLoader"),
    (lambda x: WRONGLY.BatchSampler(PLAN, x.loader), "data=DataLoader .* the data set of the load"),
    (
        lambda x: WRONGLY.Schedule(x.optimizer, x.loader),
        "not SGD, DataLoader$",
    ),
    (lambda _: igo.BatchSampler(PLAN, DATA[1:]), "has 95 samples; make the plan with n=len"),
    (lambda _: igo.BatchSampler(PLAN, iter(DATA)), "a stream, without a length, takes igo.Count"),
    (lambda _: sampler(seed=1.5), "'float' object cannot be interpreted as an integer"),
    (lambda _: sampler(micro_batch_size=0), "micro_batch_size=0 .* 1 or more"),
    (lambda _: sampler(rank=1), "rank=1 .* and ranks together"),
    (lambda _: sampler(rank=2, ranks=2), r"rank=2 .* in \[0, ranks=2\)"),
    (lambda _: plan("graduated", p=[1]), r"p=\[1\] .* must be a number"),
    (lambda _: plan(cooling), "profile=cooling .*: its argument stages is one of plan"),
    (
        lambda x: igo.measure_noise(x.model, nn.MSELoss(), x.schedule(x.loader), n=N),
        "loader counts an update with each batch",
    ),
    (
        lambda x: igo.measure_noise(
            x.model, None, x.loader, n=N, loss_of=lambda *_: None, batch_size=-3
        ),
        "batch_size=-3: it must be 1 or more",
    ),
    (lambda x: measured(x, TensorDataset(DATA)), r"loader is a TensorDataset, .*give DataLoader\("),
    (lambda x: measured(x, lambda: DATA), r"loader is a function, .*iter\(function, None\)"),
    (
        lambda x: igo.NoiseMeter(nn.Linear(3, 2), 8).update(),
        r"no part of this batch is known: call part\(samples\) after each backward",
    ),
    (lambda x: [measured(x, x.loader) for _ in x.schedule(x.loader)], "training in progress"),
    (lambda _: igo.NoiseMeter(sharded(), 10), "no part has its own gradient"),
]


LOOPS = range(5)  # batches that workers fetch ahead hide none of their mistakes


@pytest.mark.parametrize(
    ("number", "workers"), [*((n, 0) for n in range(len(REFUSED))), *((n, 2) for n in LOOPS)]
)
def test_a_use_is_refused_in_a_line(number: int, workers: int) -> None:
    use, words = REFUSED[number]
    with pytest.raises((RuntimeError, TypeError, ValueError), match=words) as raised:
        use(Loop(workers))
    traceback.clear_frames(raised.tb)  # Workers end now, and not in a later test.
    assert "\n" not in str(raised.value)
    # Another process sees the same message.
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


class Drawn:
    """A number by each generator that transforms use."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([torch.rand(()), random.random(), np.random.rand()])


def trained(workers: int, device: str, stop: int = -1, saved: Any = None) -> tuple[Any, Any]:
    """States and weights after ``stop`` updates, or all; a new process has another random state."""
    at_random = {"cpu": torch, "cuda": torch.cuda}[device]
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(0 if saved is None else 1)
    model = nn.Sequential(nn.Dropout(), nn.Linear(3, 1)).to(device)
    loop = Loop(workers, model=model, data=igo.Seeded(Drawn()))
    loader = loop.schedule(loop.loader)
    parts: Any = {"model": model, "optimizer": loop.optimizer, "schedule": loop.schedule}
    if saved:
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        at_random.set_rng_state(saved["random"])
    for batch in (b for _ in loop.batches.epochs() for b in loader):
        loop.optimizer.zero_grad()
        (model(batch.to(device)).square().mean() / 1000).backward()
        loop.optimizer.step()
        if loop.batches.updates == stop:
            break
    states = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    states["random"] = at_random.get_rng_state()
    return states, [parameter.tolist() for parameter in model.parameters()]


def test_a_resume_has_the_same_bits(device: str) -> None:
    """In mid-epoch, at its end, and with other workers."""
    weights = trained(0, device)[1]
    assert trained(2, device)[1] == weights
    for workers, stop, other_workers in ((2, 15, 2), (2, 12, 0), (0, 15, 2)):
        saved, _ = trained(workers, device, stop)
        assert trained(other_workers, device, saved=saved)[1] == weights


class Broken(Drawn):
    def __getitem__(self, index: int) -> Tensor:
        raise OSError(f"sample {index} of {super().__getitem__(index)}")


def test_a_sample_that_raises_leaves_the_random_numbers_as_they_were() -> None:
    loop = Loop(0, data=igo.Seeded(Broken()))
    numbers: list[tuple[float, float]] = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)
        if not numbers:
            with pytest.raises(OSError, match="sample"):
                next(iter(loop.loader))
        numbers.append((random.random(), np.random.rand()))
    assert numbers[0] == numbers[1]


def test_arguments_are_taken_as_they_are() -> None:
    assert sampler(seed=np.int64(3), micro_batch_size=np.int64(3)).seed == 3
    for k in (4, [1, 2]):
        assert plan(own, h=k).rows[-1].phi_m == pytest.approx(5 / 8)


def test_a_sample_has_numbers_of_its_own_by_seed_and_epoch() -> None:
    batches = []
    for seed in (0, 1, 0):  # The same seed draws the same numbers again.
        loop = Loop(data=igo.Seeded(Drawn()), seed=seed)
        for loop.batches.updates in (0, 12):  # Each epoch begins here.
            batches += [*loop.loader]
    assert [len({*numbers}) for numbers in torch.cat(batches).T.tolist()] == [4 * N] * 3


class Workers(list[int]):
    """A loader that notes the seed which its workers would get."""

    batches: igo.BatchSampler

    def __iter__(self) -> Iterator[Any]:
        self.append(torch.initial_seed())
        return iter(self.batches)


def test_workers_draw_others_in_each_epoch_rank_and_run() -> None:
    """Whatever numbers the loop itself draws."""
    seeds = set[tuple[int, ...]]()
    for seed, rank, draws in product((0, 1), (0, 1), (0, 3)):
        torch.manual_seed(seed)
        workers = Workers()
        workers.batches = sampler(rank=rank, ranks=2)
        loader = igo.Schedule(sgd(), workers.batches)(workers)
        for _ in range(2):
            torch.rand(draws)
            assert len([*loader]) == 12
        seeds.add(tuple(list.__iter__(workers)))
    assert len({*chain(*seeds)}) == 2 * len(seeds) == 8
