"""The study of results/smoothing.md: gradients beside the point, and steps that are as noisy.

The setting is that of ``lab.study.cause``.
"""

import itertools
import math
from collections import deque
from collections.abc import Iterator

import numpy as np
import torch

from igo.ground.seeds import generator
from igo.noise.measure import untouched
from igo.train.on_device import Batch
from igo.train.training import Training
from lab.noise.point import squared_norm
from lab.study import cause
from lab.study.cause import CHANCE, EPOCHS, FALLING, RATE, STAGES, Tensors
from lab.study.design import Job, Record, Runs, Study, key

SEEDS, LEAST = range(400, 460), 32
SMOOTHED, RELATIVE, BALL, ABSOLUTE = "smoothed", "same relative noise", "ball", "same noise"
CORRECTED = "same relative noise, corrected"
BATCHES = {SMOOTHED: 8, RELATIVE: 8, BALL: 8, ABSOLUTE: 16, CORRECTED: 8}  # k of each arm
# v of smoothed's step by stage: from a pilot, and as 19 of the seeds have it.
PILOT, MEASURED = (0.172, 0.259, 1 / 8, 1 / 8, 1 / 8), (0.171, 0.213, 1 / 8, 1 / 8, 1 / 8)
STEP = dict.fromkeys(BATCHES, PILOT) | {CORRECTED: MEASURED}
UPDATES = cause.STAGE * EPOCHS  # A stage has so many.
EVERY, LOOKS = 5, 20  # ball measures its own noise at each fifth update; its last so many count
WINDOW = 25  # updates whose mean C² counts
# Steps are drawn at these updates, DRAWS at each.
DRAWN, DRAWS = (25, 100, 250, 400, 525, 625, 750, 900), 8


class Steps(cause.Steps):
    """The updates of an arm on one network.

    A variance is that of the gradient of one batch: ``plain`` at the point, so C²/16, and
    ``beside`` where the arm takes it. ``target`` is plain of smoothed, by windows.
    """

    def __init__(self, run: Training, name: str, target: list[float]) -> None:
        super().__init__(run, cause.Arm(), RATE)
        self.name, self.k, self.target = name, BATCHES[name], target
        # ``others``, from which an arm's own noise is taken, is set anew for each update: to the
        # batches of training, or to those of steps that are drawn and not taken.
        self.drawn_batches, self.smoothing = self._stream("variance"), self.others
        self.directions = generator(run.config.seed, BALL)
        self.distances: list[float] = []  # ‖ξ_i‖ of ball
        # The plain variance and that beside the point, of the last updates that show both.
        self.recent: deque[tuple[float, float]] = deque(maxlen=LOOKS if name == BALL else WINDOW)
        self.seen: list[Record] = []  # It has an entry for each update.
        self.drawn: list[Record] = []

    def gradients_of_update(
        self, stage: int, batches: Iterator[Batch], others: Iterator[Batch], measures: bool
    ) -> tuple[list[Tensors], Record]:
        """An update's gradients, the variances that they show, and the mean ‖ξ‖².

        With ``measures`` ball takes ‖ξ_i‖ from its own noise anew; else it keeps the last ones, and
        its plain variance is NaN: unknown.
        """
        shifts: list[Tensors] = []
        plain, v = math.nan, FALLING[stage]
        if self.name == SMOOTHED or (self.name == BALL and measures):
            self.others = others
            shifts = self._own_noise(v)
            # The mean ‖ξ_i‖² is v η² times the variance of a batch.
            plain = sum(map(squared_norm, shifts)) / (len(shifts) * v * self.rate**2)
        if self.name == BALL:
            if measures:
                self.distances = [math.sqrt(squared_norm(shift)) for shift in shifts]
            shifts = [self._on_sphere(distance) for distance in self.distances]
        gradients = self.gradients(self.k, batches, shifts)
        beside = variance(gradients)
        shift = sum(map(squared_norm, shifts)) / self.k
        # Without shifts the gradients themselves are at the point.
        return gradients, {"plain": plain if shifts else beside, "beside": beside, "shift": shift}

    def _on_sphere(self, distance: float) -> Tensors:
        """A shift of this length in a random direction."""
        direction = [torch.randn(p.shape, generator=self.directions) for p in self.parameters]
        torch._foreach_mul_(direction, distance / math.sqrt(squared_norm(direction)))
        return direction

    def squares(self, stage: int, update: int) -> float:
        """Σ w² of an update, by which its step has the variance that the arm is to have.

        A step has Σ w² times the variance of its gradients, which are beside the point for ball.
        It is to have v times plain, or v times plain of smoothed for the same noise. Equal weights
        have the least Σ w², 1/k; smoothed has them.
        """
        v, (plain, beside) = STEP[self.name][stage], np.mean(self.recent, axis=0).tolist()
        if self.name == SMOOTHED:
            v = 0.0
        elif self.name == BALL:
            v *= plain / beside
        elif self.name == ABSOLUTE:
            v *= self.target[update // WINDOW] / plain
        return max(v, 1 / self.k)

    @torch.no_grad()
    def step(self, stage: int, number: int) -> None:
        """Make update ``number`` of a stage, both from 0."""
        update, measures = stage * UPDATES + number, number % EVERY == 0
        if update in DRAWN:
            self.draw(stage, update)
        gradients, seen = self.gradients_of_update(stage, self.batches, self.smoothing, measures)
        if not math.isnan(seen["plain"]):
            self.recent.append((seen["plain"], seen["beside"]))
        seen["squares"] = self.squares(stage, update)
        self.seen.append(seen)
        step = cause.mean(gradients, seen["squares"])
        torch._foreach_add_(self.parameters, step, alpha=-self.rate)

    def draw(self, stage: int, update: int) -> None:
        """Measure the variance of whole steps at this point, from some that are not taken.

        The point and what training needs later are left as they were.
        """
        before, steps, plain = [p.clone() for p in self.parameters], [], 0.0
        last = self.last.copy()
        squares, batches = self.squares(stage, update), self.drawn_batches
        # ``untouched`` lets gradients be computed, which adding a shift to the point shall not be.
        with untouched(self.run.network), torch.no_grad():
            for _ in range(DRAWS):
                gradients, seen = self.gradients_of_update(stage, batches, batches, measures=True)
                steps.append(cause.mean(gradients, squares))
                plain += seen["plain"] / DRAWS
                torch._foreach_copy_(self.parameters, before)  # a shift leaves its rounding
        self.last = last
        self.drawn.append({"update": update, "plain": plain, "step": variance(steps)})

    def stages(self) -> list[Record]:
        """The means of what the updates have shown, by stage; unknown variances are left out."""
        return [
            {name: np.nanmean([seen[name] for seen in of_stage]) for name in of_stage[0]}
            for of_stage in np.split(np.array(self.seen), STAGES)
        ]


def variance(gradients: list[Tensors]) -> float:
    """Σ‖g − ḡ‖²/(k − 1) over k gradients."""
    return sum(map(squared_norm, cause.centred(gradients))) / (len(gradients) - 1)


def jobs(runs: Runs) -> Iterator[Job]:
    """All arms of each seed; that of the same noise is named after smoothed has ended."""
    for seed, arm in itertools.product(SEEDS, BATCHES):
        if arm != ABSOLUTE or key(_job(SMOOTHED, seed)) in runs:
            yield _job(arm, seed)


def _job(arm: str, seed: int) -> Job:
    return {"arm": arm, "seed": seed}


def train(job: Job, runs: Runs) -> Record:
    """Train an arm, and measure its end; a run whose loss is not finite counts as chance.

    ``windows`` has the mean plain variance of each WINDOW updates: the target of the same noise.
    """
    arm, seed = job["arm"], job["seed"]
    target = runs[key(_job(SMOOTHED, seed))].get("windows") if arm == ABSOLUTE else []
    if target is None:  # the loss of smoothed was not finite
        return CHANCE
    run = cause.prepared(EPOCHS, RATE, seed)
    steps = Steps(run, arm, target)
    norms = [math.sqrt(squared_norm(steps.parameters)) for _ in steps.stages_of(UPDATES)]
    if len(norms) < STAGES:
        return CHANCE
    plain = np.reshape([seen["plain"] for seen in steps.seen], (-1, WINDOW))
    return {
        "finite": True,
        **cause.end(run),
        "passes": steps.passes,
        "norms": norms,
        "stages": steps.stages(),
        "drawn": steps.drawn,
        "windows": np.nanmean(plain, axis=1).tolist(),
    }


STUDY = Study("smoothing", jobs, train, SEEDS, LEAST)
