"""The cells of the benchmark: what they train, by whom, and how long."""

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import files
from benchmarks.task import Task
from igo.config.load import make_plan
from lab.configuration import composed

FEW = ("script", "ours", "limit")
ALL = (*FEW, "published")
ROUNDS, QUICK_ROUNDS = 5, 3
EPOCH = 49_152  # samples; as many as CIFAR has, nearly, and whole batches of each b
RATE = 0.02


@dataclass(frozen=True)
class Kind:
    """What cells of one model have in common.

    The samples of a turn are some seconds of work: on a CPU, on a GPU, and in a quick run. An epoch
    has EPOCH samples unless turns are epochs. igo measures C² in 32 pairs of batches of an epoch,
    so that a turn has a pair for each 1,536 samples.
    """

    network: str
    data: str  # of files
    samples: tuple[int, int, int]
    contenders: tuple[str, ...] = ALL
    turns_are_epochs: bool = False


KINDS = {
    "small": Kind("resnet8", "grey", (6144, 12_288, 1024)),
    "graduated": Kind("resnet8", "grey", (4096, 4096, 320), turns_are_epochs=True),
    "resnet18": Kind("resnet18", "colour", (1536, 12_288, 128)),
    "timm": Kind("convnext_atto", "colour", (1536, 12_288, 128)),
    "wrn": Kind("wide_resnet28_10", "colour", (256, 3072, 128), FEW, turns_are_epochs=True),
    "transformer": Kind("Transformer", "text", (1024, 4096, 64), FEW, turns_are_epochs=True),
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

    A round is a turn of a training of ``1 + rounds`` turns, or a whole training (``whole_run``).
    The first round is the warm-up and is not counted.
    """

    name: str
    task: Task
    contenders: tuple[str, ...]
    rounds: int
    whole_run: bool = False

    @property
    def turns_per_round(self) -> int:
        """The turns of each contender in a round."""
        return len(self.task.turns) if self.whole_run else 1

    @property
    def trainings(self) -> int:
        """The number of trainings of each contender."""
        return 1 + self.rounds if self.whole_run else 1


def make(
    name: str, folder: Path, quick: bool = False, *more: str, epoch: int | None = None
) -> Cell:
    """The cell of a name such as small-16, with files in the folder and more settings of igo's.

    With ``epoch`` its turns are epochs of so many samples. Else an epoch is a turn where the kind
    says so, and otherwise as long as all turns: EPOCH samples at least, unless the run is quick.
    """
    kind_name, b = name.split("-")
    kind, rounds = KINDS[kind_name], QUICK_ROUNDS if quick else ROUNDS
    samples = epoch or kind.samples[2 if quick else int(torch.cuda.is_available())]  # of a turn
    whole_run, turns = kind_name == "graduated", 1 + rounds
    n = samples if epoch or kind.turns_are_epochs else max(turns * samples, 0 if quick else EPOCH)
    file = files.write(folder, kind.data, n)
    if kind.data == "text":
        task = Task(file, kind.network, ((samples // int(b), 0.001),) * turns, samples)
        return Cell(name, task, kind.contenders, rounds)
    crop, rotation = (4, 15) if kind.data == "colour" else (0, 0)
    stages = (5 if quick else 10) if whole_run else 1
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
        f"schedule.stages={stages}",
        f"epochs={stages}",
        *more,
    )
    rows = make_plan(composed(*settings)).rows
    epochs = tuple((row.batches, row.eta_m) for row in rows)
    task_turns = epochs if whole_run else ((samples // int(b), RATE),) * turns
    task = Task(file, kind.network, task_turns, samples, crop, rotation, settings)
    return Cell(name, task, kind.contenders, rounds, whole_run)
