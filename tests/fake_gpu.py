"""A GPU without a GPU: tensors in CPU memory that say they are elsewhere.

Its tensors compute as the CPU's do, so that numbers can be compared; an operation on tensors of
both devices fails, as on a GPU. What crosses over is counted: a number read on the host, for which
a GPU would be waited for, and a copy from the host. So a test can see that neither is one of every
step.

What it cannot show: the time that anything takes, autocast's casts, pinned memory, streams.
`device()` changes PyTorch's settings for good: only in a process of its own, see forked.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

READING = {  # operations that end in a number or a shape on the host
    "aten::_local_scalar_dense", "aten::item", "aten::equal", "aten::nonzero", "aten::is_nonzero",
    "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
    "aten::bincount", "aten::repeat_interleave.Tensor",
}  # fmt: skip
COPYING = ("aten::_to_copy", "aten::copy_")


class WrongDevice(RuntimeError):
    """Tensors of both devices in one operation."""


class OnGpu(Tensor):
    """A tensor of the fake device; ``held`` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        tensor = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device("fakegpu", 0),
        )
        tensor.held = held
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> Any:
        """As a GPU's; PyTorch refuses it to other kinds of tensors."""
        return self.cpu().tolist()

    def __tensor_flatten__(self) -> tuple[list[str], None]:  # as Module.to asks
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: object) -> OnGpu:
        return OnGpu(inner["held"])

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: Any = (), named: Any = None
    ) -> Any:
        return _compute(operation, args, named or {})


class Traffic(TorchDispatchMode):
    """Inside, the device exists, and what crosses over is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.copies = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), named: Any = None
    ) -> Any:
        named = named or {}
        wanted = named.get("device")
        here = any(isinstance(leaf, OnGpu) for leaf in tree_leaves((args, named)))
        if not here and (wanted is None or _on_host(wanted)):
            return operation(*args, **named)
        self._watch(operation.name(), args, named)
        return _compute(operation, args, named)

    def _watch(self, name: str, args: Any, named: dict[str, Any]) -> None:
        tensors = [leaf for leaf in tree_leaves((args, named)) if isinstance(leaf, Tensor)]
        wanted = named.get("device")
        if name.startswith(COPYING):
            source = args[1] if "copy_" in name and "_to_copy" not in name else args[0]
            target = args[0].device if source is not args[0] else wanted
            if isinstance(source, OnGpu) and target is not None and _on_host(target):
                self.reads += 1
            elif not isinstance(source, OnGpu) and target is not None and not _on_host(target):
                self.copies += 1
            return
        mixed = [tensor for tensor in tensors if not isinstance(tensor, OnGpu) and tensor.dim()]
        if mixed and any(isinstance(tensor, OnGpu) for tensor in tensors):
            raise WrongDevice(f"{name}: a tensor {tuple(mixed[0].shape)} of the host")
        if name in READING or (name.startswith("aten::index") and _masked(tensors)):
            self.reads += 1


@contextmanager
def device() -> Iterator[tuple[torch.device, Traffic]]:
    """The fake device and what crosses over to and from it."""
    _register()
    torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor(…, device=…) is seen by no mode
    try:
        with Traffic() as traffic:
            yield torch.device("fakegpu", 0), traffic
    finally:
        torch._C._set_only_lift_cpu_tensors(False)


@functools.cache
def _register() -> None:
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend("fakegpu")


def _compute(operation: Any, args: Any, named: dict[str, Any]) -> Any:
    """Do it on what the tensors hold; what comes out is on the device that it would be on."""
    wanted = named.get("device")
    inner = {**named, "device": torch.device("cpu")} if wanted is not None else named
    computed = operation(*tree_map(_held, args), **tree_map(_held, inner))
    if wanted is not None and _on_host(wanted):
        return computed
    wrapped = tree_map(lambda leaf: OnGpu(leaf) if isinstance(leaf, Tensor) else leaf, computed)
    return return_and_correct_aliasing(operation, args, named, wrapped)


def _held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, OnGpu) else leaf


def _on_host(where: Any) -> bool:
    return torch.device(where).type != "fakegpu"  # the meta device, too, crosses over nothing


def _masked(tensors: list[Tensor]) -> bool:
    """Whether something is picked by a mask, whose ones have to be counted first."""
    return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in tensors[1:])
