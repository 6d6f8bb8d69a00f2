"""What training works with, where it stands, what an epoch did, and who watches it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import nn

from igo.config.schema import Config
from igo.data.identity import Identity
from igo.files import Record
from igo.method.noise import Noise, TailIndex
from igo.method.plan import Plan
from igo.train.control import Applied
from igo.train.datasets import Data
from igo.train.engine import Engine


class Watcher(Protocol):
    """Told of every update, as a progress bar is; reads nothing from the device."""

    def begin_epoch(self, epoch: int, applied: Applied) -> None:
        """An epoch begins, with these η, b and β."""
        ...

    def advance(self, images: int) -> None:
        """One update on so many images."""
        ...

    def end_epoch(self, record: Record) -> None:
        """An epoch is recorded."""
        ...


@dataclass(frozen=True)
class Training:
    """What the loop works with."""

    config: Config
    plan: Plan
    data: Data
    network: nn.Module
    optimizer: torch.optim.SGD
    engine: Engine
    identity: Identity | None = None  # of the data; None where there is no record


@dataclass
class Progress:
    """Where a run stands: all that changes besides parameters and optimizer state."""

    epoch: int = 0
    updates: int = 0
    samples: int = 0
    # C² and ‖∇f‖ at the start of training: the planned δ_m uses them
    reference: Noise | None = None
    applied: Applied | None = None  # what the present stage trains with
    micro_batch_size: int | None = None  # the smaller one that it took to fit in memory
    threads: int | None = None  # of the CPU, which rounding depends on
    records: list[Record] = field(default_factory=list)

    @staticmethod
    def of_state(state: dict[str, Any]) -> Progress:
        """What ``dataclasses.asdict`` made plain, from a checkpoint."""
        parts = {"reference": Noise, "applied": Applied}
        built: dict[str, Any] = {n: part(**state[n]) for n, part in parts.items() if state[n]}
        reference = built.get("reference")
        if reference is not None and reference.tail:
            built["reference"] = replace(reference, tail=TailIndex(**reference.tail))
        return Progress(**{**state, **built})


@dataclass(frozen=True)
class Epoch:
    """What one epoch did (sums over samples divided by samples), and with what."""

    loss: float
    accuracy: float
    updates: int
    skipped: int  # updates that were not made, as their loss or gradient was not finite
    samples: int
    learning_rate: float  # of the optimizer at its last step
    batch_size: float  # mean size of the batches that reached the model
    seconds: float
    noise: Noise | None  # of the epoch's pairs
