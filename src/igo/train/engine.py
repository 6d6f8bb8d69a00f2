"""How one step is executed: device, precision, micro-batches. The loop knows nothing of these."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igo.config.schema import EngineConfig
from igo.cores import allowed_cores
from igo.errors import ConfigError
from igo.ranks import ALONE, Ranks
from igo.train import allocator, batchnorm, cudagraphs, finite, gpus, micro_batch, pointwise
from igo.train.compiled import Compiled
from igo.train.cudagraphs import Graphs

ALL_THREADS = torch.get_num_threads()  # before any run changes it
SHARED_FROM = 16  # pixels; smaller images leave threads more waiting than working


@dataclass(frozen=True)
class Engine:
    """Where and in which precision a run computes.

    ``autocast`` is None for fp32. ``scaler`` scales the loss where the precision is fp16; a step
    whose scaled gradient overflows is skipped by it. ``micro_batch_size`` bounds what goes through
    the model at once, on all ranks together.
    """

    device: torch.device
    autocast: torch.dtype | None
    scaler: torch.amp.GradScaler
    micro_batch_size: int
    note: str = ""  # what a user should know of the choice that was made
    ranks: Ranks = ALONE
    batchnorm: str = "synced"
    graphs: Graphs | None = None
    compiled: Compiled | None = None  # calls the model, where it is compiled
    skip: bool = False  # go on after an update that could not be made, with BatchNorm as before it

    def prepare(self, network: nn.Module) -> nn.Module:
        """Move a model to the device, convolutions in channels_last memory; join its ranks."""
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
            span: where the batch is in what ranks share, see Ranks; all of it where there is one.

        Returns:
            (2,) float32 on the device: the sum of this rank's losses, and of its correct answers.
        """
        for parameter in network.parameters():
            parameter.grad = None
        b = len(labels) if span is None else len(span)
        totals = torch.zeros(2, device=self.device)
        for part, answers in self.parts(images, labels, span):
            loss, correct = self._forward(network, part, answers)
            self.scaler.scale(loss / b).backward()
            totals += torch.stack((loss.detach(), correct))
        if self.ranks.size > 1 or self.scaler.is_enabled():
            finite.mark_gradient(network, totals)
        self.ranks.sum_gradients(network.parameters())
        return totals

    def begin_epoch(
        self, steps: Mapping[int, int], network: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        """Hear of the steps to come in the stage, by the size of their batches."""
        if self.graphs is not None:
            whole = {b: left for b, left in steps.items() if b <= self.micro_batch_size}
            self.graphs.begin(whole, network, optimizer)

    def step(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: tuple[Tensor, Tensor],
        span: range | None = None,
        *,
        eager: bool = False,
    ) -> Tensor:
        """One update on one batch; takes and returns what ``backward`` does, waits for nothing.

        A loss that is not finite says that there was none, see finite; where the loss is scaled
        (fp16), an overflow of the gradient alone is the scaler's affair and says nothing. The step
        is a CUDA graph's where there are some, unless it is to be ``eager``.
        """
        if self.graphs is not None and not eager:
            return self.graphs.step(partial(self.step, network, optimizer, eager=True), batch)
        nothing: list[Tensor] = []
        with finite.buffers_kept(network) if self.skip else nullcontext(nothing) as losses:
            totals = self.backward(network, *batch, span)
            if self.scaler.is_enabled():
                self.scaler.step(optimizer)
                self.scaler.update()
            else:
                with finite.checked(optimizer, totals) as can_step:
                    if can_step:
                        optimizer.step()
            losses.append(totals[0])
        return totals

    def parts(
        self, images: Tensor, labels: Tensor, span: range | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Split a batch into the fewest nearly equal parts of at most micro_batch_size.

        The whole batch, of ``span``, is split, and this rank's share of each part given: the parts
        are the same for any number of ranks.
        """
        ranks = ALONE if span is None else self.ranks
        span = span or range(len(labels))
        count = math.ceil(len(span) / self.micro_batch_size)
        least, more = divmod(len(span), count or 1)
        ends = [ranks.count(span.start + i * least + min(i, more)) for i in range(count + 1)]
        for start, end in pairwise(end - ends[0] for end in ends):
            yield images[start:end], labels[start:end]

    def smallest_part(self, batch_sizes: Iterable[int]) -> int:
        """The fewest samples that the model will see at once, of batches of these sizes."""
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
        if not len(labels) and not batchnorm.is_synced(network):  # not every layer takes nothing
            nothing = torch.zeros((), device=self.device)
            return nothing.requires_grad_(), nothing.detach()
        with self.precision():
            logits = (self.compiled or nn.Module.__call__)(network, images)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        return loss, (logits.argmax(dim=1) == labels).sum(dtype=torch.float32)


def build(config: EngineConfig, image_size: int | None = None, ranks: Ranks = ALONE) -> Engine:
    """Choose device, precision and threads; each process takes a GPU of its machine.

    One thread works alone on images of very few pixels a side, ``image_size``.
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
    # Else every new tensor is filled with NaN first, to expose operations that read before they
    # write: no result changes, and a small model's update took 4 % longer.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    best = _best_precision(device)
    precision = best if config.precision == "auto" else config.precision
    gpus.configure(precision)
    note = gpus.NOT_IN_JOB if config.device == "auto" and gpus.is_missing(on_gpu) else ""
    if precision == "bf16" != best:
        here = "GPU" if on_gpu else "CPU"
        note = f"engine.precision=bf16 is emulated on this {here}, which is slow: {best} is faster"
    autocast = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    captured = cudagraphs.build(config.graphs, device, scaler.is_enabled(), ranks)
    size = config.micro_batch_size or micro_batch.MOST  # null: micro_batch.size_for, with a model
    norm, skip = config.batchnorm, config.non_finite == "skip"
    if skip and scaler.is_enabled() and ranks.size > 1:
        allowed = "loss scaling (fp16) over several processes cannot tell which updates those are"
        raise ConfigError("engine.non_finite", "skip", f"{allowed}; use engine.precision=bf16")
    return Engine(
        device, autocast, scaler, size, note, ranks, batchnorm=norm, graphs=captured, skip=skip,
        compiled=Compiled() if config.compile else None,
    )  # fmt: skip


def allowed_threads() -> int:
    """The most threads that a run takes by itself; a launcher sets OMP_NUM_THREADS for its runs."""
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    cores = min(ALL_THREADS, allowed_cores())
    return max(1, min(cores, int(limit))) if limit.strip().isdigit() else cores


def without_bf16(engine: Engine, config: EngineConfig) -> Engine:
    """The same engine for a model whose bf16 gradients a CPU gets wrong, see models.check_fits."""
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
    """bf16 where the hardware multiplies in it, fp16 on older GPUs, fp32 elsewhere."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    there = flags.get("avx512_bf16") or flags.get("amx_bf16")
    return "bf16" if there and _onednn_takes_bf16() else "fp32"


def _onednn_takes_bf16() -> bool:
    """Whether oneDNN, which multiplies, may use what the CPU has: ONEDNN_MAX_CPU_ISA bounds it."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def hardware(engine: Engine) -> dict[str, str | int]:
    """What a record should say of the machine."""
    precision = "fp32" if engine.autocast is None else str(engine.autocast).removeprefix("torch.")
    facts: dict[str, str | int] = {"device": engine.device.type, "precision": precision}
    if engine.device.type == "cuda":
        facts |= gpus.facts()
    facts["cpu"] = _cpu_name()
    facts["instructions"] = torch.backends.cpu.get_cpu_capability()  # such as AVX2, AVX512
    facts["cores"] = os.cpu_count() or 1
    facts["threads"] = torch.get_num_threads()
    facts["micro_batch_size"] = engine.micro_batch_size
    facts["ranks"] = engine.ranks.size
    if engine.ranks.size > 1:
        facts["batchnorm"] = engine.batchnorm
    return facts


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        import platform

        return platform.processor() or platform.machine()
