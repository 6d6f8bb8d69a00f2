"""The rank of this process among those that share each batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch.distributed as dist

from igo.method.arguments import PlanError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Value = TypeVar("Value")


@dataclass(frozen=True)
class Peers:
    """The processes that share each batch: by numbers, a group or a mesh; by default all."""

    number: int | None = None
    count: int | None = None
    group: Any = None
    mesh: DeviceMesh | None = None

    def __post_init__(self) -> None:
        if (self.number is None) != (self.count is None):
            missing = "rank" if self.number is None else "ranks"
            raise PlanError(missing, None, "rank and ranks go together")
        if self.number is not None and not 0 <= self.number < (self.count or 0):
            allowed = f"it must be in [0, {self.count}), counted from 0"
            raise PlanError("rank", self.number, allowed)
        if sum(choice is not None for choice in (self.number, self.group, self.mesh)) > 1:
            name = "mesh" if self.mesh is not None else "group"
            raise PlanError(name, "…", "give rank and ranks, or group, or mesh, not two of them")
        if self.mesh is not None and self.mesh.get_coordinate() is None:
            raise PlanError("mesh", self.mesh, "this process is not in it")

    @property
    def rank(self) -> int:
        """This process, from 0; in a mesh it counts fastest along the last dimension."""
        if self.number is not None:
            return self.number
        if self.mesh is None:
            return dist.get_rank(self.group) if _is_distributed() else 0
        rank = 0
        for size, place in zip(self.mesh.shape, self.mesh.get_coordinate() or (), strict=True):
            rank = rank * size + place
        return rank

    @property
    def ranks(self) -> int:
        """How many processes share each batch."""
        if self.count is not None:
            return self.count
        if self.mesh is not None:
            return self.mesh.size()
        return dist.get_world_size(self.group) if _is_distributed() else 1

    def agreed(self, value: Value) -> Value:
        """The value of the group's first process, or without a group of rank 0."""
        values = [value]
        if _is_distributed():
            source = dist.get_global_rank(self.group, 0) if self.group is not None else 0
            dist.broadcast_object_list(values, source, self.group)
        return values[0]


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
