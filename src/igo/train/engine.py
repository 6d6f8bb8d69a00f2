"""How one step is computed: device, precision, micro-batches. The loop does not know of these."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igo.config.schema import EngineConfig
from igo.ground import allocator, gpus
from igo.ground.cores import allowed_cores
from igo.ground.errors import ConfigError
from igo.ground.ranks import ALONE, Ranks
from igo.train import batchnorm, micro_batch, pointwise

ALL_THREADS = torch.get_num_threads()  # before any run changes it
SHARED_FROM = 16  # pixels a side; with smaller images threads mostly wait


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
    batchnorm: str = "synced"
    compiled: Callable[[nn.Module, Tensor], Tensor] | None = None  # calls the model in training

    def prepare(self, network: nn.Module) -> nn.Module:
        """Move a model to the device, in channels_last memory, and sync BatchNorm over ranks."""
        moved: Any = network.to(self.device)
        moved = moved.to(memory_format=torch.channels_last)
        if self.device.type == "cpu":
            pointwise.unstrided(moved)
        if self.batchnorm == "synced":
            moved = batchnorm.synced(moved, self.ranks)
        return cast(nn.Module, moved)

    def precision(self) -> AbstractContextManager[object]:
        """The autocast context of a forward pass."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast)

    def backward(
        self, network: nn.Module, images: Tensor, labels: Tensor, span: range | None = None
    ) -> Tensor:
        """Set .grad to the gradient of the batch's mean loss (times the scaler's scale).

        Args:
            network: the model.
            images: this rank's share of the batch.
            labels: of these images.
            span: samples of the whole batch, of which these are a rank's; None with one rank.

        Returns:
            (2,) float32 on the device: the sum of this rank's losses, and its correct answers.
        """
        for parameter in network.parameters():
            parameter.grad = None
        b = len(labels) if span is None else len(span)
        totals = torch.zeros(2, device=self.device)
        for part, answers in self.parts(images, labels, span):
            loss, correct = self._forward(network, part, answers)
            self.scaler.scale(loss / b).backward()
            totals += torch.stack((loss.detach(), correct))
        self.ranks.sum_gradients(network.parameters())
        return totals

    def step(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: tuple[Tensor, Tensor],
        span: range | None = None,
    ) -> Tensor:
        """Make one update on one batch; return what ``backward`` returns.

        The host does not wait. In fp16 the scaler makes no update if the gradient overflows.
        """
        totals = self.backward(network, *batch, span)
        self.scaler.step(optimizer)
        self.scaler.update()
        return totals

    def parts(
        self, images: Tensor, labels: Tensor, span: range | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Split a batch into the fewest nearly equal parts of at most micro_batch_size.

        The whole batch, of ``span``, is split, and this rank's share of each part is yielded. So
        the parts are the same for any number of ranks.
        """
        ranks = ALONE if span is None else self.ranks
        span = span or range(len(labels))
        count = math.ceil(len(span) / self.micro_batch_size)
        least, more = divmod(len(span), count or 1)
        ends = [ranks.count(span.start + i * least + min(i, more)) for i in range(count + 1)]
        for start, end in pairwise(end - ends[0] for end in ends):
            yield images[start:end], labels[start:end]

    def smallest_part(self, batch_sizes: Iterable[int]) -> int:
        """The fewest samples that the model sees at once in batches of these sizes."""
        return min(size // math.ceil(size / self.micro_batch_size) for size in batch_sizes)

    @torch.no_grad()
    def evaluate(
        self, network: nn.Module, stream: Iterator[tuple[Tensor, Tensor]]
    ) -> tuple[float, float]:
        """Mean loss and accuracy over all ranks' samples, with BatchNorm's running statistics."""
        network.eval()
        totals, samples = torch.zeros(2, device=self.device), 0
        for images, labels in stream:
            for part, answers in self.parts(images, labels):
                totals += torch.stack(self._forward(network, part, answers))
            samples += len(labels)
        network.train()
        samples = int(self.ranks.sum_(torch.tensor(samples)))
        loss, correct = self.ranks.sum_(totals.double()).tolist()
        return loss / samples, correct / samples

    def _forward(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not len(labels) and not batchnorm.is_synced(network):  # some layers take no empty batch
            nothing = torch.zeros((), device=self.device)
            return nothing.requires_grad_(), nothing.detach()
        with self.precision():
            if self.compiled is not None and torch.is_grad_enabled():
                logits = self.compiled(network, images)
            else:
                logits = network(images)
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
        allocator.keep_freed_memory()
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
    size = config.micro_batch_size or micro_batch.MOST  # null: later from micro_batch.size_for
    return Engine(
        device, autocast, scaler, size, note, ranks, batchnorm=config.batchnorm,
        compiled=torch.compile(_call, dynamic=True) if config.compile else None,
    )  # fmt: skip


def allowed_threads() -> int:
    """The most threads that a run uses by default; launchers set OMP_NUM_THREADS for their runs."""
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    cores = min(ALL_THREADS, allowed_cores())
    return max(1, min(cores, int(limit))) if limit.strip().isdigit() else cores


def without_bf16(engine: Engine, config: EngineConfig) -> Engine:
    """The engine in fp32, for a model whose bf16 gradients are wrong on a CPU (check_fits)."""
    if engine.device.type != "cpu" or engine.autocast is not torch.bfloat16:
        return engine
    if config.precision == "bf16":
        allowed = (
            "the model has a strided convolution on single pixels, whose bf16 gradient PyTorch gets"
            " wrong on a CPU; use engine.precision=fp32, or larger images"
        )
        raise ConfigError("engine.precision", "bf16", allowed)
    note = "training in fp32: this model has strided convolutions on single pixels, whose bf16"
    return replace(engine, autocast=None, note=f"{note} gradients PyTorch gets wrong on a CPU")


def _best_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    has_bf16 = flags.get("avx512_bf16") or flags.get("amx_bf16")
    return "bf16" if has_bf16 and _onednn_takes_bf16() else "fp32"


def _onednn_takes_bf16() -> bool:
    """Whether oneDNN may use the CPU's bf16 instructions: ONEDNN_MAX_CPU_ISA may forbid it."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def hardware(engine: Engine) -> dict[str, str | int]:
    """The facts about the machine for the record."""
    precision = "fp32" if engine.autocast is None else str(engine.autocast).removeprefix("torch.")
    facts: dict[str, str | int] = {"device": engine.device.type, "precision": precision}
    if engine.device.type == "cuda":
        facts |= gpus.facts()
    facts["cpu"] = cpu_name()
    facts["instructions"] = torch.backends.cpu.get_cpu_capability()  # such as AVX2, AVX512
    facts["cores"] = os.cpu_count() or 1
    facts["threads"] = torch.get_num_threads()
    facts["micro_batch_size"] = engine.micro_batch_size
    facts["ranks"] = engine.ranks.size
    if engine.ranks.size > 1:
        facts["batchnorm"] = engine.batchnorm
    return facts


def cpu_name() -> str:
    """The CPU's name, as the kernel has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        import platform

        return platform.processor() or platform.machine()
