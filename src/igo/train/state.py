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
from igo.train.datasets import Data
from igo.train.engine import Engine


class Watcher(Protocol):
    """Told of every update, as a progress bar is; reads nothing from the device."""

    def begin_epoch(self, epoch: int, delta: float | None) -> None:
        """An epoch begins, whose δ_m is this."""
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
    optimizer: torch.optim.Optimizer
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
    feedback: dict[str, Any] | None = None  # η and b of the stages so far, where they follow C²
    micro_batch_size: int | None = None  # the smaller one that it took to fit in memory
    threads: int | None = None  # of the CPU, which rounding depends on
    records: list[Record] = field(default_factory=list)

    @staticmethod
    def of_state(state: dict[str, Any]) -> Progress:
        """What ``dataclasses.asdict`` made plain, from a checkpoint."""
        state = {**state}
        if state["reference"]:
            state["reference"] = Noise(**state["reference"])
            if state["reference"].tail:
                tail = TailIndex(**state["reference"].tail)
                state["reference"] = replace(state["reference"], tail=tail)
        if before := state.pop("applied", None):  # of a version that kept the newest stage alone
            state["feedback"] = {
                "rows": [[before["batches"], before["learning_rate"]]],
                "reference": state["reference"].variance,
                "variance": None,
                "delta": before.get("delta_start"),
            }
        return Progress(**state)


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
    noise: Noise | None  # C² and ‖∇f‖ at the epoch's start
    step_noise: Noise | None  # the same of what makes δ: of P·g where the optimizer has a P
