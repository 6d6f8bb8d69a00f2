"""The study of results/cause.md: the noise of an update is moved alone.

An update is x ← x − η Σ w_i g_i over k batches of 16 images, each with a BatchNorm of its own. As
Σ w_i = 1 the expected step is the same for every k and w. Its variance is v = Σ w_i² of one
batch's. So noise is lowered by a mean of batches, and raised by weights that are not equal.

Each arm of a seed has the same images, initialisation and order of the images.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from igo.config.load import make_plan
from igo.ground.files import write_atomically
from igo.ground.seeds import derive_seed, generator
from igo.noise.measure import Spread, untouched
from igo.runs import manifest
from igo.runs.assemble import prepare
from igo.train import measure
from igo.train.on_device import Batch
from igo.train.record import Training
from lab.study import ends, images, records

SEEDS, LEAST, FEW = range(303, 343), 32, 10  # LEAST are judged; FEW: of what is an estimate
TUNED, RATES = range(900, 904), (0.2, 0.4, 0.8, 1.6)
RATE, BATCH, STAGES, EPOCHS = 0.8, 16, 5, 20
LONG, OF_LONG = 80, ("m1", "m2", "avg", "flat", "even")  # epochs of more estimates; their arms
STAGE = 25  # updates of a stage for each epoch of 125 batches
SMOOTHING = 8  # batches of an update whose gradients are taken beside the point
TRAINED = 97  # % of train accuracy, where a claim is judged
MEASURED = 32  # batches of which C² is measured, after each stage
ANNEAL, ANNEAL_RATE = 100, 0.1  # updates of 128 images, and their η
NOT_FINITE = 10.0  # % that a run counts whose loss is not finite: chance
FOLDER, ARCHIVE = records.RUNS / "cause", records.RECORDS / "cause.jsonl"
Found = dict[str, Any]  # what a run came to
Job = tuple[str, int, float, int]  # arm, seed, η_1, epochs


@dataclass(frozen=True)
class Arm:
    """The updates of an arm. Where a tuple has five numbers, they are of the five stages.

    ``batches`` is k; 6.2 stands for five updates of 6, 6, 6, 6 and 7. ``variance`` is v, None for
    1/k. ``rates`` is η relative to η_1. With ``smoothing`` each gradient is taken at x + ξ, where
    ξ is SGD's own noise of this variance, relative to that of one batch.
    """

    batches: tuple[float, ...] = (1.0,) * STAGES
    variance: float | None = None
    rates: tuple[float, ...] = (1.0,) * STAGES
    smoothing: tuple[float, ...] | None = None


FALLING = tuple(2.0**-m for m in range(STAGES))  # of v
LIKE_AVG = (6.2,) * STAGES  # as many images
ARMS = {
    "m1": Arm(),
    "m2": Arm(rates=tuple(math.sqrt(v) for v in FALLING)),
    "avg": Arm(batches=tuple(1 / v for v in FALLING)),
    "flat": Arm(batches=LIKE_AVG, variance=sum(FALLING) / STAGES),
    "even": Arm(batches=LIKE_AVG),
    "k8": Arm(batches=(SMOOTHING,) * STAGES),
    "smoothed": Arm(batches=(SMOOTHING,) * STAGES, smoothing=FALLING),
    "busy": Arm(batches=LIKE_AVG, variance=1.0),
    "rising": Arm(batches=tuple(1 / v for v in FALLING[::-1])),
}
ESTIMATED = ("busy", "rising")


def weights(k: int, v: float | None) -> Tensor:
    """k numbers with Σ w = 1 and Σ w² = v: the first half above 1/k, the others below."""
    equal = torch.full((k,), 1 / k, dtype=torch.float64)
    if v is None or k == 1:
        return equal
    sign = torch.where(torch.arange(k) < (k + 1) // 2, 1.0, -1.0).double()
    sign -= sign.mean()
    unequal: Tensor = equal + math.sqrt(v - 1 / k) * sign / sign.norm()
    return unequal


def mean(gradients: Sequence[list[Tensor]], v: float | None) -> list[Tensor]:
    """Σ w g, with the weights of v."""
    first, *others = weights(len(gradients), v).tolist()
    total = list(torch._foreach_mul(gradients[0], first))
    for gradient, w in zip(gradients[1:], others, strict=True):
        torch._foreach_add_(total, gradient, alpha=w)
    return total


class Steps:
    """The updates of one arm on one network."""

    def __init__(self, run: Training, arm: Arm, rate: float) -> None:
        self.run, self.arm, self.rate = run, arm, rate
        self.parameters: list[Any] = [*run.network.parameters()]
        self.norms = [m for m in run.network.modules() if isinstance(m, nn.BatchNorm2d)]
        self.batches, self.others = self._stream("cause"), self._stream("smoothing")
        self.passes = 0  # gradients of one batch
        self.last: deque[tuple[float, float]] = deque(maxlen=125)  # loss and right answers

    def _stream(self, name: str) -> Iterator[Batch]:
        """Batches of one permutation of the images after another."""
        data, seed, number = self.run.data, self.run.config.seed, 0
        while True:
            number += 1
            order = torch.randperm(data.n, generator=generator(seed, name, number))
            yield from data.train_batches(order.split(BATCH), derive_seed(seed, name, number))

    def _gradient(self, batch: Batch) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        self.passes += 1
        network, size = self.run.network, len(batch[1])
        made = self.run.engine.backward(network, *batch, size, self.parameters)
        return [p.grad for p in self.parameters if p.grad is not None], made

    def _own_noise(self, v: float) -> list[list[Tensor]]:
        """ξ_i = −η √(v k/(k − 1)) (g'_i − ḡ') of k other batches; their mean is 0."""
        gradients = [self._gradient(next(self.others))[0] for _ in range(SMOOTHING)]
        means: Any = [torch.stack(of_one).mean(0) for of_one in zip(*gradients, strict=True)]
        scale = -self.rate * math.sqrt(v * SMOOTHING / (SMOOTHING - 1))
        for gradient in gradients:
            torch._foreach_sub_(gradient, means)
            torch._foreach_mul_(gradient, scale)
        return gradients

    @torch.no_grad()
    def step(self, stage: int, number: int) -> None:
        """Make update ``number`` of a stage, both from 0."""
        arm = self.arm
        whole = int(arm.batches[stage])
        k = whole if whole == arm.batches[stage] else whole + (number % STAGES == STAGES - 1)
        shifts: list[list[Tensor]] = []
        eta = self.rate * arm.rates[stage]
        if arm.smoothing:
            with untouched(self.run.network):
                shifts = self._own_noise(arm.smoothing[stage])
        found = self.gradients(k, self.batches, shifts)
        torch._foreach_add_(self.parameters, mean(found, arm.variance), alpha=-eta)

    def gradients(
        self, k: int, batches: Iterator[Batch], shifts: Sequence[list[Tensor]]
    ) -> list[list[Tensor]]:
        """Of k batches, each at the point plus its shift, where there are shifts."""
        found = []
        for i in range(k):
            self._track(i == 0)
            if shifts:
                torch._foreach_add_(self.parameters, shifts[i])
            with torch.enable_grad():
                gradient, (loss, correct) = self._gradient(next(batches))
            if shifts:
                torch._foreach_sub_(self.parameters, shifts[i])
            if i == 0:
                self.last.append((loss.item(), correct.item()))
            found.append(gradient)
        self._track(True)
        return found

    def _track(self, on: bool) -> None:
        """Whether BatchNorm's running statistics move: by the first batch of an update alone.

        So they span as many updates in every arm.
        """
        for norm in self.norms:
            norm.momentum = 0.1 if on else 0.0

    @property
    def accuracy(self) -> float:
        """In %, of the first batches of the last 125 updates."""
        return 100 * sum(right for _, right in self.last) / (BATCH * len(self.last))

    def noise(self, stage: int) -> Found:
        """C² at the point, δ of the arm's updates there, and the size of the weights."""
        run, seed = self.run, self.run.config.seed
        order = torch.randperm(run.data.n, generator=generator(seed, "noise", stage))
        drawn = order[: MEASURED * BATCH].split(BATCH)
        with untouched(run.network):
            spread = Spread(self.parameters)
            for batch in run.data.train_batches(drawn, derive_seed(seed, "noise", stage)):
                spread.add(measure.training_gradient(run.engine, run.network, *batch))
        c2 = spread.noise(batch_size=BATCH, n=run.data.n).variance
        k, v = self.arm.batches[stage], self.arm.variance
        eta = self.rate * self.arm.rates[stage]
        norm = math.sqrt(sum(float(p.detach().square().sum()) for p in self.parameters))
        delta = eta * math.sqrt((1 / k if v is None else v) * c2 / BATCH)
        smoothing = self.arm.smoothing
        shift = self.rate * math.sqrt(smoothing[stage] * c2 / BATCH) if smoothing else 0.0
        return {"eta": eta, "k": k, "C2": c2, "delta": delta, "shift": shift, "norm": norm,
                "train": self.accuracy}  # fmt: skip


def trained(name: str, seed: int, rate: float = RATE, epochs: int = EPOCHS) -> Found:
    """Train an arm, and measure its end."""
    started = time.process_time()
    settings = {"schedule": "method1", "epochs": epochs, "learning_rate": rate}
    config = records.config("path", settings, seed)
    run = prepare(config, make_plan(config))
    run.network.train()
    steps = Steps(run, ARMS[name], rate)
    stages: list[Found] = []
    passed = None
    found: Found = {"arm": name, "seed": seed, "rate": rate, "epochs": epochs, "finite": True}
    for stage in range(STAGES):
        for number in range(STAGE * epochs):
            steps.step(stage, number)
            if not math.isfinite(steps.last[-1][0]):
                return found | {"finite": False, "fresh": NOT_FINITE, "running": NOT_FINITE,
                                "train": NOT_FINITE, "stages": stages}  # fmt: skip
            if passed is None and len(steps.last) == 125 and steps.accuracy >= 99.5:
                passed = stage * STAGE * epochs + number + 1
        stages.append(steps.noise(stage))
    _, running = ends.evaluated(run.network, run.data.test_batches())
    end, train = fresh(run)
    seconds = time.process_time() - started
    ends.anneal(run, ANNEAL_RATE, ANNEAL)
    annealed, _ = fresh(run)
    hardware = manifest.of_training(run)["hardware"]
    return found | {
        "fresh": end, "running": running, "train": train, "annealed": annealed,
        "passed": passed, "passes": steps.passes, "stages": stages, "cpu_seconds": seconds,
        "cpu": hardware["cpu"], "instructions": hardware["instructions"],
        "torch": torch.__version__, "commit": manifest.commit(),
    }  # fmt: skip


def fresh(run: Training) -> tuple[float, float]:
    """Test and train accuracy with new statistics of BatchNorm."""
    order = torch.randperm(run.data.n, generator=generator(0, "statistics")).split(ends.AT_ONCE)
    update_bn(run.data.plain_batches(order), run.network.train())
    _, test = ends.evaluated(run.network, run.data.test_batches())
    _, train = ends.evaluated(run.network, run.data.plain_batches(order))
    run.network.train()
    return test, train


def jobs(runs: Mapping[str, Found]) -> Iterator[Job]:
    """The runs of the protocol: the tuning, after it the seeds in turn, and the long ones."""
    yield from itertools.product(("even", "flat"), TUNED, RATES, (EPOCHS,))
    best = best_rate("even", runs)
    if best is None:
        return
    for seed in SEEDS:
        for name in ARMS:
            if name not in ESTIMATED or seed < SEEDS[0] + FEW:
                yield name, seed, RATE, EPOCHS
        if best != RATE:
            yield "even", seed, best, EPOCHS
    for seed, name in itertools.product(SEEDS[:FEW], OF_LONG):
        yield name, seed, RATE, LONG


def _missing(runs: Mapping[str, Found]) -> list[Job]:
    return [job for job in jobs(runs) if key(*job) not in runs]


def best_rate(name: str, runs: Mapping[str, Found]) -> float | None:
    """The η_1 of the highest mean accuracy in the tuning; None while runs of it are missing."""
    means = {}
    for rate in RATES:
        names = [key(name, seed, rate) for seed in TUNED]
        if any(each not in runs for each in names):
            return None
        means[rate] = np.mean([runs[each]["fresh"] for each in names])
    return max(means, key=lambda rate: means[rate])


def key(name: str, seed: int, rate: float, epochs: int = EPOCHS) -> str:
    """The name of a run."""
    return f"{seed}-{name}-{rate:g}-{epochs}"


def archived() -> dict[str, Found]:
    """The runs of the archive, by name."""
    return _by_name(ARCHIVE.read_text().splitlines() if ARCHIVE.is_file() else [])


def read() -> dict[str, Found]:
    """All runs that have ended, of the archive and of the folder, by name."""
    return archived() | _by_name(file.read_text() for file in sorted(FOLDER.glob("*.json")))


def _by_name(texts: Iterable[str]) -> dict[str, Found]:
    every = map(json.loads, texts)
    return {key(run["arm"], run["seed"], run["rate"], run["epochs"]): run for run in every}


def whole_seeds(runs: Mapping[str, Found], epochs: int = EPOCHS) -> dict[int, list[Found]]:
    """The runs of each seed that has all its arms, trained on one kind of CPU by one PyTorch."""
    of_seeds: dict[int, list[str]] = {}
    if best_rate("even", runs) is not None:
        for job in jobs(runs):
            if job[1] in SEEDS and job[3] == epochs:
                of_seeds.setdefault(job[1], []).append(key(*job))
    found = {}
    for seed, names in of_seeds.items():
        ended = [runs[name] for name in names if name in runs]
        kinds = {(run["cpu"], run["instructions"], run["torch"]) for run in ended if run["finite"]}
        if len(ended) == len(names) and len(kinds) <= 1:
            found[seed] = ended
    return found


def archive() -> int:
    """Write the runs of the tuning and of whole seeds into the archive; return their number."""
    runs = read()
    kept = [runs[key(*job)] for job in jobs(runs) if job[1] in TUNED and key(*job) in runs]
    for epochs in (EPOCHS, LONG):
        kept += itertools.chain.from_iterable(whole_seeds(runs, epochs).values())
    write_atomically(ARCHIVE, "".join(json.dumps(run) + "\n" for run in kept))
    return len(kept)


def run(words: list[str]) -> None:
    """Train what is missing, without showing a result: process PART, from 0, of OF."""
    part, of = map(int, words)
    torch.set_num_threads(1)
    for some in (TUNED, SEEDS):
        images.require((f"ten/{seed}" for seed in some), f"ten {some[0]} {len(some)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    while missing := _missing(read()):
        mine = [job for job in missing if sum(map(ord, key(*job))) % of == part]
        for job in mine:
            content = json.dumps(trained(*job)) + "\n"
            write_atomically(FOLDER / f"{key(*job)}.json", content)
            print(f"{key(*job)}: done", flush=True)
        if not mine:  # another process has the last ones of the tuning
            time.sleep(10)
