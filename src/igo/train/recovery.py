"""Recovery when memory runs out: the epoch begins again, with half the samples at once.

The size from micro_batch may be too large: other programs use memory, and a library's workspace is
not counted. A whole epoch has the same size, so that a run that is killed and continued has the
same bits.
"""

from __future__ import annotations

import copy
import gc
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from igo.ground.errors import ConfigError, UserError
from igo.method import batches
from igo.train import models, on_device
from igo.train.state import Progress, Training


def smaller(run: Training, k: int, reason: str) -> int:
    """Half of the samples at once that did not fit, in an epoch of k batches or its evaluation."""
    largest = batches.sizes(run.plan.n, k)[0]
    tried = min(run.engine.micro_batch_size, max(largest, on_device.TEST_BATCH))
    if run.engine.ranks.size > 1:
        cure = f"take fewer samples at once: engine.micro_batch_size={tried // 2}"
        raise UserError(f"out of memory; {cure} (this is another run, as it changes BatchNorm)")
    size = tried // 2
    if not size:
        raise UserError(f"out of memory with a single sample ({reason[:80]}); use a smaller model")
    engine = replace(run.engine, micro_batch_size=size)
    smallest = engine.smallest_part(run.plan.batch_sizes)
    try:
        models.check_fits(run.network, run.config.model.name, run.config.dataset, smallest)
    except ConfigError as error:
        raise UserError(f"out of memory with {tried} samples at once, and fewer: {error}") from None
    return size


def describe(network: nn.Module, tried: int, now: int) -> str:
    """One line for the user about the smaller micro-batches."""
    message = f"out of memory with {tried:,} samples at once; from here on it is {now:,} at most"
    norms = any(isinstance(module, _BatchNorm) for module in network.modules())
    return message + ("; BatchNorm statistics are per part" if norms else ", to the same result")


def with_micro_batches(run: Training, size: int | None) -> Training:
    """The same run with at most so many samples at once; unchanged for None."""
    if size is None or size >= run.engine.micro_batch_size:
        return run
    return replace(run, engine=replace(run.engine, micro_batch_size=size))


@dataclass(frozen=True)
class Snapshot:
    """All that an unfinished epoch changes, in the CPU's memory."""

    tensors: dict[str, dict[str, Any]]
    progress: dict[str, Any]

    @staticmethod
    def of(run: Training, progress: Progress) -> Snapshot:
        """Copy the state of the run and its progress."""
        changed = {name: copy.copy(getattr(progress, name)) for name in CHANGED}
        return Snapshot(saved(run), changed)

    def restore(self, run: Training, progress: Progress) -> None:
        """Free the memory of the failed attempt, then restore the state."""
        run.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if run.engine.device.type == "cuda":
            torch.cuda.empty_cache()
        run.network.load_state_dict(self.tensors["model"])
        run.optimizer.load_state_dict(self.tensors["optimizer"])
        run.engine.scaler.load_state_dict(self.tensors["scaler"])
        run.network.train()
        for name, value in self.progress.items():
            setattr(progress, name, value)


CHANGED = ("reference", "feedback")  # what an unfinished epoch changes in Progress


def saved(run: Training) -> dict[str, dict[str, Any]]:
    """The state of model, optimizer and loss scaling, copied to the CPU's memory."""
    return {
        "model": copied(run.network.state_dict()),
        "optimizer": copied(run.optimizer.state_dict()),
        "scaler": copied(run.engine.scaler.state_dict()),
    }


def copied(state: Any) -> Any:
    """The same containers with copies of their tensors in the CPU's memory."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        clone = copy.copy(state)  # a copy keeps the attributes that state_dict adds
        clone.update((key, copied(value)) for key, value in state.items())
        return clone
    return [copied(item) for item in state] if isinstance(state, list) else state
