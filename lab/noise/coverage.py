"""`python -m lab.noise.coverage [SETTING=VALUE …]`: C² of an epoch held against brute force.

A run stops after EPOCHS epochs. Then the next epoch is trained REPEATS times from there, each with
other batches and augmentation, and every pair of its updates has a twin. The mean of C² in all
twins is the truth. Three other numbers are compared with the truth: C² of the recorded pairs alone,
without their twins; what the run would have recorded; and C² of batches drawn from all samples at
the same points, where a twin has only samples that the epoch has not used yet. ``repeats=`` and
``epochs=`` set the two numbers.
"""

import copy
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from igo.config.load import make_plan
from igo.ground.ranks import ALONE, Ranks
from igo.noise.measure import untouched
from igo.noise.noise import Noise
from igo.noise.pairs import Pairs, Twin
from igo.train import loop
from igo.train.assembly import assembled
from igo.train.training import Training
from lab.configuration import composed
from lab.markdown import markdown
from lab.noise.point import flat_gradient, variance_at_point

EPOCHS, REPEATS = 2, 12
DRAWS = 8  # batches of all samples at each point
SETTINGS = ("schedule=constant", "tracking=none")


class Repeat(NamedTuple):
    """What a repetition of the epoch has measured."""

    variance: float  # C² of the twins of all pairs
    alone: float  # C² of the pairs that a run records, without their twins
    whole: float  # C² of batches drawn from all samples, at the first point of each pair
    recorded: Noise  # what a run records
    twins: int  # which ``recorded`` rests on


class Checked(Pairs):
    """Records an epoch as a run does, and also gives each pair of updates a twin of its own.

    Pairs are disjoint: the first and the second update, the third and the fourth, and so on. When
    the epoch ends, a ``Repeat`` is appended to the caller's list ``repeats``. The other arguments
    are those of ``Pairs``.
    """

    def __init__(
        self, run: Training, repeats: list[Repeat], network: nn.Module, batches: int, *earlier: Any
    ) -> None:
        super().__init__(network, batches, *earlier)
        self._run, self._repeats, self._batches = run, repeats, batches
        self._random = torch.Generator().manual_seed(run.config.seed)
        # Between the two updates of a pair: the first one's samples and gradient, and the twin.
        self._first_and_twin: tuple[int, Tensor, Tensor]
        self._variances: list[list[float]] = []  # C² of each pair, and of its twin
        self._whole: list[float] = []

    def take(
        self, size: int, slope: Tensor, next_gradient: Callable[[], object], *scale: Any
    ) -> None:
        """Beside what is recorded, measure a pair and its twin, and batches of all samples.

        The arguments are those of ``Pairs.take``: the gradient of an update of ``size`` samples is
        in ``.grad``, and ``next_gradient`` sets ``.grad`` to that of the next batch at this point.
        """
        super().take(size, slope, next_gradient, *scale)
        run, gradient = self._run, flat_gradient(self._run.network).double()
        taken = len(self._sizes)  # updates of the epoch so far, with this one
        if taken % 2 == 0:
            first_size, first, twin = self._first_and_twin
            of_one_sample = 1 / first_size + 1 / size  # E‖Δg‖² is C² times this sum.
            changes = ((other - first).square().sum() for other in (gradient, twin))
            self._variances.append([float(change) / of_one_sample for change in changes])
        elif taken < self._batches:  # The last of an odd number of updates is in no pair.
            with untouched(run.network):
                next_gradient()
                self._first_and_twin = size, gradient, flat_gradient(run.network).double()
            order = torch.randperm(run.data.n, generator=self._random)[: DRAWS * size]
            # Any number may seed the augmentation, if each point has another.
            self._whole.append(variance_at_point(run, order, size, seed=int(order[0])))

    def noise(self, ranks: Ranks = ALONE) -> tuple[Noise | None, Sequence[Twin]]:
        """What the run would record; also appends the repetition, at the end of the epoch."""
        recorded, newest = super().noise(ranks)
        if recorded:
            pairs, twins = np.transpose(self._variances)
            # ``Pairs`` keeps the numbers of the pairs that it measures, and of those with a twin.
            alone, whole = pairs[self._measured].mean(), np.mean(self._whole)
            row = Repeat(twins.mean(), alone, float(whole), recorded, len(self._twinned))
            self._repeats.append(row)
        return recorded, newest


def measured(words: list[str], repeats: int, epochs: int) -> list[Repeat]:
    """The repetitions of the epoch after the first ``epochs``, each from the same point."""
    config = composed(*SETTINGS, f"epochs={epochs + 1}", *words)
    run, bar = assembled(config, make_plan(config)), mock.Mock()
    run.network.train()
    torch.manual_seed(config.seed)  # of dropout
    twins: Sequence[Twin] = ()
    for _ in range(epochs):
        twins = loop.train_epoch(run, bar, lambda: None, twins).twins
    rows: list[Repeat] = []
    for seed in range(1, 1 + repeats):
        # An epoch changes the network, so that each repetition has a copy. Its seed gives it other
        # augmentation, and its sampler's seed other batches.
        repetition = replace(copy.deepcopy(run), config=replace(config, seed=seed))
        repetition.batches.seed = seed
        # The loop makes a ``Checked``, which appends its repetition to the rows.
        with mock.patch.object(loop, "Pairs", partial(Checked, repetition, rows)):
            loop.train_epoch(repetition, bar, lambda: None, twins)
    return rows


def cells(repeats: list[Repeat]) -> dict[str, str]:
    """The cells of a table, by their heads.

    Of each kind of C² the table has the mean over the truth, and the error: the root mean square of
    log C² less log C² of all twins in the same epoch. The truth is the mean of all twins of all
    epochs, and an interval that the run would have recorded is to cover it.
    """
    columns = {
        "pairs alone": np.array([repeat.alone for repeat in repeats]),
        "recorded": np.array([repeat.recorded.variance for repeat in repeats]),
        "all samples": np.array([repeat.whole for repeat in repeats]),
    }
    truths = np.array([repeat.variance for repeat in repeats])
    truth = truths.mean()
    intervals = [repeat.recorded.variance_interval for repeat in repeats]
    covers = [ends[0] <= truth <= ends[1] for ends in intervals if ends]  # some have no interval
    errors = {name: np.square(np.log(numbers / truths)) for name, numbers in columns.items()}
    return {
        "pairs": f"{repeats[0].recorded.batches}",
        "twins": f"{repeats[0].twins}",
        **{name: f"{numbers.mean() / truth:.2f}" for name, numbers in columns.items()},
        **{f"error, {name}": f"{squares.mean() ** 0.5:.2f}" for name, squares in errors.items()},
        "intervals with the truth": f"{sum(covers)} of {len(covers)}",
    }


def main(words: list[str]) -> None:
    """Print the table; the words are settings of igo, and ``repeats=`` and ``epochs=``."""
    settings = dict(word.split("=", 1) for word in words)
    repeats = int(settings.pop("repeats", REPEATS))
    epochs = int(settings.pop("epochs", EPOCHS))
    row = cells(measured([f"{name}={value}" for name, value in settings.items()], repeats, epochs))
    print(markdown([*row], [[*row.values()]]), end="")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main(sys.argv[1:])
