"""C² and ‖∇f‖² from the gradients that training computes anyway, averaged over its updates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from igo.ground.numbers import AT_LEAST_ONE, check
from igo.noise.measure import is_sharded
from igo.noise.noise import LEAST_FOR_INTERVAL, Noise, around, refuse


class NoiseMeter:
    """Running averages of C² and ‖∇f‖², from the micro-batches that training uses.

    >>> random = torch.manual_seed(0)
    >>> model = torch.nn.Linear(3, 1)
    >>> meter = igo.NoiseMeter(model, half_life=640)
    >>> for _ in range(40):
    ...     model.zero_grad()
    ...     for _ in range(2):
    ...         (model(torch.randn(8, 3)).square().mean() / 2).backward()
    ...         meter.part(8)  # after each backward: its samples
    ...     meter.update()  # before optimizer.step()
    >>> meter.noise.variance_interval[0] < meter.noise.variance < meter.noise.variance_interval[1]
    True

    The parts of a batch give independent gradients g_k at the same parameters, of s_k samples. With
    ḡ, their mean weighted by samples, C² = Σ s_k ‖g_k - ḡ‖²/(K - 1) is unbiased, and so is
    ‖∇f‖² = ‖ḡ‖² - C²/Σ s_k, but for C²/n without ``n`` [derived; for two halves it is McCandlish et
    al. 2018, appendix A.1].

    ``.grad`` must become the gradient of the whole batch's mean loss: multiply each part's mean
    loss by its share of the samples. C² is of the samples that training draws at that time. In
    mid-epoch these are samples not yet seen in the epoch; late in training their C² is larger than
    C² of all samples.

    Args:
        model: whose parameters' ``.grad`` are read.
        half_life: of the running averages, in samples.
        n: samples of the data set, if batches are drawn from it without replacement and a sample's
            gradient does not vary. With dropout or augmentation ‖∇f‖² would be too large.

    Raises:
        ValueError: ``half_life`` is not above 0, parameters are in 16 bits, or ranks share
            gradients or parameters (DistributedDataParallel, FSDP).
    """

    def __init__(self, model: nn.Module, half_life: float, n: int | None = None) -> None:
        refuse(not half_life > 0, f"half_life={half_life}: it must be above 0, in samples")
        check(AT_LEAST_ONE, whole=True, n=n)
        shared = isinstance(model, nn.parallel.DistributedDataParallel) or is_sharded(model)
        cure = "with DDP use igo.measure_noise"
        refuse(shared, f"no part has its own gradient under FSDP or DDP; {cure}")
        self._half_life, self._n = half_life, n
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        short = any(p.dtype in (torch.bfloat16, torch.float16) for p in self._parameters)
        refuse(short, "parameters in 16 bits add rounding noise: use torch.autocast")
        self._sums = dict.fromkeys(("weight", "weights_square", "c2", "c2_square", "square"), 0.0)
        self._size = 0.0  # samples of a part
        self._begin()
        if any(isinstance(m, _BatchNorm) and m.training for m in model.modules()):
            warnings.warn("BatchNorm in train mode: C² depends on the size of parts", stacklevel=2)

    def _begin(self) -> None:
        self._sizes: list[int] = []
        self._scatter: list[Tensor] = []
        self._before: list[Tensor] = []  # gradients after the last part

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
            interval = around(mean, (math.sqrt(spread / (updates - 1)) / mean, updates))
        return Noise(mean, interval, square, round(self._size), round(updates), "parts")

    def part(self, samples: int) -> None:
        """Take in a micro-batch of so many samples: call it after each micro-batch's backward.

        Raises:
            ValueError: that is no whole number above 0, or more than n in the batch.
        """
        check(AT_LEAST_ONE, whole=True, samples=samples)
        raw = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        gradients, earlier = [gradient.detach() for gradient in raw], sum(self._sizes)
        self._sizes.append(samples)
        too_small = self._n is not None and earlier + samples > self._n
        refuse(too_small, f"n={self._n}: a batch has {earlier + samples} samples")
        if earlier:
            total = earlier + samples
            change = [g / total - b / earlier for g, b in zip(gradients, self._before, strict=True)]
            self._scatter.append(_square(change) * (total * earlier / samples))
        self._before = [gradient.clone() for gradient in gradients]

    def update(self, scale: float = 1.0) -> None:
        """Add C² and ‖∇f‖² of a whole batch to the averages; call it before ``optimizer.step()``.

        A batch with one part, or with gradients that are not finite, is left out.

        Args:
            scale: of the loss at ``part``: ``scaler.get_scale()`` if a GradScaler scales it, also
                after ``unscale_``.
        """
        sizes, scatter, gradient = self._sizes, self._scatter, self._before
        self._begin()
        if len(sizes) < 2:
            return
        samples, weight = sum(sizes), len(sizes) - 1
        c2 = float(torch.stack(scatter).sum()) * samples**2 / weight / scale**2
        finite = 1.0
        if self._n is not None:  # drawn without replacement
            c2 *= (self._n - 1) / self._n
            finite = (self._n - samples) / (self._n - 1)
        square = float(_square(gradient)) / scale**2 - c2 / samples * finite
        if not (math.isfinite(c2) and math.isfinite(square)):
            return
        decay = 0.5 ** (samples / self._half_life)
        terms = {"weight": 1.0, "c2": c2, "c2_square": c2**2, "square": square}
        for name, term in terms.items():
            self._sums[name] = self._sums[name] * decay + weight * term
        self._sums["weights_square"] = self._sums["weights_square"] * decay**2 + weight**2
        self._size = samples / len(sizes)

    def state_dict(self) -> dict[str, Any]:
        """The averages, as plain numbers."""
        return {"sums": dict(self._sums), "size": self._size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was called."""
        self._sums, self._size = dict(state["sums"]), state["size"]
        self._begin()


def _square(parts: Sequence[Tensor]) -> Tensor:
    """The squared norm over parameters, in float64."""
    norms = [torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]
    return torch.stack([norm.to(norms[0].device) for norm in norms]).square().sum()
