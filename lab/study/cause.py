"""The study of results/cause.md: the noise of an update is moved alone.

An update is x ← x − η Σ w_i g_i over k batches of 16 images, each with a BatchNorm of its own. As
Σ w_i = 1 the expected step is the same for every k and w. Its variance is v = Σ w_i² of one
batch's. So noise is lowered by a mean of batches, and raised by weights that are not equal.

Each arm of a seed has the same images, initialisation and order of the images.
"""

import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from igo.config.load import make_plan
from igo.ground.seeds import derive_seed, generator
from igo.noise.measure import untouched
from igo.train.assembly import assembled
from igo.train.engine import Sums
from igo.train.on_device import Batch
from igo.train.training import Training
from lab.noise.point import squared_norm, variance_at_point
from lab.study import ends, images, records
from lab.study.design import Job, Record, Runs, Study

SEEDS, LEAST, FEW = range(303, 343), 32, 10  # LEAST are judged; FEW have what is an estimate
RATE, BATCH, STAGES, EPOCHS = 0.8, 16, 5, 20
BEST_RATE = 1.6  # the best η of even, by the tuning at commit 5880b788
LONG, LONG_ARMS = 80, ("m1", "m2", "avg", "flat", "even")  # epochs of more estimates; their arms
STAGE = 25  # updates of a stage for each epoch of 125 batches
SMOOTHING = 8  # batches of an update whose gradients are taken beside the point
TRAINED = 97  # % of train accuracy, where a claim is judged
MEASURED = 32  # batches of which C² is measured, after each stage
ANNEAL, ANNEAL_RATE = 100, 0.1  # updates of 128 images, and their η
# What a run counts whose loss is not finite: 10 %, chance
CHANCE: Record = {"finite": False, "fresh": 10.0, "running": 10.0, "annealed": 10.0, "train": 10.0}
BEST = "even at its best η"
Tensors = list[Tensor]  # one for each parameter: a gradient, a step, or a shift of the point


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


FALLING = tuple(2.0**-m for m in range(STAGES))  # v in the five stages
LIKE_AVG = (6.2,) * STAGES  # k of as many images
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
    """k numbers with Σ w = 1 and Σ w² = v: the first half above 1/k, the others below.

    With 1/k + √(v − 1/k) u, where Σ u = 0 and Σ u² = 1, both sums are right. They are equal numbers
    where v is None, which is 1/k, and where k is 1.
    """
    equal = torch.full((k,), 1 / k, dtype=torch.float64)
    if v is None or k == 1:
        return equal
    step = torch.where(torch.arange(k) < (k + 1) // 2, 1.0, -1.0).double()
    step -= step.mean()
    unequal: Tensor = equal + math.sqrt(v - 1 / k) * step / step.norm()
    return unequal


def mean(gradients: Sequence[Tensors], v: float | None) -> Tensors:
    """Σ w g over the gradients, with the weights whose Σ w² is v."""
    weight, *other_weights = weights(len(gradients), v).tolist()
    total = list(torch._foreach_mul(gradients[0], weight))
    for gradient, w in zip(gradients[1:], other_weights, strict=True):
        torch._foreach_add_(total, gradient, alpha=w)
    return total


def centred(gradients: Sequence[Tensors]) -> list[Tensors]:
    """The gradients minus their mean."""
    means: Any = [torch.stack(of_one).mean(0) for of_one in zip(*gradients, strict=True)]
    return [list(torch._foreach_sub(gradient, means)) for gradient in gradients]


class Steps:
    """The updates of one arm on one network."""

    def __init__(self, run: Training, arm: Arm, rate: float) -> None:
        self.run, self.arm, self.rate = run, arm, rate
        self.parameters: list[Any] = [*run.network.parameters()]
        self.norms = [m for m in run.network.modules() if isinstance(m, nn.BatchNorm2d)]
        self.batches, self.others = self._stream("cause"), self._stream("smoothing")
        self.passes = 0  # gradients of one batch, so far
        # The loss and the right answers of the first batch of each of the last 125 updates.
        self.last: deque[tuple[float, float]] = deque(maxlen=125)

    def _stream(self, name: str) -> Iterator[Batch]:
        """Batches of one permutation of the images after another, without end."""
        data, seed, number = self.run.data, self.run.config.seed, 0
        while True:
            number += 1
            order = torch.randperm(data.n, generator=generator(seed, name, number))
            yield from data.train_batches(order.split(BATCH), derive_seed(seed, name, number))

    def _gradient(self, batch: Batch) -> tuple[Tensors, Sums]:
        """The gradient of a batch at the present point, and the engine's sums over its samples."""
        self.passes += 1
        network, size = self.run.network, len(batch[1])
        sums = self.run.engine.backward(network, [batch], size, self.parameters)
        return [p.grad for p in self.parameters if p.grad is not None], sums

    def _own_noise(self, v: float) -> list[Tensors]:
        """ξ_i = −η √(v k/(k − 1)) (g'_i − ḡ') of k other batches; the mean of all ξ_i is 0.

        E‖g'_i − ḡ'‖² is (k − 1)/k of a batch's variance. So E‖ξ_i‖² is v times that variance, times
        η².
        """
        with untouched(self.run.network):
            gradients = [self._gradient(next(self.others))[0] for _ in range(SMOOTHING)]
        shifts = centred(gradients)
        scale = -self.rate * math.sqrt(v * SMOOTHING / (SMOOTHING - 1))
        for shift in shifts:
            torch._foreach_mul_(shift, scale)
        return shifts

    def stages_of(self, updates: int) -> Iterator[int]:
        """Make so many updates of each stage; give the stage's number after each stage.

        A loss that is not finite ends the updates, so that fewer stages come.
        """
        for stage in range(STAGES):
            for number in range(updates):
                self.step(stage, number)
                if not math.isfinite(self.last[-1][0]):
                    return
            yield stage

    @torch.no_grad()
    def step(self, stage: int, number: int) -> None:
        """Make update ``number`` of a stage, both from 0."""
        arm = self.arm
        k = int(arm.batches[stage])
        if k < arm.batches[stage] and number % 5 == 4:  # 6.2 is 6, 6, 6, 6 and 7.
            k += 1
        eta = self.rate * arm.rates[stage]
        shifts = self._own_noise(arm.smoothing[stage]) if arm.smoothing else []
        gradients = self.gradients(k, self.batches, shifts)
        torch._foreach_add_(self.parameters, mean(gradients, arm.variance), alpha=-eta)

    def gradients(
        self, k: int, batches: Iterator[Batch], shifts: Sequence[Tensors]
    ) -> list[Tensors]:
        """The gradients of k batches, each at the point plus its shift; no shifts are 0.

        The parameters are back at the point in the end, but for rounding. The first batch is kept
        in ``last`` as that of the update.
        """
        gradients_of_batches = []
        for i in range(k):
            self._track(i == 0)
            if shifts:
                torch._foreach_add_(self.parameters, shifts[i])
            with torch.enable_grad():
                gradient, (loss, correct, *_) = self._gradient(next(batches))
            if shifts:
                torch._foreach_sub_(self.parameters, shifts[i])
            if i == 0:
                self.last.append((loss.item(), correct.item()))
            gradients_of_batches.append(gradient)
        self._track(True)
        return gradients_of_batches

    def _track(self, moves: bool) -> None:
        """Let BatchNorm's running statistics move with the next batches, or not.

        They move by the first batch of an update alone, so that they span as many updates in every
        arm.
        """
        for norm in self.norms:
            norm.momentum = 0.1 if moves else 0.0

    @property
    def accuracy(self) -> float:
        """In %, of the first batches of the last 125 updates."""
        return 100 * sum(right for _, right in self.last) / (BATCH * len(self.last))

    def noise(self, stage: int) -> Record:
        """C² at the point, δ of the arm's updates there, and the size of the weights.

        ``shift`` is the root of E‖ξ‖², 0 without smoothing; ``train`` is the accuracy in %.
        """
        run, seed = self.run, self.run.config.seed
        order = torch.randperm(run.data.n, generator=generator(seed, "noise", stage))
        augmentation = derive_seed(seed, "noise", stage)
        c2 = variance_at_point(run, order[: MEASURED * BATCH], BATCH, augmentation)
        # δ of a step is η √(v C²/b): its variance is v of that of one batch, C²/b.
        k, v, smoothing = self.arm.batches[stage], self.arm.variance, self.arm.smoothing
        eta = self.rate * self.arm.rates[stage]
        return {
            "eta": eta,
            "k": k,
            "C2": c2,
            "delta": eta * math.sqrt((1 / k if v is None else v) * c2 / BATCH),
            "shift": self.rate * math.sqrt(smoothing[stage] * c2 / BATCH) if smoothing else 0.0,
            "norm": math.sqrt(squared_norm(self.parameters)),
            "train": self.accuracy,
        }


def prepared(epochs: int, rate: float, seed: int) -> Training:
    """The network and the images of a seed, before the first update."""
    images.require(f"ten/{seed}", f"ten {seed} 1")
    settings = {"experiment": "path", "schedule": "method1", "epochs": epochs}
    config = records.config_of({**settings, "learning_rate": rate, "seed": seed})
    run = assembled(config, make_plan(config))
    run.network.train()
    return run


def train(job: Job, _runs: Runs) -> Record:
    """Train an arm, and measure its end; a run whose loss is not finite counts as chance."""
    run = prepared(job["epochs"], job["rate"], job["seed"])
    steps = Steps(run, ARMS[job["arm"]], job["rate"])
    stages = [steps.noise(stage) for stage in steps.stages_of(STAGE * job["epochs"])]
    if len(stages) < STAGES:
        return CHANCE | {"stages": stages}
    _, running = ends.evaluated(run, run.data.test_batches())
    numbers = {"running": running, "passes": steps.passes, "stages": stages}
    return {"finite": True, **numbers, **end(run)}


def end(run: Training) -> Record:
    """Accuracies in % with new statistics of BatchNorm, and those after the anneal."""
    (_, train), (_, fresh) = ends.with_statistics(run, ends.plain_images(run))
    ends.anneal(run, ANNEAL_RATE, ANNEAL)
    _, (_, annealed) = ends.with_statistics(run, ends.plain_images(run))
    return {"fresh": fresh, "train": train, "annealed": annealed}


def job_of(arm: str, seed: int, rate: float = RATE, epochs: int = EPOCHS) -> Job:
    """A run of an arm."""
    return {"arm": arm, "seed": seed, "rate": rate, "epochs": epochs}


def jobs(_: Runs) -> Iterator[Job]:
    """The runs of the protocol, seed by seed: all arms, and even also at its best η.

    The arms that are only estimated have FEW seeds.
    """
    for seed in SEEDS:
        for arm in ARMS:
            if arm not in ESTIMATED or seed < SEEDS[0] + FEW:
                yield job_of(arm, seed)
        yield job_of("even", seed, BEST_RATE)


def long_jobs(_: Runs) -> Iterator[Job]:
    """The runs of more epochs, which are estimates."""
    for seed, arm in itertools.product(SEEDS[:FEW], LONG_ARMS):
        yield job_of(arm, seed, epochs=LONG)


def named(job: Job) -> str:
    """What a page calls the arm of a job: a run at another η is an arm of its own."""
    return str(job["arm"]) if job["rate"] == RATE else BEST


STUDY = Study("cause", jobs, train, SEEDS, LEAST, named)
LONG_STUDY = Study("cause_long", long_jobs, train, SEEDS[:FEW], 2, named)
