"""One schedule, for every contender alike: b is 8 in two epochs and 16 in two more.

With ``rate=True`` it is the learning rate that falls, from 0.1 to 0.05, and b stays 8. With
``middle=True`` b changes inside a single epoch, after 20 updates.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import igo
from igo.method.plan import Plan

EPOCHS, CHANGE, SMALL, LARGE = 4, 3, 8, 16  # CHANGE: the first epoch of the second stage
FIRST_RATE, SECOND_RATE = 0.1, 0.05
MIDDLE, AFTER = 20, 15  # updates of 8, then of 16, in one epoch


@dataclass(frozen=True)
class Job:
    """What to train. ``stop``: save a checkpoint after that many updates, and go no further.

    ``other``: with another schedule, b = 32 in the last two epochs.
    """

    folder: str
    n: int = 64
    workers: int = 0
    stop: int | None = None
    resume: bool = False
    rate: bool = False
    middle: bool = False
    persistent: bool = False
    other: bool = False

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def epochs(self) -> int:
        return 1 if self.middle else EPOCHS

    @property
    def large(self) -> int:
        return 2 * LARGE if self.other else LARGE

    @property
    def plan(self) -> Plan:
        if self.middle:
            sizes = f"0:{SMALL} {SMALL * MIDDLE}:{LARGE}"
            return igo.plan(
                "ramp", n=self.n, epochs=1, learning_rate=FIRST_RATE, batch_size=sizes, split=0
            )
        gamma = 0.5 if self.rate else (SMALL / self.large) ** 0.5
        return igo.plan(
            "step", n=self.n, epochs=EPOCHS, stages=2, learning_rate=FIRST_RATE, batch_size=SMALL,
            gamma=gamma, split=1 if self.rate else 0,
        )  # fmt: skip

    def batch_size(self, epoch: int) -> int:
        """What the schedule asks for, epochs from 1."""
        return self.large if epoch >= CHANGE and not self.rate else SMALL


class Row(NamedTuple):
    """An update: the samples that it saw here, the batch size that was logged, the rate it had."""

    samples: list[int]
    logged: float
    rate: float


@dataclass
class Ran:
    """What a contender did; ``promised`` is how many updates it said there would be.

    Where batches were cut into parts: how many each update had here, and its gradient.
    """

    rows: list[Row] = field(default_factory=list)
    promised: int | None = None
    parts: list[int] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)

    def add(self, samples: Tensor, logged: float, rate: float) -> None:
        self.rows.append(Row(sorted(samples.flatten().int().tolist()), float(logged), float(rate)))

    def add_parts(self, taken: list[Tensor], logged: float, model: nn.Module) -> None:
        """An update is about to be made of the gradient of these parts."""
        gradient = next(model.parameters()).grad
        self.gradients.append(gradient.item())
        self.parts.append(len(taken))
        self.add(torch.cat(taken), logged, FIRST_RATE)
        taken.clear()

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @staticmethod
    def read(path: Path) -> Ran:
        saved = json.loads(path.read_text())
        return Ran(**{**saved, "rows": [Row(*row) for row in saved["rows"]]})


class Killed(Exception):
    """The process ends here, as far as the training loop can tell."""


class Numbers(Dataset[Tensor]):
    """Sample i is the number i, so that a batch says what is in it."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([float(index)])


def network() -> nn.Module:
    """The smallest model that has a loss and a gradient."""
    return nn.Linear(1, 1)


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch / 1000).square().mean()
