"""A loader made again with other batches and everything else as it was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.utils.data import DataLoader

KEPT = ("collate_fn", "num_workers", "pin_memory", "timeout", "worker_init_fn", "generator",
        "multiprocessing_context", "prefetch_factor", "persistent_workers")  # fmt: skip


def with_batches(loader: DataLoader[Any], batches: Iterable[list[int]]) -> DataLoader[Any]:
    """The same data, workers and collate function, in the batches of a sampler."""
    kept: dict[str, Any] = {name: getattr(loader, name) for name in KEPT}
    return DataLoader(loader.dataset, batch_sampler=batches, **kept)
