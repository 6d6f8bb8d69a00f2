"""A GPU without a GPU: tensors in CPU memory that say they are elsewhere, and what a GPU punishes.

Its tensors compute as the CPU's do, so that numbers can be compared; but

- an operation on tensors of both devices fails, as on a GPU,
- reading one on the host fails, which would wait for a GPU, and
- a copy from the host to it fails, which would be paid for at every step,

unless the reading or copying function is one of READS or COPIES, which give the reason. Each time
is counted, so that a test can see that it is not one of every step.

What it cannot show: the time that anything takes, autocast's casts, pinned memory, streams.
`device()` changes PyTorch's settings for good: only in a process of its own, see forked.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from igo.paths import PACKAGE

# Who may read what the device computed, and how often.
READS = {
    "finite.Tally.sums": "loss and accuracy of an epoch, at its end",
    "engine.Engine.evaluate": "loss and accuracy of the test set, at its end",
    "online.gathered": "C² of an epoch's pairs, at its end",
    "optim.learning_rate": "the rate that was applied, at an epoch's end",
    "recovery.copied": "a copy of parameters and momenta, before an epoch",
    "noise.estimate": "C² of mini-batches, once a stage",
    "surface.Surface.value_and_gradient": "sharpness, on request",
    "measure._worst_case": "sharpness, on request",
    "curvature.largest": "sharpness, on request",
    "curvature.trace": "sharpness, on request",
    "measure.per_sample": "C² of single samples, on request",
}
# Who may bring what to the device, and how often.
COPIES = {
    "on_device.resident": "the data set, once a run",
    "on_device.Normalise.__init__": "mean and standard deviation, once a run",
    "engine.Engine.prepare": "the model, once a run",
    "optim.apply": "the first learning rate, once a run",
    "augment.draw_moves": "how an epoch's images move, before its first step",
    "curvature.random_direction": "sharpness, on request: ARPACK is on the host",
    "curvature.largest": "sharpness, on request: ARPACK is on the host",
    "curvature.trace": "sharpness, on request: ARPACK is on the host",
    "on_device.order": "an epoch's permutation, before its first step",
}
READING = {  # operations that end in a number or a shape on the host
    "aten::_local_scalar_dense", "aten::item", "aten::equal", "aten::nonzero", "aten::is_nonzero",
    "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
    "aten::bincount", "aten::repeat_interleave.Tensor",
}  # fmt: skip
COPYING = ("aten::_to_copy", "aten::copy_")


class WrongDevice(RuntimeError):
    """Tensors of both devices in one operation."""


class HostRead(RuntimeError):
    """A number of the device's, read on the host."""


class HostCopy(RuntimeError):
    """A tensor of the host's, brought to the device."""


class OnGpu(Tensor):
    """A tensor of the fake device; ``held`` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device("fakegpu", 0),
        )
        made.held = held
        return made

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
    """Inside, the device exists; counts what crosses over by (what, the project's function)."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), named: Any = None
    ) -> Any:
        named = named or {}
        wanted = named.get("device")
        here = [isinstance(one, OnGpu) for one in tree_leaves((args, named)) if _is_tensor(one)]
        if not any(here) and (wanted is None or _on_host(wanted)):
            return operation(*args, **named)
        self._watch(operation.name(), args, named)
        return _compute(operation, args, named)

    def _watch(self, name: str, args: Any, named: dict[str, Any]) -> None:
        tensors = [one for one in tree_leaves((args, named)) if _is_tensor(one)]
        wanted = named.get("device")
        if name.startswith(COPYING):
            source = args[1] if "copy_" in name and "_to_copy" not in name else args[0]
            target = args[0].device if source is not args[0] else wanted
            if isinstance(source, OnGpu) and target is not None and _on_host(target):
                self._count(self.reads, READS, HostRead, name)
            elif not isinstance(source, OnGpu) and target is not None and not _on_host(target):
                self._count(self.copies, COPIES, HostCopy, name)
            return
        mixed = [one for one in tensors if not isinstance(one, OnGpu) and one.dim()]
        if mixed and any(isinstance(one, OnGpu) for one in tensors):
            raise WrongDevice(f"{name} in {_place()}: a tensor {tuple(mixed[0].shape)} of the host")
        if name in READING or (name.startswith("aten::index") and _masked(tensors)):
            self._count(self.reads, READS, HostRead, name)

    def _count(
        self, counts: Counter[str], allowed: dict[str, str], error: type[RuntimeError], name: str
    ) -> None:
        place = _place()
        if place not in allowed:
            raise error(f"{name} in {place}")
        counts[place] += 1


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
    found = operation(*tree_map(_held, args), **tree_map(_held, inner))
    if wanted is not None and _on_host(wanted):
        return found
    wrapped = tree_map(lambda one: OnGpu(one) if _is_tensor(one) else one, found)
    return return_and_correct_aliasing(operation, args, named, wrapped)


def _is_tensor(one: object) -> bool:
    return isinstance(one, Tensor)


def _held(one: Any) -> Any:
    return one.held if isinstance(one, OnGpu) else one


def _on_host(where: Any) -> bool:
    return torch.device(where).type != "fakegpu"  # the meta device, too, crosses over nothing


def _masked(tensors: list[Tensor]) -> bool:
    """Whether something is picked by a mask, whose ones have to be counted first."""
    return any(one.dtype in (torch.bool, torch.uint8) for one in tensors[1:])


def _place() -> str:
    """The innermost function of the project that is at work: module and name."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(str(PACKAGE)) or "on_fake_gpu" in path:
            name = frame.f_code.co_qualname.partition(".<locals>")[0]
            return f"{path.rpartition('/')[2].removesuffix('.py')}.{name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"
