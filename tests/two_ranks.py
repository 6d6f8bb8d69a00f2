"""The same work on several processes that gloo joins, each with its result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from forked import server

PATIENCE = 300  # seconds, beside busy programs


def on_ranks(work: Callable[..., Any], place: Path, *arguments: Any, ranks: int = 2) -> list[Any]:
    """What ``work(rank, *arguments)`` returns on each rank."""
    started = [
        server().Process(target=_joined, args=(work, place, rank, ranks, arguments))
        for rank in range(ranks)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(PATIENCE)
    for process in started:
        process.kill()
    assert [process.exitcode for process in started] == [0] * ranks
    return [torch.load(place / f"{rank}.pt", weights_only=False) for rank in range(ranks)]


def _joined(
    work: Callable[..., Any], place: Path, rank: int, ranks: int, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{place}/store", rank=rank, world_size=ranks)
    torch.save(work(rank, *arguments), place / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
