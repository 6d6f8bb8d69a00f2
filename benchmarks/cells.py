"""The cells of the benchmark: what they train, by whom, and how long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from benchmarks import files
from benchmarks.task import Task
from igo.config.load import load, make_plan
from igo.config.schema import Config
from igo.ground.files import CONF

FEW = ("script", "ours", "limit")
ALL = (*FEW, "published")
ROUNDS, QUICK_ROUNDS = 5, 3
RATE = 0.02


@dataclass(frozen=True)
class Kind:
    """What cells of one model have in common.

    The images of a turn are some seconds of work: on a CPU, on a GPU, and in a quick run.
    """

    network: str
    data: str  # of files
    samples: tuple[int, int, int]
    contenders: tuple[str, ...] = ALL


KINDS = {
    "small": Kind("resnet8", "grey", (4096, 16_384, 1024)),
    "graduated": Kind("resnet8", "grey", (4096, 4096, 320)),
    "resnet18": Kind("resnet18", "colour", (512, 9728, 128)),
    "timm": Kind("convnext_atto", "colour", (1024, 9728, 128)),
    "wrn": Kind("wide_resnet28_10", "colour", (256, 2560, 128), FEW),
    "transformer": Kind("transformer", "text", (256, 4096, 64), FEW),
}
# A name is a kind and b; graduated is a whole run: ten stages of an epoch, p = 0.5, b_1 = 16.
NAMES = (
    *("resnet18-32", "resnet18-128", "wrn-128", "timm-32", "transformer-16"),
    *("small-16", "small-128", "small-1024", "graduated-16"),
)
QUICK_NAMES = ("resnet18-128", "small-16", "transformer-16")


@dataclass(frozen=True)
class Cell:
    """A comparison.

    A round is an epoch of a training of ``1 + rounds`` epochs, or a whole training (``whole_run``).
    The first round is the warm-up and is not counted.
    """

    name: str
    task: Task
    contenders: tuple[str, ...]
    rounds: int
    whole_run: bool = False

    @property
    def epochs_per_round(self) -> int:
        """The turns of each contender in a round."""
        return len(self.task.epochs) if self.whole_run else 1

    @property
    def trainings(self) -> int:
        """The number of trainings of each contender."""
        return 1 + self.rounds if self.whole_run else 1


def configure(*overrides: str) -> Config:
    """Compose and check a configuration as the command line does."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", list(overrides))
    return load(composed, [override.split("=")[0] for override in overrides])


def make(
    name: str, folder: Path, quick: bool = False, *more: str, samples: int | None = None
) -> Cell:
    """The cell of that name, with files in the folder and more settings of igo's."""
    kind_name, b = name.split("-")
    kind, rounds = KINDS[kind_name], QUICK_ROUNDS if quick else ROUNDS
    samples = samples or kind.samples[2 if quick else int(torch.cuda.is_available())]
    file, whole_run = files.write(folder, kind.data, samples), kind_name == "graduated"
    if kind.data == "text":
        task = Task(file, kind.network, ((samples // int(b), 0.001),) * (1 + rounds))
        return Cell(name, task, kind.contenders, rounds)
    crop, rotation = (4, 15) if kind.data == "colour" else (0, 0)
    settings = (
        "dataset=arrays",
        f"dataset.file={file}",
        f"dataset.augment.crop={crop}",
        "dataset.augment.flip=true",
        f"dataset.augment.rotation={rotation}",
        "model=own",
        f"model._target_=benchmarks.networks.{kind.network}",
        "noise.batches=2",  # The measurement before training is short here.
        "tracking=none",
        f"batch_size={b}",
        f"learning_rate={RATE}",
        "schedule=graduated" if whole_run else "schedule=constant",
        f"schedule.stages={(5 if quick else 10) if whole_run else 1}",
        f"epochs={(5 if quick else 10) if whole_run else 1 + rounds}",
        *more,
    )
    plan = make_plan(configure(*settings))
    rows = [plan.rows_of_epoch(epoch)[0] for epoch in range(1, plan.epochs + 1)]
    epochs = tuple((row.batches, row.eta_m) for row in rows)
    task = Task(file, kind.network, epochs, crop, rotation, settings)
    return Cell(name, task, kind.contenders, rounds, whole_run)
