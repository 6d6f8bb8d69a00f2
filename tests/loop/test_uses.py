"""Uses of the public loop: each trains the plan's batches at its rates, or is refused in a line.

And what a seed decides: the numbers of igo.Seeded's samples, and those of a loader's workers.
"""

import copy
import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, islice, pairwise, product, repeat
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader
from tqdm import tqdm

import igo
from igo.ground.seeds import generator

N, EPOCHS, RATE = 40, 3, 0.1
DATA: Any = torch.arange(float(N)).unsqueeze(1)  # sample i is the number i


def plan(profile: Any = "linear", **arguments: Any) -> Any:
    return igo.plan(profile, **{"n": N, "epochs": EPOCHS, "batch_size": 8, **arguments})


def sampler(**arguments: Any) -> igo.BatchSampler:
    return igo.BatchSampler(plan(), DATA, **arguments)


class Loop:
    def __init__(self, workers: int, model: Any = None, data: Any = DATA) -> None:
        self.model = model or nn.BatchNorm1d(1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        self.batches = sampler()
        self.loader: DataLoader[Tensor] = DataLoader(
            data, batch_sampler=self.batches, num_workers=workers, persistent_workers=workers > 0
        )
        self.schedule = igo.Schedule(self.optimizer, self.batches)


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
        assert len(loop.batches) == plan().batches_of_epoch(epoch)
        update_bn(loop.loader, loop.model)
        assert float(loop.model.running_mean) == pytest.approx((N - 1) / 2, rel=0.05)
    assert sorted(torch.cat([*loop.loader]).flatten().tolist()) == list(range(N))


def again_and_again(loop: Loop, passes: Iterable[Any]) -> Iterator[Tensor]:
    """One view, wrapped before the loop."""
    view = loop.schedule(loop.loader)
    assert (view.dataset is DATA, len(view)) == (True, len(view.loader))
    return islice((batch for _ in passes for batch in tqdm(view, disable=True)), plan().updates)


def measured(loop: Loop, loader: Any) -> igo.Noise:
    sizes: Any = {"n": N, "batches": 2, "batch_size": 8}
    return igo.measure_noise(
        loop.model, None, loader, **sizes, loss_of=lambda model, batch: model(batch).square().mean()
    )


RIGHT: dict[str, Callable[[Loop], Iterator[Tensor]]] = {
    "the five lines": lambda x: again_and_again(x, x.batches.epochs()),
    "in a cycle": lambda x: again_and_again(x, repeat(None)),
    "around zip": lambda x: (
        b for _ in range(EPOCHS) for b, _ in x.schedule(zip(x.loader, count()))
    ),
    "around a prefetcher": lambda x: (
        b for _ in range(EPOCHS) for b, _ in x.schedule(pairwise(chain(x.loader, [None])))
    ),
    "left early": lambda x: (
        b for _ in x.batches.epochs() for b in islice(x.schedule(x.loader), 3)
    ),
    "with a measurement of noise": lambda x: (
        b
        for _ in x.batches.epochs()
        for b in x.schedule(x.loader)
        if measured(x, DataLoader(DATA, 8, shuffle=True))
    ),
    "copied, and a look at the loader": copied_and_looked_at,
    "statistics of all samples": with_statistics_of_all_samples,
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("use", RIGHT)
def test_a_use_trains_the_plan(use: str, workers: int) -> None:
    """Cut by PyTorch, with the rates of the plan's table."""
    loop, updates, planned_updates = Loop(workers), [], []
    for batch in RIGHT[use](loop):
        updates.append((batch.flatten().tolist(), loop.optimizer.param_groups[0]["lr"]))
        loop.optimizer.step()
        loop.optimizer.step()  # A critic may be stepped twice a batch.
    for epoch, row in enumerate(plan().rows, 1):
        order = torch.randperm(N, generator=generator(0, "permutation", epoch))
        parts = order.tensor_split(row.batches)
        planned_updates += [(part.tolist(), RATE * row.eta_m) for part in parts]
    assert updates == planned_updates


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


SGD = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=RATE)
WITHOUT_RATE = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": None}])
START = sampler().state_dict()
NOT_GIVEN = r"gave no batch for it: .*batch_sampler=batches, .*count each batch once"
OTHER = r"has another sampler, torch\.\S+BatchSampler: .*batch_sampler=batches, .* accelerator"
WRONGLY: Any = igo  # Types refuse what it is given here.
REFUSED: list[tuple[Callable[[Any], Any], str]] = [
    (lambda x: [x.schedule.step() for _ in x.schedule(x.loader)], NOT_GIVEN),
    (lambda x: [x.schedule.step() for _ in DataLoader(DATA, 8, shuffle=True)], NOT_GIVEN),
    (lambda x: [x.batches.load_state_dict(START) for _ in x.schedule(x.loader)], NOT_GIVEN),
    (lambda x: [b for _ in x.batches.epochs() for b in x.loader], r"loop over schedule\(loader\)"),
    (lambda x: [b for _ in range(4) for b in x.schedule(x.loader)], "all 11 updates of the plan"),
    (lambda x: x.schedule(DataLoader(DATA, 8, shuffle=True)), OTHER),
    (lambda x: x.schedule(x.schedule(x.loader)), "loader counts updates already"),
    (lambda x: x.schedule(DataLoader(DATA, sampler=x.batches)), OTHER),
    (lambda x: x.schedule(DataLoader(DATA[1:], batch_sampler=x.batches)), "has 39 samples"),
    (lambda x: x.schedule.load_state_dict(START), r"is a sampler's; give schedule\.state_dict\(\)"),
    (lambda x: x.schedule.update, r"no update has begun: loop over schedule\(loader\)"),
    (lambda x: x.optimizer.step(), r"came before .*loop over schedule\(loader\)"),
    (lambda x: update_bn(x.schedule(x.loader), x.model), "gradients are off: to evaluate"),
    (
        lambda x: igo.Schedule(x.optimizer, igo.Counter(plan(learning_rate=0.3))).step(),
        "learning_rate=0.3 .* was made with 0.1",
    ),
    (lambda _: [*DataLoader(WRONGLY.Seeded(DATA), 8)], "give other loaders its data"),
    (lambda _: igo.Schedule([], sampler()), "one of torch.optim or several, .* not BatchSampler$"),
    (lambda _: igo.Schedule(SGD, plan()), "not SGD, Plan$"),
    (lambda _: WRONGLY.Schedule(sampler(), SGD), "not BatchSampler, SGD$"),
    (lambda _: igo.Schedule([DATA], sampler()), "not Tensor, BatchSampler$"),
    (lambda _: igo.Schedule(WITHOUT_RATE, sampler()), "lr is missing: the optimizer chooses its"),
    (lambda _: WRONGLY.BatchSampler(DataLoader(DATA), plan()), "not a DataLoader"),
    (lambda _: igo.BatchSampler(plan(), DATA[1:]), "has 39 samples; make the plan with n=len"),
    (lambda _: igo.BatchSampler(plan(), iter(DATA)), "a stream, without a length, takes igo.Count"),
    (lambda _: sampler(seed=1.5), "'float' object cannot be interpreted as an integer"),
    (lambda _: sampler(micro_batch_size=0), "micro_batch_size=0 .* 1 or more"),
    (lambda _: sampler(rank=1), "rank=1 .* and ranks together"),
    (lambda _: sampler(rank=2, ranks=2), r"rank=2 .* in \[0, ranks=2\)"),
    (lambda _: sampler(rank=0, ranks=2, group=object()), "rank=0 .* or group"),
    (lambda _: plan("graduated", p=[1]), r"p=\[1\] .* must be a number"),
    (lambda _: plan(lr=0.1), "lr=0.1 .* Did you mean 'learning_rate'"),
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
    assert "\n" not in str(raised.value)
    # Another process sees the same message.
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


class Augmented:
    """By every generator that transforms use."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Tensor:
        return DATA[index] + torch.rand(1) + random.random() + np.random.rand()


def trained(workers: int, device: str, stop: int = -1, saved: Any = None) -> tuple[Any, Any]:
    """States and weights after ``stop`` updates, or all; a new process has another random state."""
    at_random = {"cpu": torch, "cuda": torch.cuda}[device]
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(0 if saved is None else 1)
    model = nn.Sequential(nn.Dropout(), nn.Linear(1, 1)).to(device)
    loop = Loop(workers, model, igo.Seeded(Augmented()))
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


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_resume_has_the_same_bits(device: str) -> None:
    """In mid-epoch, at its end, and with other workers. Each epoch draws anew."""
    loop = Loop(0, data=igo.Seeded(Augmented()))
    epochs = [torch.cat([*loop.schedule(loop.loader)]).sort(dim=0)[0] for _ in range(2)]
    assert not (epochs[0] == epochs[1]).any()
    weights = trained(0, device)[1]
    assert trained(2, device)[1] == weights
    for workers, stop, other_workers in ((2, 7, 2), (2, 5, 0), (0, 7, 2)):
        saved, _ = trained(workers, device, stop)
        assert trained(other_workers, device, saved=saved)[1] == weights


class Broken(Augmented):
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
        assert plan(own, h=k).rows[-1].phi_m == pytest.approx(2 / 3)


SIX = igo.plan("constant", n=6, epochs=2, batch_size=3)


class Drawn(list[Any]):
    def __getitem__(self, index: Any) -> Any:
        return float(torch.rand(())), random.random(), float(np.random.random())


def test_a_sample_has_numbers_of_its_own_by_seed_and_epoch() -> None:
    samples: set[tuple[float, ...]] = set()
    for seed in (0, 1, 0):  # The same seed draws the same numbers again.
        batches = igo.BatchSampler(SIX, range(6), seed=seed)
        loader = DataLoader(igo.Seeded(Drawn("123456")), batch_sampler=batches, collate_fn=list)
        for batches.updates in (0, 2):  # Each epoch begins here.
            samples |= {sample for batch in loader for sample in batch}
    assert [len({*numbers}) for numbers in zip(*samples, strict=True)] == [24, 24, 24]


class Workers(list[int]):
    """A loader that notes the seed which its workers would get."""

    batches: igo.BatchSampler

    def __iter__(self) -> Iterator[Any]:
        self.append(torch.initial_seed())
        return iter(self.batches)


def test_workers_draw_others_in_each_epoch_rank_and_run() -> None:
    """Whatever numbers the loop itself draws."""
    model, seeds = torch.nn.Linear(1, 1), set[tuple[int, ...]]()
    for seed, rank, draws in product((0, 1), (0, 1), (0, 3)):
        torch.manual_seed(seed)
        workers = Workers()
        workers.batches = igo.BatchSampler(SIX, range(6), rank=rank, ranks=2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loader = igo.Schedule(optimizer, workers.batches)(workers)
        for _ in range(2):
            torch.rand(draws)
            assert sum(1 for _ in loader) == 2
        seeds.add(tuple(list.__iter__(workers)))
    assert len({*chain(*seeds)}) == 2 * len(seeds) == 8
