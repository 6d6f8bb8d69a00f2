"""The cells of the benchmark: what they train, and how long."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from igo.config.load import load
from igo.config.schema import Config
from igo.ground.files import CONF

# The measurement of C² before training is short here, and no tracker runs.
COMMON = ("noise.batches=2", "tracking=none")
RESNET18 = ("dataset=cifar100", "dataset.classes=10", "model=resnet18")
SMALL = ("dataset=fashion_mnist", "model=resnet8", "model.width=16")


@dataclass(frozen=True)
class Cell:
    """A comparison.

    A round is an epoch of a training of ``1 + rounds`` epochs, or a whole training (``whole_run``).
    The first round is the warm-up and is not counted.
    """

    name: str
    config: Config
    rounds: int
    whole_run: bool = False

    @property
    def epochs_per_round(self) -> int:
        """The turns of each contender in a round."""
        return self.config.epochs if self.whole_run else 1

    @property
    def trainings(self) -> int:
        """The number of trainings of each contender."""
        return 1 + self.rounds if self.whole_run else 1


def configure(*overrides: str) -> Config:
    """Compose and check a configuration as the command line does."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", list(overrides))
    return load(composed, [override.split("=")[0] for override in overrides])


def constant(
    name: str, parts: tuple[str, ...], b: int, samples: int, data_dir: Path, rounds: int
) -> Cell:
    """A cell of constant batch size; a turn has ``samples`` images."""
    config = configure(
        *parts,
        *COMMON,
        "schedule=constant",
        "schedule.stages=1",
        "learning_rate=0.02",
        f"epochs={1 + rounds}",
        f"batch_size={b}",
        f"dataset.samples={samples}",
        f"data_dir={data_dir}",
    )
    return Cell(name, config, rounds)


def graduated(name: str, split: float, samples: int, data_dir: Path, rounds: int) -> Cell:
    """A cell that is a whole graduated run: 10 stages of an epoch, p = 0.5, b_1 = 16; quick: 5."""
    stages = 5 if rounds == QUICK_ROUNDS else 10
    config = configure(
        *SMALL,
        *COMMON,
        "schedule=graduated",
        "batch_size=16",
        "learning_rate=0.02",
        f"schedule.stages={stages}",
        f"epochs={stages}",
        f"split={split}",
        f"dataset.samples={samples}",
        f"data_dir={data_dir}",
    )
    return Cell(name, config, rounds, whole_run=True)


MAKERS = {
    **{f"resnet18-{b}": partial(constant, parts=RESNET18, b=b) for b in (32, 128, 512)},
    **{f"small-{b}": partial(constant, parts=SMALL, b=b) for b in (16, 32, 128, 1024)},
    **{f"graduated-{split}": partial(graduated, split=split) for split in (0, 0.5, 1)},
}
ROUNDS, QUICK_ROUNDS = 5, 3
QUICK_CELLS = ("resnet18-128", "small-32", "graduated-0.5")
# The images of a turn are some seconds of work, and multiples of each b of the constant cells. An
# epoch of a graduated run has as many updates as that of a real one, so that C² costs what it does.
SAMPLES = {"resnet18": 512, "small": 4096, "graduated": 4096}
GPU_SAMPLES = {"resnet18": 9728, "small": 16_384, "graduated": 4096}
QUICK_SAMPLES = {"resnet18": 128, "small": 1024, "graduated": 320}


def make(name: str, data_dir: Path, quick: bool) -> Cell:
    """The cell of that name."""
    samples_by_kind = GPU_SAMPLES if torch.cuda.is_available() else SAMPLES
    if quick:
        samples_by_kind = QUICK_SAMPLES
    samples = samples_by_kind[name.split("-", maxsplit=1)[0]]
    rounds = QUICK_ROUNDS if quick else ROUNDS
    return MAKERS[name](name, samples=samples, data_dir=data_dir, rounds=rounds)
