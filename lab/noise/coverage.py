"""`python -m lab.noise.coverage [SETTING=VALUE …]`: C² of an epoch held against brute force.

A run stops after EPOCHS epochs. Then the next epoch is trained REPEATS times from there, each with
other batches and augmentation, and every pair of its updates has a twin. The mean of C² in all
twins is the truth. It is compared with C² of the recorded pairs alone, with what the run would have
recorded, and with C² of batches of all samples at the same points: a twin's are those that the
epoch has not used yet. ``repeats=`` and ``epochs=`` set the two numbers.
"""

import copy
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from igo.config.load import config_of, make_plan
from igo.ground.files import CONF
from igo.ground.ranks import ALONE, Ranks
from igo.noise.measure import untouched
from igo.noise.noise import Noise
from igo.noise.pairs import Pairs, Twin
from igo.train import loop
from igo.train.assembly import assembled
from igo.train.training import Training
from lab.markdown import markdown
from lab.noise.point import variance_at_point

EPOCHS, REPEATS = 2, 12
DRAWS = 8  # batches of all samples at each point
SETTINGS = ("schedule=constant", "tracking=none")


class Repeat(NamedTuple):
    """A repetition of the epoch: C² of all twins, and of the recorded pairs alone.

    ``whole`` is that of batches of all samples at the same points. ``recorded`` is what the run
    would have recorded, with so many ``twins`` of its own.
    """

    variance: float
    alone: float
    whole: float
    recorded: Noise
    twins: int


class Checked(Pairs):
    """Records an epoch as a run does, and gives each pair a twin of its own.

    ``repeats`` gets a repetition when the epoch ends.
    """

    def __init__(
        self, run: Training, repeats: list[Repeat], network: nn.Module, batches: int, *rest: Any
    ) -> None:
        super().__init__(network, batches, *rest)
        self._run, self._repeats = run, repeats
        self._batches_in_pairs, self._batches = batches - batches % 2, 0
        self._random = torch.Generator().manual_seed(run.config.seed)
        self._first_and_twin: list[Tensor] = []
        self._first_size = 0
        self._variances: list[tuple[float, float]] = []  # C² of each pair, and of its twin
        self._whole: list[float] = []

    def take(
        self, size: int, slope: Tensor, next_gradient: Callable[[], object], *scale: Any
    ) -> None:
        """Beside what is recorded, measure a pair and its twin, and batches of all samples."""
        super().take(size, slope, next_gradient, *scale)
        run, gradient = self._run, self._flat_gradient()
        self._batches += 1
        if self._batches % 2 == 0:
            first, twin = self._first_and_twin
            of_one_sample = 1 / self._first_size + 1 / size
            changes = ((other - first).square().sum() for other in (gradient, twin))
            pair, of_twin = (float(change) / of_one_sample for change in changes)
            self._variances.append((pair, of_twin))
        elif self._batches < self._batches_in_pairs:
            with untouched(run.network):
                next_gradient()
                self._first_and_twin = [gradient, self._flat_gradient()]
            self._first_size = size
            order = torch.randperm(run.data.n, generator=self._random)[: DRAWS * size]
            self._whole.append(variance_at_point(run, order, size, seed=int(order[0])))

    def _flat_gradient(self) -> Tensor:
        gradients = [p.grad for p in self._run.network.parameters() if p.grad is not None]
        return torch.cat([gradient.flatten() for gradient in gradients]).double()

    def noise(self, ranks: Ranks = ALONE) -> tuple[Noise | None, list[Twin]]:
        """What the run would record."""
        recorded, newest = super().noise(ranks)
        if recorded:
            pairs, twins = np.transpose(self._variances)
            alone, whole = pairs[self._measured].mean(), np.mean(self._whole)
            row = Repeat(twins.mean(), alone, float(whole), recorded, len(self._twinned))
            self._repeats.append(row)
        return recorded, newest


def measured(words: list[str], repeats: int, epochs: int) -> list[Repeat]:
    """The repetitions of the epoch after the first ``epochs``."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = config_of(compose("config", [*SETTINGS, f"epochs={epochs + 1}", *words]))
    run, bar = assembled(config, make_plan(config)), mock.Mock()
    run.network.train()
    torch.manual_seed(config.seed)  # of dropout
    twins: list[Twin] = []
    for _ in range(epochs):
        twins = loop.train_epoch(run, bar, lambda: None, twins).twins
    rows: list[Repeat] = []
    for seed in range(1, 1 + repeats):
        repetition = replace(copy.deepcopy(run), config=replace(config, seed=seed))
        repetition.batches.seed = seed
        with mock.patch.object(loop, "Pairs", partial(Checked, repetition, rows)):
            loop.train_epoch(repetition, bar, lambda: None, twins)
    return rows


def cells(repeats: list[Repeat]) -> dict[str, str]:
    """The cells of a table, by their heads: means of C² over the truth, then errors of log C².

    An error is the root mean square, beside all twins of the same epoch.
    """
    columns = {
        "pairs alone": np.array([repeat.alone for repeat in repeats]),
        "recorded": np.array([repeat.recorded.variance for repeat in repeats]),
        "all samples": np.array([repeat.whole for repeat in repeats]),
    }
    truths = np.array([repeat.variance for repeat in repeats])
    truth = truths.mean()
    intervals = [ends for repeat in repeats if (ends := repeat.recorded.variance_interval)]
    covered = sum(low <= truth <= high for low, high in intervals)
    errors = {name: np.square(np.log(numbers / truths)) for name, numbers in columns.items()}
    return {
        "pairs": f"{repeats[0].recorded.batches}",
        "twins": f"{repeats[0].twins}",
        **{name: f"{numbers.mean() / truth:.2f}" for name, numbers in columns.items()},
        **{f"error, {name}": f"{squares.mean() ** 0.5:.2f}" for name, squares in errors.items()},
        "intervals with the truth": f"{covered} of {len(intervals)}",
    }


def main(words: list[str]) -> None:
    """Print the table."""
    numbers, settings = {"repeats": REPEATS, "epochs": EPOCHS}, []
    for word in words:
        name, _, setting = word.partition("=")
        if name in numbers:
            numbers[name] = int(setting)
        else:
            settings.append(word)
    row = cells(measured(settings, **numbers))
    print(markdown([*row], [[*row.values()]]), end="")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main(sys.argv[1:])
