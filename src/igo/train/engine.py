"""How one step is computed: device, precision, parts of a batch; the loop knows none of these."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from igo.config.schema import EngineConfig
from igo.ground import gpus
from igo.ground.cores import allowed_cores
from igo.ground.ranks import ALONE, Ranks
from igo.method import batches
from igo.train import models

ALL_THREADS = torch.get_num_threads()  # before any run changes it
SHARED_FROM = 16  # pixels a side; with smaller images threads mostly wait
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of <malloc.h>


@dataclass(frozen=True)
class Engine:
    """Where and in which precision a run computes.

    ``autocast`` is None for fp32. ``scaler`` scales the loss in fp16, and skips a step whose scaled
    gradient overflows. ``micro_batch_size`` is the most samples that go through the model at once,
    over all ranks.
    """

    device: torch.device
    autocast: torch.dtype | None
    scaler: torch.amp.GradScaler
    micro_batch_size: int
    note: str = ""  # for the user, about the chosen device or precision
    ranks: Ranks = ALONE
    parallel: DistributedDataParallel | None = None  # the model, with several ranks
    compiled: Callable[[nn.Module, Tensor], Tensor] | None = None  # calls the model in training

    def prepare(self, network: nn.Module) -> nn.Module:
        """Move a model to the device, in channels_last memory."""
        moved: Any = network.to(self.device)
        moved = moved.to(memory_format=torch.channels_last)
        if self.device.type == "cpu":
            models.unstrided(moved)
        return cast(nn.Module, moved)

    def precision(self) -> AbstractContextManager[object]:
        """The autocast context of a forward pass."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast)

    def backward(
        self, network: nn.Module, images: Tensor, labels: Tensor, size: int | None = None
    ) -> Tensor:
        """Set .grad to the gradient of the batch's mean loss (times the scaler's scale).

        DistributedDataParallel averages gradients over R ranks. So each rank's mean loss has the
        weight own samples · R / size, as ``Update.weight`` says; this is its sum of losses over
        size / R. Ranks exchange gradients in the last part alone.

        Args:
            network: the model.
            images: this rank's share of the batch, at least one.
            labels: of these images.
            size: samples of the whole batch; None with one rank.

        Returns:
            (2,) float32 on the device: the sum of this rank's losses, and its correct answers.
        """
        for parameter in network.parameters():
            parameter.grad = None
        size = size or len(labels)
        count = self.count_parts(size)
        totals = torch.zeros(2, device=self.device)
        for number, (part, answers) in enumerate(self.parts(images, labels, count), start=1):
            alone = self.parallel is None or number == count
            with nullcontext() if alone else self.parallel.no_sync():  # type: ignore[union-attr]
                loss, correct = self._forward(network, part, answers)
                self.scaler.scale(loss / (size / self.ranks.size)).backward()
            totals += torch.stack((loss.detach(), correct))
        return totals

    def step(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: tuple[Tensor, Tensor],
        size: int | None = None,
    ) -> Tensor:
        """Make one update on one batch; return what ``backward`` returns.

        The host does not wait. In fp16 the scaler makes no update if the gradient overflows.
        """
        totals = self.backward(network, *batch, size)
        self.update(optimizer)
        return totals

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Make an update with the gradients that ``backward`` has set."""
        self.scaler.step(optimizer)
        self.scaler.update()

    def count_parts(self, size: int) -> int:
        """The number of parts of a batch of ``size`` samples over all ranks."""
        return batches.parts(size, self.micro_batch_size, self.ranks.size)

    def parts(self, images: Tensor, labels: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Split a rank's share of a batch into nearly equal parts."""
        for index in range(count):
            start, end = batches.bounds(len(labels), count, index)
            yield images[start:end], labels[start:end]

    def smallest_part(self, batch_sizes: Iterable[int]) -> int:
        """The fewest samples that BatchNorm sees at once in batches of these sizes."""
        apart = self.ranks.size if self.device.type == "cpu" else 1
        return min(size // apart // self.count_parts(size) for size in batch_sizes)

    @torch.no_grad()
    def evaluate(
        self, network: nn.Module, stream: Iterator[tuple[Tensor, Tensor]]
    ) -> tuple[float, float]:
        """Mean loss and accuracy over all ranks' samples, with BatchNorm's running statistics."""
        network.eval()
        totals, samples = torch.zeros(2, device=self.device), 0
        for images, labels in stream:
            count = math.ceil(len(labels) / self.micro_batch_size)
            for part, answers in self.parts(images, labels, count):
                totals += torch.stack(self._forward(network, part, answers))
            samples += len(labels)
        network.train()
        samples = int(self.ranks.sum_(torch.tensor(samples)))
        loss, correct = self.ranks.sum_(totals.double()).tolist()
        return loss / samples, correct / samples

    def _forward(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        trains = torch.is_grad_enabled()
        model = self.parallel if self.parallel is not None and trains else network
        with self.precision():
            compiled = self.compiled if trains else None
            logits = compiled(model, images) if compiled else model(images)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        return loss, (logits.argmax(dim=1) == labels).sum(dtype=torch.float32)


def _call(network: nn.Module, images: Tensor) -> Tensor:
    return cast(Tensor, network(images))


def build(config: EngineConfig, image_size: int | None = None, ranks: Ranks = ALONE) -> Engine:
    """Choose device, precision and threads. Each process takes a GPU of its machine.

    For images of very few pixels a side (``image_size``) it is one thread.
    """
    on_gpu = gpus.wanted(config.device, ranks)
    device = torch.device("cuda" if on_gpu else "cpu")
    if not on_gpu:
        keep_freed_memory()
    elif ranks.size > 1:
        gpus.take_own(ranks)
    small = image_size is not None and image_size < SHARED_FROM
    fixed = config.threads if isinstance(config.threads, int) else None  # auto: see threads.settle
    torch.set_num_threads(fixed or (1 if small else allowed_threads()))
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = config.deterministic
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    # By default each new tensor would be filled with NaN, to expose reads before the first write.
    # That changes no result, and a small model's update took 4 % longer.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    best = _best_precision(device)
    precision = best if config.precision == "auto" else config.precision
    gpus.configure(precision)
    unexpected = config.device == "auto" and not on_gpu and "SLURM_JOB_ID" in os.environ
    note = gpus.NOT_IN_JOB if unexpected else ""
    if precision == "bf16" != best:
        here = "GPU" if on_gpu else "CPU"
        note = f"engine.precision=bf16 is emulated on this {here}, which is slow: {best} is faster"
    autocast = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    size = config.micro_batch_size or models.MOST  # null: later from models.micro_batch_size
    compiled = torch.compile(_call, dynamic=True) if config.compile else None
    return Engine(device, autocast, scaler, size, note, ranks, compiled=compiled)


def keep_freed_memory() -> None:
    """Keep memory that a step frees, for the next one (glibc, unless MALLOC_… variables are set).

    By default glibc returns freed blocks of 32 MiB and more to the kernel, and free memory at the
    heap's end too. Each step then needs new, zeroed pages, see docs/performance.md.
    """
    mallopt = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "mallopt", None)
    if mallopt is not None and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt(M_MMAP_MAX, 0)  # take large blocks from the heap too
        mallopt(M_TRIM_THRESHOLD, -1)  # never shrink the heap


def allowed_threads() -> int:
    """The most threads that a run uses by default; launchers set OMP_NUM_THREADS for their runs."""
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    cores = min(ALL_THREADS, allowed_cores())
    return max(1, min(cores, int(limit))) if limit.strip().isdigit() else cores


def without_bf16(engine: Engine) -> Engine:
    """The engine in fp32, for a model whose bf16 gradients are wrong on a CPU, see models."""
    if engine.device.type != "cpu" or engine.autocast is not torch.bfloat16:
        return engine
    note = "training in fp32: this model has strided convolutions on single pixels, whose bf16"
    return replace(engine, autocast=None, note=f"{note} gradients PyTorch gets wrong on a CPU")


def _best_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    has_bf16 = flags.get("avx512_bf16") or flags.get("amx_bf16")
    # ONEDNN_MAX_CPU_ISA may forbid oneDNN to use them.
    used = has_bf16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16" if used else "fp32"


def hardware(engine: Engine) -> dict[str, str | int]:
    """The facts about the machine for the record."""
    precision = "fp32" if engine.autocast is None else str(engine.autocast).removeprefix("torch.")
    facts: dict[str, str | int] = {"device": engine.device.type, "precision": precision}
    if engine.device.type == "cuda":
        facts |= gpus.facts()
    facts |= {
        "cpu": cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # such as AVX2, AVX512
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "micro_batch_size": engine.micro_batch_size,
        "ranks": engine.ranks.size,
    }
    if engine.ranks.size > 1:
        facts["batchnorm"] = "synced" if engine.device.type == "cuda" else "local"
    return facts


def cpu_name() -> str:
    """The CPU's name, as the kernel has it."""
    cpus = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.*)", cpus.read_text(), re.M) if cpus.exists() else None
    return named[1] if named else platform.processor() or platform.machine()


def distributed(engine: Engine, network: nn.Module) -> tuple[Engine, nn.Module]:
    """The engine and the prepared model for several ranks; all get rank 0's parameters.

    On GPUs BatchNorm becomes SyncBatchNorm. On CPUs, for which PyTorch has none, each rank's
    BatchNorm sees its own share of a batch.
    """
    if engine.ranks.size == 1:
        return engine, network
    if engine.device.type == "cuda":
        import timm.layers  # PyTorch's own leaves out the activation of timm's layers

        network = cast(Any, timm.layers).convert_sync_batchnorm(network)
    with warnings.catch_warnings():  # PyTorch 2.13 has another name for it, others have not
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
        parallel = DistributedDataParallel(network, broadcast_buffers=False)
    return replace(engine, parallel=parallel), network


def average_statistics(network: nn.Module, ranks: Ranks) -> None:
    """Give all ranks the mean of their running statistics of BatchNorm."""
    if ranks.size > 1:
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                for running in (module.running_mean, module.running_var):
                    if running is not None:
                        ranks.sum_(running).div_(ranks.size)
