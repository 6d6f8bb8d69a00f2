"""A run on a pretended device: no tensor meets one of another device, and every wait is known."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from conftest import TINY, configure
from forked import forge
from resumed import MOVED
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from trained import prepared, timeless, train

from igo.train.engine import Engine

COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
SEEN: Counter[str] = Counter()
READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class OnDevice(Tensor):
    """A tensor that says it is on the device; its numbers are ``held`` on the CPU."""

    @staticmethod
    def __new__(cls, held: Tensor) -> Any:
        form, on = (held.size(), held.stride(), held.storage_offset()), torch.device("pretended:0")
        made: Any = Tensor._make_wrapper_subclass(cls, *form, dtype=held.dtype, device=on)
        made.held = held
        return made

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, *_: Any) -> Any:
        raise AssertionError(f"{function} outside of the mode")


class Pretended(TorchDispatchMode):
    """Computes on the CPU, refuses to mix devices, and counts copies and reads by function."""

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), named: Any = None) -> Any:
        named = {**(named or {})}
        tensors = [leaf for leaf in tree_leaves((args, named)) if isinstance(leaf, Tensor)]
        there = [isinstance(tensor, OnDevice) for tensor in tensors]
        onto = there[0] if function is COPIES[0] else any(there)
        if named.get("device") is not None:
            onto, named["device"] = torch.device(named["device"]).type == "pretended", "cpu"
        copies, pairs = function in COPIES, zip(tensors, there, strict=True)
        apart = any(on != onto and (on or copies or tensor.dim()) for tensor, on in pairs)
        assert copies or not apart, f"{function} mixes devices"  # but for a number of the CPU's
        by_number = function is torch.ops.aten.index.Tensor and tensors[-1].dtype == torch.int64
        if apart or (any(there) and not by_number and READS & {*function.tags}):
            frame: Any = sys._getframe()
            while not frame.f_globals["__name__"].startswith("igo."):
                frame = frame.f_back
            SEEN[frame.f_code.co_qualname.split(".<")[0]] += 1
        held = tree_map_only(OnDevice, lambda tensor: tensor.held, (args, named))
        result = function(*held[0], **held[1])
        if onto:
            result = tree_map_only(Tensor, OnDevice, result)
            result = return_and_correct_aliasing(function, args, named, result)
        return result


def both(fp16: str) -> Any:
    """Records on the CPU and on the device, and what was seen there up to each epoch's end."""
    backend_registration._setup_privateuseone_for_python_backend("pretended")
    torch.__future__.set_swap_module_params_on_conversion(True)  # subclasses of tensors need it
    with pytest.raises(AssertionError, match="mixes devices"), Pretended():
        OnDevice(torch.ones(2)) + torch.ones(2)
    records, seen = [], []
    bar = mock.Mock(end_epoch=lambda _: seen.append({**SEEN}))
    for device in ("cpu", "pretended"):
        scaler = torch.amp.GradScaler(device, enabled=bool(fp16))
        on = Engine(torch.device(device), None, scaler, micro_batch_size=20)
        with Pretended(), mock.patch("igo.train.machine.choose", return_value=on):
            # A CPU computes, without the detour of models.unstrided: width 16 needs none.
            run = prepared(configure(*TINY, *MOVED, "optimizer=shb", "model.width=16"))
            records.append(timeless(train(run, bar=bar).records))
    return [*records, seen[3:]]


@pytest.mark.parametrize(("fp16", "checks"), [("", 1), ("fp16", 2)])
def test_an_update_never_waits(fp16: str, checks: int, tmp_path: Path) -> None:
    ((wanted, records, seen),) = forge.results(tmp_path, 1, "test_device.both", fp16)
    torch.testing.assert_close(records, wanted, rtol=1e-5, atol=1e-5)
    first, second, third = (Counter[str](counts) for counts in seen)
    assert third - second == second - first == {
        "draw_moves": 3, "TensorData._order": 1, "train_epoch": 2, "Pairs.noise": 1,
        "_check_finite": checks, "Engine.evaluate": 1,
    }  # fmt: skip
