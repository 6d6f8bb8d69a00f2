"""A batch's gradient: in parts, in a precision, over ranks. The loop sees none of the three.

A rank's share of a batch goes through the model in parts, one after the other, so that it fits in
memory. ``machine`` chooses the engine of a run.
"""

import operator
import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from igo.ground.ranks import ALONE, Ranks
from igo.plans import batches
from igo.train import models
from igo.train.on_device import Batch, Batches


class Sums(NamedTuple):
    """Of this rank's share of a batch. The tensors are float32 scalars on the device."""

    loss: Tensor  # the sum of its samples' losses
    correct: Tensor  # its correct answers
    slope: Tensor  # ‖gradient by the model's outputs‖², scaled as ``.grad`` is, see ``Pairs``
    samples: int


class Outcome(NamedTuple):
    """What the model makes of a part of a batch."""

    loss: Tensor  # the sum of its samples' losses, a scalar
    correct: Tensor  # its correct answers, a float32 scalar
    logits: Tensor  # (b, classes) float32


@dataclass(frozen=True)
class Engine:
    """Where and in which precision a run computes.

    ``autocast`` is None for fp32. ``scaler`` scales the loss in fp16, and skips a step whose scaled
    gradient overflows. ``micro_batch_size`` is the most samples that go through the model at once,
    over all ranks. ``model`` is what training calls in place of the network: torch.compile's
    (``compiles``), or with several ranks DistributedDataParallel's.
    """

    device: torch.device
    autocast: torch.dtype | None
    scaler: torch.amp.GradScaler
    micro_batch_size: int
    note: str = ""  # It tells the user of the chosen device or precision.
    ranks: Ranks = ALONE
    compiles: bool = False
    model: nn.Module | None = None

    def prepare(self, network: nn.Module) -> nn.Module:
        """Move a model to the device, in channels_last memory. The same model is returned.

        On a CPU some of its strided convolutions get another form, see ``models.unstrided``.
        """
        # PyTorch's types of `to` differ by version.
        cast(Any, network).to(self.device, memory_format=torch.channels_last)
        if self.device.type == "cpu":
            models.unstrided(network)
        return network

    def backward(
        self,
        network: nn.Module,
        parts: Iterable[Batch],
        size: int,
        parameters: Iterable[nn.Parameter] | None = None,
    ) -> Sums:
        """Set .grad to the gradient of the batch's mean loss (times the scaler's scale).

        The mean is the sum of all ranks' losses over ``size``, and DistributedDataParallel averages
        gradients over R ranks. So the gradient of this rank's sum is multiplied by R / size.

        Args:
            network: the model.
            parts: of this rank's share of the batch, at least one.
            size: samples of the whole batch, over all ranks.
            parameters: the model's. A loop has them in a list: to find them takes as long as a
                layer.

        Returns:
            The sums over this rank's samples.
        """
        for parameter in network.parameters() if parameters is None else parameters:
            # Gradients are not set to zeros: a parameter that the loss does not reach is then left
            # alone, also by momentum and decay.
            parameter.grad = None
        totals: Sums | None = None  # over the parts so far
        for loss, correct, logits in self.losses(network, parts):
            logits.retain_grad()  # for the slope
            factor = self.scaler.scale(loss.new_full((), self.ranks.size / size))
            loss.backward(factor)
            gradient = cast(Tensor, logits.grad).flatten()
            sums = Sums(loss.detach(), correct, gradient.dot(gradient), len(logits))
            totals = Sums(*map(operator.add, totals, sums)) if totals else sums
        return cast(Sums, totals)

    def losses(self, network: nn.Module, parts: Iterable[Batch]) -> Iterator[Outcome]:
        """Yield the outcome of each part.

        The caller makes the backward pass of a part before it asks for the next part. Ranks
        exchange gradients in the backward pass of the last part: DistributedDataParallel's
        ``no_sync`` puts the exchange off in the others.
        """
        parallel = self.model if isinstance(self.model, DistributedDataParallel) else None
        # Each part is seen with the one after it. None stands after the last part.
        for part, next_part in pairwise(chain[Any](parts, [None])):
            is_last = next_part is None
            with nullcontext() if parallel is None or is_last else parallel.no_sync():
                yield self._forward(network, *part)

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Make an update with the gradients that ``backward`` has set; the host does not wait.

        In fp16 the scaler makes none if a gradient overflows.
        """
        self.scaler.step(optimizer)
        self.scaler.update()

    def smallest_part(self, batch_sizes: Iterable[int]) -> int:
        """The fewest samples that BatchNorm sees at once in batches of these sizes.

        A batch is shared among the ranks, and each share is cut into equal parts: the smallest has
        ⌊⌊size/ranks⌋/parts⌋ samples. On GPUs BatchNorm sees the same part of all ranks together,
        see ``distributed``.
        """
        micro, ranks = self.micro_batch_size, self.ranks.size
        shares = ranks if self.device.type == "cpu" else 1
        return min(size // shares // batches.parts(size, micro, ranks) for size in batch_sizes)

    @torch.no_grad()
    def evaluate(self, network: nn.Module, stream: Batches) -> tuple[float, float]:
        """Mean loss and accuracy over all ranks' samples, with BatchNorm's running statistics.

        ``stream`` has this rank's batches, which are cut into parts here.
        """
        network.eval()
        # The sums stay on the device: to read each batch's would make the host wait for the GPU.
        totals, samples = torch.zeros(2, device=self.device), 0
        for images, labels in stream:
            count = batches.count(len(labels), self.micro_batch_size)
            for part in zip(images.tensor_split(count), labels.tensor_split(count), strict=True):
                outcome = self._forward(network, *part)
                totals += torch.stack([outcome.loss, outcome.correct])
            samples += len(labels)
        network.train()
        samples = int(self.ranks.sum_(torch.tensor(samples)))
        loss, correct = self.ranks.sum_(totals.double()).tolist()
        return loss / samples, correct / samples

    def _forward(self, network: nn.Module, images: Tensor, labels: Tensor) -> Outcome:
        """The outcome of one part (images, labels), in the engine's precision."""
        precision = self.autocast
        # Evaluation, which has no gradients, calls the network itself.
        model = self.model if self.model and torch.is_grad_enabled() else network
        if self.compiles:
            # The first dimension may vary: one graph serves all batch sizes from 2 on; on a CPU two
            # do. Channels, height and width are fixed in a graph, for fast memory layouts.
            torch._dynamo.maybe_mark_dynamic(images, 0)
        with torch.autocast(self.device.type, precision) if precision else nullcontext():
            logits = model(images)
        logits = logits.float()  # In 16 bits a sum of losses would lose digits.
        loss = F.cross_entropy(logits, labels, reduction="sum")
        correct = (logits.argmax(dim=1) == labels).sum(dtype=torch.float32)
        return Outcome(loss, correct, logits)


def distributed(engine: Engine, network: nn.Module) -> tuple[Engine, nn.Module]:
    """The engine with its ``model``, and the network, in which layers may be replaced.

    DistributedDataParallel gives all ranks rank 0's parameters and buffers to begin with. On GPUs
    BatchNorm becomes SyncBatchNorm. On CPUs, for which PyTorch has none, each rank's BatchNorm sees
    its own share of a batch.
    """
    has_ranks = engine.ranks.size > 1
    if has_ranks and engine.device.type == "cuda":
        # PyTorch's own conversion leaves out the activation of timm's layers.
        import timm.layers

        network = timm.layers.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    # The network is compiled, and not DistributedDataParallel, which would break the graph, for
    # each batch size anew.
    model = cast(nn.Module, torch.compile(network)) if engine.compiles else None
    if has_ranks:
        with warnings.catch_warnings():
            # PyTorch 2.13 has another name for this argument, which earlier versions do not know.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
            model = DistributedDataParallel(model or network, broadcast_buffers=False)
    return replace(engine, model=model), network


def average_statistics(network: nn.Module, ranks: Ranks) -> None:
    """Give all ranks the mean of their running statistics of BatchNorm, in the network itself."""
    # This is timm.utils.distribute_bn, whose import takes seconds.
    for name, statistic in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            ranks.sum_(statistic).div_(ranks.size)
