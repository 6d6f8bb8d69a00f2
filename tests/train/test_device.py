"""What a machine gives: threads, memory, and a device, which is pretended here.

No tensor meets one of another device, and every wait is known.
"""

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from conftest import TINY, timeless
from forked import forge
from resumed import MOVED
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from trained import prepared, train

from igo.config.schema import EngineConfig
from igo.ground.ranks import Ranks, allowed_cores
from igo.plans import batches
from igo.train import machine
from igo.train.engine import Engine
from igo.train.training import Progress

COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
SEEN: Counter[str] = Counter()
READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class OnDevice(Tensor):
    """A tensor that says it is on the device; its numbers are ``held`` on the CPU."""

    on: torch.device
    held: Tensor

    @staticmethod
    def __new__(cls, tensor: Tensor) -> Any:
        form = tensor.size(), tensor.stride(), tensor.storage_offset()
        wrapper: Any = Tensor._make_wrapper_subclass(cls, *form, dtype=tensor.dtype, device=cls.on)
        wrapper.held = tensor
        return wrapper

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, *_: Any) -> Any:
        raise AssertionError(f"{function} outside of the mode")


class Pretended(TorchDispatchMode):
    """Computes on the CPU, refuses to mix devices, and counts copies and reads by function."""

    def __torch_dispatch__(
        self, function: Any, _: Any, args: Any = (), keywords: Any = None
    ) -> Any:
        keywords = {**(keywords or {})}
        tensors = [leaf for leaf in tree_leaves((args, keywords)) if isinstance(leaf, Tensor)]
        places = [isinstance(tensor, OnDevice) for tensor in tensors]
        onto = places[0] if function is COPIES[0] else any(places)
        if keywords.get("device") is not None:
            onto = torch.device(keywords["device"]).type == OnDevice.on.type
            keywords["device"] = "cpu"
        keywords.pop("pin_memory", None)
        copies, pairs = function in COPIES, zip(tensors, places, strict=True)
        is_apart = any(
            is_there != onto and (is_there or copies or tensor.dim()) for tensor, is_there in pairs
        )
        # A number of the CPU's may be on another device.
        assert copies or not is_apart, f"{function} mixes devices"
        by_number = function is torch.ops.aten.index.Tensor and tensors[-1].dtype == torch.int64
        waits = is_apart and not keywords.get("non_blocking")
        if waits or (any(places) and not by_number and READS & {*function.tags}):
            frame: Any = sys._getframe()
            while not frame.f_globals["__name__"].startswith("igo."):
                frame = frame.f_back
            SEEN[frame.f_code.co_qualname.split(".<")[0]] += 1
        arguments = tree_map_only(OnDevice, lambda tensor: tensor.held, (args, keywords))
        result = function(*arguments[0], **arguments[1])
        if onto:
            result = tree_map_only(Tensor, OnDevice, result)
            result = return_and_correct_aliasing(function, args, keywords, result)
        return result


def both(kind: str) -> Any:
    """Records on the CPU and on the device, and what was seen there up to each epoch's end.

    ``kind`` is "fp16", with images held out, or "tensor": η is in one on the device, as a CUDA
    graph needs it.
    """
    backend_registration._setup_privateuseone_for_python_backend("pretended")
    OnDevice.on = torch.device("pretended:0")
    torch.__future__.set_swap_module_params_on_conversion(True)  # subclasses of tensors need it
    with pytest.raises(AssertionError, match="mixes devices"), Pretended():
        OnDevice(torch.ones(2)) + torch.ones(2)
    records, counts = [], []
    bar = mock.Mock(end_epoch=lambda _: counts.append({**SEEN}))
    for device in ("cpu", "pretended"):
        scaler = torch.amp.GradScaler(device, enabled=kind == "fp16")
        engine = Engine(torch.device(device), None, scaler, 20)
        with (
            Pretended(),
            mock.patch("igo.train.machine.choose", return_value=engine),
        ):
            # A CPU computes, without the detour of models.unstrided: width 16 needs none.
            words = (*TINY, *MOVED, "optimizer=shb", "model.width=16")
            held_out = ("dataset.validation=0.25",) * (kind == "fp16")
            run = prepared(*words, *held_out)
            is_tensor = kind == "tensor" and device == "pretended"
            for group in run.optimizer.param_groups if is_tensor else []:
                group["lr"] = OnDevice(torch.tensor(group["lr"]))
            records.append(timeless(train(run, bar=bar).records))
    return [*records, counts[3:]]


def test_an_update_never_waits() -> None:
    """An epoch of two updates has as many waits as one of three: each sum of it has one."""
    for kind, waits in (("", 9), ("fp16", 11), ("tensor", 9)):
        ((expected_records, records, epoch_counts),) = forge.results(1, "test_device.both", kind)
        torch.testing.assert_close(records, expected_records, rtol=1e-5, atol=1e-5)
        first_counts, second_counts, third_counts = (
            Counter[str](counts) for counts in epoch_counts
        )
        counts = second_counts - first_counts
        assert third_counts - second_counts == counts
        assert counts.total() == waits, counts


def test_memory_grows_in_place_unless_the_user_has_settings() -> None:
    for variable, count in (
        ("PYTORCH_ALLOC_CONF", 0),
        ("PYTORCH_CUDA_ALLOC_CONF", 0),
        ("OTHER", 1),
    ):
        with (
            mock.patch.dict(os.environ, {variable: "max_split_size_mb:64"}, clear=True),
            mock.patch.object(torch._C, "_accelerator_setAllocatorSettings", create=True) as called,
        ):
            machine._let_segments_grow()
        assert called.call_args_list == [mock.call("expandable_segments:True")] * count


def test_a_batch_of_4096_on_eight_gpus_is_one_part_each() -> None:
    names = "_let_segments_grow", "_take_own_gpu"
    for on_gpu, parts in ((True, 1), (False, 4)):
        stubs: Any = {
            "_on_gpu": lambda *_, on_gpu=on_gpu: on_gpu,
            "_best_precision": lambda _: "fp32",
        }
        with mock.patch.multiple(machine, **dict.fromkeys(names, mock.Mock()), **stubs):
            eight = machine.choose(EngineConfig(), ranks=Ranks(rank=3, size=8))
        assert batches.parts(4096, eight.micro_batch_size, 8) == parts


def test_a_quota_counts_in_whole_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    quota = tmp_path / "cpu.max"
    assert allowed_cores(quota) == 8, "a system without cgroups"
    for text, cores in {"max": 8, "350000": 3, "50000": 1, "900000": 8}.items():
        quota.write_text(f"{text} 100000\n")
        assert allowed_cores(quota) == cores


def test_the_environment_lowers_the_threads_of_large_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "ALL_THREADS", 4)
    monkeypatch.setattr(machine, "allowed_cores", lambda: 6)
    for text, threads in {"": 4, "2": 2, "3,1": 3, "8": 4, "x": 4}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        for side, number in {8: 1, 15: 1, 16: threads}.items():
            machine.choose(EngineConfig(device="cpu"), side)
            assert torch.get_num_threads() == number, text


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_run_that_continues_keeps_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on two cores, whatever this machine has."""
    monkeypatch.setattr(machine, "allowed_threads", lambda: 2)
    heard: list[str] = []
    for earlier_number, number in [(None, 1), (1, 1), (2, 2), (4, 2)]:
        run, progress = prepared(*TINY), Progress(threads=earlier_number)
        machine.keep_threads(run, progress, heard.append)
        assert progress.threads == torch.get_num_threads() == number
    assert heard == ["threads: 2 of 4 before: results differ by rounding"]
