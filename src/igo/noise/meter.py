"""C² and ‖∇f‖² from the gradients that training computes anyway, averaged over its updates.

The parts of a batch (micro-batches of an accumulation, or the ranks' shares) give independent
gradients at the same parameters. With g_k of s_k samples and ḡ, their mean weighted by samples,
C² = Σ s_k ‖g_k - ḡ‖²/(K - 1) and ‖∇f‖² = ‖ḡ‖² - C²/Σ s_k are unbiased for parts of any sizes
[derived; for two halves it is McCandlish et al. 2018, appendix A.1].
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from igo.noise.adam import after_steps, is_known, preconditioned
from igo.noise.noise import LEAST_FOR_INTERVAL, Noise, around
from igo.noise.spread import cut, product

WARN_AFTER = 32  # batches in a row, of which nothing was measured


class NoiseMeter:
    """Running averages of C² and ‖∇f‖², from the parts of the batches that training uses.

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

    With a DistributedDataParallel model the parts are the ranks' shares of a batch. The meter takes
    the model's communication hook; call only ``meter.update(samples)``, with this rank's samples.
    FSDP and other wrappers of several processes are refused.

    ``.grad`` must become the gradient of the whole batch's mean loss: multiply each part's mean
    loss by its share of the samples. C² is of the samples that training draws at that time. In
    mid-epoch these are samples not yet seen in the epoch; late in training their C² is larger than
    C² of all samples.

    Args:
        model: whose parameters' ``.grad`` are read.
        half_life: of the running averages, in samples.
        n: samples of the data set, if batches are drawn from it without replacement.
        adam: the Adam or AdamW that trains. C² and ‖∇f‖² are then E‖P(G - ∇f)‖² and ‖P∇f‖², with
            P = 1/(√v̂ + ε) of the same update: they are taken when ``adam.step()`` has set v̂. The
            first update, and one without that call, are left out.

    Raises:
        ValueError: ``half_life`` is not above 0, ``adam`` is another optimizer, parameters are in
            16 bits, or there are several processes without DistributedDataParallel.
    """

    def __init__(
        self,
        model: nn.Module,
        half_life: float,
        n: int | None = None,
        adam: torch.optim.Adam | None = None,
    ) -> None:
        if not half_life > 0:
            raise ValueError(f"half_life={half_life}: it must be above 0, in samples")
        if adam is not None and not is_known(adam):
            raise ValueError(f"adam={type(adam).__name__}: only Adam's and AdamW's P is known")
        self._half_life, self._n, self._adam = half_life, n, adam
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        if any(p.dtype in (torch.bfloat16, torch.float16) for p in self._parameters):
            raise ValueError("parameters in 16 bits add rounding noise: use torch.autocast")
        self._sums = dict.fromkeys(("weight", "weights_square", "c2", "c2_square", "square"), 0.0)
        self._size = 0.0  # samples of a part
        self._unmeasured = 0  # batches of one part so far; -1 after a batch of two
        self._unseen = 0  # batches in a row whose step Adam did not make
        self._awaits_step: Callable[[], None] | None = None
        self._begin()
        self._by_ranks = isinstance(model, DistributedDataParallel)
        if adam is not None:
            after_steps(adam, self.settle)
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
        self._entries: list[Tensor] = []  # with adam: the scatter of each entry
        self._before: list[Tensor] = []  # gradients after the last part
        self._buckets: list[int] = []
        self._compared: list[Tensor] = []  # g·g, g·ḡ and ḡ·ḡ of each bucket
        self._local: dict[Tensor, Tensor] = {}  # with adam: this rank's gradient by parameter

    @property
    def noise(self) -> Noise | None:
        """The averages; ``batch_size`` is the samples of a part, ``batches`` the updates averaged.

        The interval assumes that C² is constant over the half-life. None before the first update;
        there is no interval before the third.
        """
        weight, c2 = self._sums["weight"], self._sums["c2"]
        if not weight:
            return None
        mean, square = c2 / weight, self._sums["square"] / weight
        updates = weight**2 / self._sums["weights_square"]
        interval = None
        if updates > LEAST_FOR_INTERVAL - 0.1 and mean > 0:
            spread = max(self._sums["c2_square"] / weight - mean**2, 0.0)
            interval = around(mean, math.sqrt(spread / (updates - 1)) / mean, updates)
        return Noise(mean, interval, square, round(self._size), round(updates), "parts")

    def part(self, samples: int) -> None:
        """Take in a micro-batch of so many samples: call it after each micro-batch's backward."""
        if self._by_ranks:
            raise ValueError("a DistributedDataParallel model's parts are its ranks: call update()")
        raw = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        gradients, earlier = [gradient.detach() for gradient in raw], sum(self._sizes)
        self._sizes.append(samples)
        if earlier:
            total = earlier + samples
            change = [g / total - b / earlier for g, b in zip(gradients, self._before, strict=True)]
            weight = total * earlier / samples
            if self._adam:
                squares = [c.square() * weight for c in change]
                known = self._entries or [torch.zeros_like(square) for square in squares]
                self._entries = [a + b for a, b in zip(known, squares, strict=True)]
            else:
                self._scatter.append(product(change, change) * weight)
        self._before = [gradient.clone() for gradient in gradients]

    def update(self, samples: int | None = None, scale: float = 1.0) -> None:
        """Add C² and ‖∇f‖² of a whole batch to the averages.

        Call it before ``optimizer.step()`` of each update. A batch with one part, or with gradients
        that are not finite, is left out. Warns if the first 32 batches have one part each.

        Args:
            samples: of this rank, if ranks are the parts.
            scale: of the loss: ``scaler.get_scale()`` if a GradScaler scales it.
        """
        if self._by_ranks:
            if samples is None:
                raise ValueError("samples=None: give the samples of this rank's part")
            if len(set(self._buckets)) < len(self._buckets):
                raise ValueError(
                    "gradients were averaged twice: call update for each batch, and run all its"
                    " backward passes but the last under model.no_sync()"
                )
            self._compare_ranks(samples, scale)
        elif len(self._sizes) > 1:
            total, parts = sum(self._sizes), len(self._sizes)
            if self._adam:
                factor = total**2 / scale**2
                self._await_step(
                    [e * factor for e in self._entries], self._before, total, parts, scale
                )
            else:
                c2 = float(torch.stack(self._scatter).sum()) * total**2 / (parts - 1)
                square = float(product(self._before, self._before))
                self._take(c2 / scale**2, square / scale**2, total, parts)
        self._check_parts()
        self._begin()

    def _check_parts(self) -> None:
        """Warn once if no batch so far has had two parts."""
        if self._by_ranks or self._unmeasured < 0:
            return
        self._unmeasured = self._unmeasured + 1 if len(self._sizes) < 2 else -1
        if self._unmeasured == WARN_AFTER:
            warnings.warn(
                f"the first {WARN_AFTER} batches have one part each, and C² needs two: cut them"
                " into smaller parts, and call meter.part(samples) after the backward pass of each",
                stacklevel=3,
            )

    def _await_step(
        self, entries: list[Tensor], mean: list[Tensor], samples: float, parts: int, scale: float
    ) -> None:
        """Keep this rank's scatter by entry and ḡ: Adam's next step sets the P to scale them by."""
        self._unseen = self._unseen + 1 if self._awaits_step else 0
        if self._unseen == WARN_AFTER:
            text = f"adam= made no step in {WARN_AFTER} updates: give the optimizer that trains"
            warnings.warn(text, stacklevel=3)
        squares = [(g / scale).square() for g in mean]
        optimizer, parameters = self._adam, self._parameters

        def settle() -> None:
            c2 = preconditioned(optimizer, parameters, entries)
            if self._by_ranks:
                dist.all_reduce(c2, group=self._group)
            square = preconditioned(optimizer, parameters, squares)
            self._take(float(c2) / (parts - 1), float(square), samples, parts)

        self._awaits_step = settle

    def settle(self) -> None:
        """Called after Adam's step: take in the batch that was measured before it."""
        settle, self._awaits_step = self._awaits_step, None
        if settle:
            settle()

    def state_dict(self) -> dict[str, Any]:
        """The averages, as plain numbers."""
        return {"sums": dict(self._sums), "size": self._size, "adam": self._adam is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was called.

        Raises:
            ValueError: one of the two is with ``adam``, the other without.
        """
        if state["adam"] != (self._adam is not None):
            raise ValueError(f"the state has adam={state['adam']}: it is of another noise")
        self._sums, self._size = dict(state["sums"]), state["size"]
        self._begin()

    def _compare_ranks(self, samples: int, scale: float) -> None:
        """C² from ‖g_r - ḡ‖² of each rank r, whose gradient is weight · g_r, as its loss was."""
        if not (self._compared or self._local):
            return
        ranks, device = dist.get_world_size(self._group), self._parameters[0].device
        sizes = torch.tensor([samples, min(samples, 1)], dtype=torch.float64, device=device)
        dist.all_reduce(sizes, group=self._group)
        total, parts = sizes.tolist()
        weight = samples * ranks / total
        if parts < 2:
            return
        if self._adam:
            means = [
                torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self._parameters
            ]
            local = [self._local.get(p, g) for p, g in zip(self._parameters, means, strict=True)]
            entries = [
                (g / weight - mean).square() * (samples / scale**2)
                if samples
                else torch.zeros_like(g)
                for g, mean in zip(local, means, strict=True)
            ]
            self._await_step(entries, means, total, int(parts), scale)
            return
        own_square, crossed, square = torch.stack(self._compared).sum(dim=0).tolist()
        distance = own_square / weight**2 - 2 * crossed / weight + square if samples else 0.0
        scatter = torch.tensor(samples * distance, dtype=torch.float64, device=device)
        dist.all_reduce(scatter, group=self._group)
        c2 = float(scatter) / (parts - 1)
        self._take(c2 / scale**2, square / scale**2, total, int(parts))

    def _take(self, c2: float, square: float, samples: float, parts: int) -> None:
        """Add a batch's C² and ‖∇f‖² to the sums; if one of them is not finite, add none."""
        if self._n is not None:  # drawn without replacement
            c2 *= (self._n - 1) / self._n
        finite = 1.0 if self._n is None else (self._n - samples) / (self._n - 1)
        square -= c2 / samples * finite
        if not (math.isfinite(c2) and math.isfinite(square)):
            return
        weight, decay = parts - 1, 0.5 ** (samples / self._half_life)
        terms = {"weight": 1.0, "weights_square": weight, "c2": c2, "c2_square": c2**2,
                 "square": square}  # fmt: skip
        for name, term in terms.items():
            factor = decay**2 if name == "weights_square" else decay
            self._sums[name] = self._sums[name] * factor + weight * term
        self._size = samples / parts


def _watch(meter: NoiseMeter, model: DistributedDataParallel) -> None:
    """Compare gradients before and after DDP averages them, in a hook that averages like DDP."""

    def hook(group, bucket):  # type: ignore[no-untyped-def]  # DDP refuses types that are strings
        parameters, before, number = bucket.parameters(), bucket.buffer().clone(), bucket.index()

        def averaged(future: Any) -> Tensor:
            mean: Tensor = future.value()
            local, mean_of_ranks = cut(before, parameters), cut(mean, parameters)
            meter._buckets.append(number)
            if meter._adam:
                meter._local.update(zip(parameters, local, strict=True))
                return mean
            pairs = ((local, local), (local, mean_of_ranks), (mean_of_ranks, mean_of_ranks))
            meter._compared.append(torch.stack([product(a, b) for a, b in pairs]))
            return mean

        return allreduce_hook(group, bucket).then(averaged)

    model.register_comm_hook(model.process_group, hook)
