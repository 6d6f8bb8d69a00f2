"""The parts of a training, its progress, and its watcher."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from igo.config.schema import Config
from igo.data.identity import Identity
from igo.ground.files import Record
from igo.method.plan import Plan
from igo.noise.noise import Noise
from igo.train.datasets import Data
from igo.train.engine import Engine


class Watcher(Protocol):
    """Watches the updates, like a progress bar; it reads nothing from the device."""

    def begin_epoch(self, epoch: int, delta: float | None) -> None:
        """Called when an epoch begins, with its δ_m."""
        ...

    def advance(self, images: int) -> None:
        """Called for each update, with its images."""
        ...

    def end_epoch(self, record: Record) -> None:
        """Called after an epoch is recorded."""
        ...


@dataclass(frozen=True)
class Training:
    """The parts of a training."""

    config: Config
    plan: Plan
    data: Data
    network: nn.Module
    optimizer: torch.optim.Optimizer
    engine: Engine
    identity: Identity | None = None  # of the data; None without a record


@dataclass
class Progress:
    """The progress of a run: all that changes besides parameters and optimizer state."""

    epoch: int = 0
    updates: int = 0
    samples: int = 0
    reference: Noise | None = None  # C² and ‖∇f‖ at the start, for the planned δ_m
    threads: int | None = None  # of the CPU; rounding depends on them
    records: list[Record] = field(default_factory=list)

    @staticmethod
    def of_state(state: dict[str, Any]) -> Progress:
        """Make it from a checkpoint's plain data, as ``dataclasses.asdict`` made them."""
        state = {**state}
        if state["reference"]:
            state["reference"] = Noise(**state["reference"])
        return Progress(**state)
