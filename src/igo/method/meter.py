"""C² and ‖∇f‖² from the gradients that training computes anyway, averaged over its updates.

Parts of a batch (micro-batches of an accumulation, or what each rank has of it) are independent
looks at one point. With g_k of s_k samples and their mean ḡ, weighted by samples,
C² = Σ s_k ‖g_k - ḡ‖²/(K - 1) and ‖∇f‖² = ‖ḡ‖² - C²/Σ s_k are unbiased for parts of any sizes
[derived; for two halves it is McCandlish et al. 2018, appendix A.1].
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from scipy.special import stdtrit
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from igo.method.adam import is_known, preconditioner
from igo.method.noise import LEAST_FOR_INTERVAL, Noise


class NoiseMeter:
    """Running C² and ‖∇f‖² of a training, from parts of its own batches.

    On one process the parts are the micro-batches of an accumulation:

    >>> random = torch.manual_seed(0)
    >>> model = torch.nn.Linear(3, 1)
    >>> meter = igo.NoiseMeter(model, half_life=640)
    >>> for _ in range(40):
    ...     model.zero_grad()
    ...     for _ in range(2):
    ...         (model(torch.randn(8, 3)).square().mean() / 2).backward()
    ...         meter.part(8)  # after each backward: its samples
    ...     meter.update()  # before optimizer.step()
    >>> meter.noise.interval[0] < meter.noise.variance < meter.noise.interval[1]
    True

    Of a DistributedDataParallel model the parts are what ranks have of a batch: the meter takes the
    model's communication hook, and ``meter.update(samples)`` with the rank's own samples is all
    that is called. FSDP and other ways of several processes are refused.

    ``.grad`` must become the gradient of the whole batch's mean loss: weigh each part's mean loss
    with its share of the samples. C² is that of the samples that training draws then: in mid-epoch
    those that the epoch has not come to, whose C² is above that of all samples late in training.

    Args:
        model: whose parameters' ``.grad`` are read.
        half_life: of the running averages, in samples.
        n: samples of the data set, where batches are drawn from it without replacement.
        adam: the Adam or AdamW that trains. With its P = 1/(√v̂ + ε) of the update before, C² and
            ‖∇f‖² are E‖P(G - ∇f)‖² and ‖P∇f‖². A first update, without v̂, is left out.

    Raises:
        ValueError: a half-life that is not above 0, another optimizer, parameters in 16 bits,
            several processes without DistributedDataParallel.
    """

    def __init__(
        self,
        model: nn.Module,
        half_life: float,
        n: int | None = None,
        adam: torch.optim.Adam | None = None,
    ) -> None:
        if not half_life > 0:
            raise ValueError(f"half_life={half_life}: it is in samples and must be above 0")
        if adam is not None and not is_known(adam):
            raise ValueError(f"adam={type(adam).__name__}: only Adam's and AdamW's P is known")
        self._half_life, self._n, self._adam = half_life, n, adam
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        if any(p.dtype in (torch.bfloat16, torch.float16) for p in self._parameters):
            raise ValueError("parameters in 16 bits, whose rounding is noise: use torch.autocast")
        self._sums = dict.fromkeys(("weight", "weights_square", "c2", "c2_square", "square"), 0.0)
        self._size = 0.0  # samples of a part
        self._begin()
        self._by_ranks = isinstance(model, DistributedDataParallel)
        if isinstance(model, DistributedDataParallel):
            self._group = model.process_group
            _watch(self, model)
        elif dist.is_initialized() and dist.get_world_size() > 1:
            raise ValueError("several processes: give the DistributedDataParallel model")
        if any(isinstance(m, _BatchNorm) and m.training for m in model.modules()):
            warnings.warn("BatchNorm in train mode: C² depends on the size of parts", stacklevel=2)

    def _begin(self) -> None:
        self._sizes: list[int] = []
        self._scatter: list[Tensor] = []
        self._before: list[Tensor] = []  # gradients after the last part
        self._buckets: list[int] = []
        self._compared: list[Tensor] = []  # g·g, g·ḡ and ḡ·ḡ of each bucket

    @property
    def noise(self) -> Noise | None:
        """The averages: ``batch_size`` samples of a part, ``batches`` the updates in the average.

        The interval takes C² for constant over the half-life. None before the first update; without
        an interval before three.
        """
        weight, c2 = self._sums["weight"], self._sums["c2"]
        if not weight:
            return None
        mean, square = c2 / weight, self._sums["square"] / weight
        updates = weight**2 / self._sums["weights_square"]
        interval = None
        if updates > LEAST_FOR_INTERVAL - 0.1 and mean > 0:
            spread = max(self._sums["c2_square"] / weight - mean**2, 0.0)
            reach = float(stdtrit(updates - 1, 0.975)) * math.sqrt(spread / (updates - 1)) / mean
            interval = mean * math.exp(-reach), mean * math.exp(reach)
        return Noise(mean, interval, square, round(self._size), round(updates), "parts")

    def part(self, samples: int) -> None:
        """One more micro-batch of so many samples is in ``.grad``: call it after its backward."""
        if self._by_ranks:
            raise ValueError("the parts of a DistributedDataParallel model are its ranks': update")
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        gradients, earlier = [gradient.detach() for gradient in found], sum(self._sizes)
        self._sizes.append(samples)
        if earlier:
            seen = earlier + samples
            moved = [g / seen - b / earlier for g, b in zip(gradients, self._before, strict=True)]
            own = self._products(self._parameters, moved, moved)
            self._scatter.append(own * (seen * earlier / samples))
        self._before = [gradient.clone() for gradient in gradients]

    def update(self, samples: int | None = None, scale: float = 1.0) -> None:
        """All parts of a batch are in: take C² and ‖∇f‖² into the averages.

        Call it before ``optimizer.step()``, of each update. A batch of one part is not measured,
        nor is one whose gradients are not finite.

        Args:
            samples: this rank's own, where ranks are the parts.
            scale: of the loss: ``scaler.get_scale()`` where a GradScaler scales it.
        """
        if self._by_ranks:
            if samples is None:
                raise ValueError("samples=None: give the samples of this rank's part")
            if len(set(self._buckets)) < len(self._buckets):
                raise ValueError(
                    "gradients were averaged twice: call update for each batch, and take all its"
                    " backward passes but the last under model.no_sync()"
                )
            self._compare_ranks(samples, scale)
        elif len(self._sizes) > 1:
            total, parts = sum(self._sizes), len(self._sizes)
            c2 = float(torch.stack(self._scatter).sum()) * total**2 / (parts - 1)
            square = float(self._products(self._parameters, self._before, self._before))
            self._take(c2 / scale**2, square / scale**2, total, parts)
        self._begin()

    def state_dict(self) -> dict[str, Any]:
        """The averages, as plain numbers."""
        return {"sums": dict(self._sums), "size": self._size, "adam": self._adam is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``state_dict`` was taken, with or without ``adam`` as it was."""
        if state["adam"] != (self._adam is not None):
            raise ValueError(f"the state has adam={state['adam']}: it is of another noise")
        self._sums, self._size = dict(state["sums"]), state["size"]
        self._begin()

    def _products(self, of: Sequence[Tensor], a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """P a · P b over parameters; NaN where P is not known of a gradient that is not 0."""
        total = torch.zeros((), dtype=torch.float64, device=a[0].device)
        groups = self._adam.param_groups if self._adam else []
        group_of = {parameter: group for group in groups for parameter in group["params"]}
        for parameter, one, other in zip(of, a, b, strict=True):
            product = one.double() * other.double()
            if self._adam:
                p = preconditioner(self._adam.state.get(parameter), group_of.get(parameter))
                product *= torch.where(product == 0, 0.0, math.nan) if p is None else p**2
            total += product.sum().to(total.device)
        return total

    def _compare_ranks(self, samples: int, scale: float) -> None:
        """C² by ‖g_r - ḡ‖² of each rank, whose gradient is weighted by its share of the samples."""
        if not self._compared:
            return
        own, crossed, square = torch.stack(self._compared).sum(dim=0).tolist()
        ranks, device = dist.get_world_size(self._group), self._compared[0].device
        sizes = torch.tensor([samples, min(samples, 1)], dtype=torch.float64, device=device)
        dist.all_reduce(sizes, group=self._group)
        total, parts = sizes.tolist()
        weight = samples * ranks / total
        distance = own / weight**2 - 2 * crossed / weight + square if samples else 0.0
        scatter = torch.tensor(samples * distance, dtype=torch.float64, device=device)
        dist.all_reduce(scatter, group=self._group)
        if parts > 1:
            c2 = float(scatter) / (parts - 1)
            self._take(c2 / scale**2, square / scale**2, total, int(parts))

    def _take(self, c2: float, square: float, samples: float, parts: int) -> None:
        """Average numerator and denominator; gradients that are not finite are left out."""
        if self._n is not None:  # drawn without replacement
            c2 *= (self._n - 1) / self._n
        left = 1.0 if self._n is None else (self._n - samples) / (self._n - 1)
        square -= c2 / samples * left
        if not (math.isfinite(c2) and math.isfinite(square)):
            return
        weight, keep = parts - 1, 0.5 ** (samples / self._half_life)
        new = {"weight": 1.0, "weights_square": weight, "c2": c2, "c2_square": c2**2,
               "square": square}  # fmt: skip
        for name, value in new.items():
            kept = keep**2 if name == "weights_square" else keep
            self._sums[name] = self._sums[name] * kept + weight * value
        self._size = samples / parts


def _watch(meter: NoiseMeter, model: DistributedDataParallel) -> None:
    """Compare gradients before and after DDP averages them, by a hook that averages as it does."""

    def hook(group, bucket):  # type: ignore[no-untyped-def]  # DDP refuses types that are strings
        of, own, number = bucket.parameters(), bucket.buffer().clone(), bucket.index()

        def averaged(future: Any) -> Tensor:
            mean: Tensor = future.value()
            one, other = _cut(own, of), _cut(mean, of)
            pairs = ((one, one), (one, other), (other, other))
            meter._buckets.append(number)
            meter._compared.append(torch.stack([meter._products(of, a, b) for a, b in pairs]))
            return mean

        return allreduce_hook(group, bucket).then(averaged)

    model.register_comm_hook(model.process_group, hook)


def _cut(bucket: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients in a bucket of DDP, which lie as their parameters do (``channels_last``)."""
    flat = bucket.split([p.numel() for p in parameters])
    return [
        one.as_strided(p.size(), p.stride(), one.storage_offset())
        for one, p in zip(flat, parameters, strict=True)
    ]
