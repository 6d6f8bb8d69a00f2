"""C² and ‖∇f‖² from the gradients that training computes anyway, averaged over its updates."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from igo.ground.numbers import AT_LEAST_ONE, check
from igo.noise.measure import is_sharded, squared_norm
from igo.noise.noise import LEAST_FOR_INTERVAL, Noise, StandardError, around, refuse


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
    ‖∇f‖² = ‖ḡ‖² - C²/Σ s_k [derived; for two halves it is McCandlish et al. 2018, appendix A.1].
    Where samples are drawn without replacement from n and have no noise of their own, C² is too
    large and ‖∇f‖² too small by C²/n.

    Under DistributedDataParallel the K parts are those of all ranks, so one on each of two ranks is
    enough. Each rank calls ``part`` and ``update`` alike. ``update`` exchanges two numbers, so that
    all ranks have the same averages.

    ``.grad`` must become the gradient of the whole batch's mean loss: multiply each part's mean
    loss by its share of the samples (``update.weight``). C² is of the samples that training draws
    at that time. In mid-epoch these samples have not yet been seen in the epoch; late in training
    their C² is larger than C² of all samples.

    Args:
        model: whose parameters' ``.grad`` are read; under DDP the DistributedDataParallel itself.
        half_life: of the running averages, in samples.

    Raises:
        ValueError: ``half_life`` is not above 0, or parameters are in 16 bits or shared among
            ranks (FSDP).
    """

    def __init__(self, model: nn.Module, half_life: float) -> None:
        # NaN is not above 0; infinity is, and lets no update decay.
        refuse(not half_life > 0, f"half_life={half_life}: it must be above 0, in samples")
        refuse(is_sharded(model), "no part has its own gradient under FSDP: use igo.measure_noise")
        self._half_life = half_life
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        are_short = any(p.dtype in (torch.bfloat16, torch.float16) for p in self._parameters)
        refuse(are_short, "parameters in 16 bits add rounding noise: use torch.autocast")
        # Decaying sums over the batches: of their weights w, of w², and of w times C², times C⁴ and
        # times ‖∇f‖². An average is a sum over that of the weights.
        self._sums = dict.fromkeys(("weight", "weights_square", "c2", "c2_square", "square"), 0.0)
        self._part_size = 0.0  # the mean samples of a part, in the newest batch
        self._begin_batch()
        self._ranks, self._group = 1, None
        if isinstance(model, nn.parallel.DistributedDataParallel):
            self._group = model.process_group
            self._ranks = model.process_group.size()
            # The last backward of a batch averages .grad over ranks. A hook is called before that,
            # when .grad has this rank's gradient alone. Without DDP ``part`` reads .grad itself.
            for parameter in self._parameters:
                parameter.register_post_accumulate_grad_hook(self._keep_gradient)
        if any(isinstance(m, _BatchNorm) and m.training for m in model.modules()):
            warnings.warn("BatchNorm in train mode: C² depends on the size of parts", stacklevel=2)

    def _begin_batch(self) -> None:
        """Forget the parts of the last batch."""
        self._parts = self._samples = 0  # of this rank, in the batch so far
        self._moment: Any = 0.0  # Σ ‖what a part added to the gradient‖²/s_k
        # The gradients of this rank by parameter, and what they were before the newest part.
        self._gradients: dict[Tensor, Tensor] = {}
        self._earlier_gradients: dict[Tensor, Tensor] = {}

    def _keep_gradient(self, parameter: Tensor) -> None:
        """Copy the parameter's present gradient of this rank, which the next part will add to."""
        if parameter.grad is not None:
            self._gradients[parameter] = parameter.grad.detach().clone()

    @property
    def noise(self) -> Noise | None:
        """The averages; ``batch_size`` is the samples of a part, ``batches`` the updates averaged.

        The interval assumes that C² is constant over the half-life. None before the first batch of
        two parts or more; there is no interval before the third.
        """
        weight = self._sums["weight"]
        if not weight:
            return None
        variance, square = self._sums["c2"] / weight, self._sums["square"] / weight
        # Kish's effective number: K equal weights give K, unequal ones fewer.
        updates = weight**2 / self._sums["weights_square"]
        interval = None
        # Weights that have decayed a little count as slightly fewer updates than were made.
        if updates > LEAST_FOR_INTERVAL - 0.1 and variance > 0:
            # The variance of the batches' C² is the mean of C⁴ less the square of the mean.
            spread = max(self._sums["c2_square"] / weight - variance**2, 0.0)
            error_of_log = math.sqrt(spread / (updates - 1)) / variance
            interval = around(variance, StandardError(error_of_log, updates))
        return Noise(variance, interval, square, round(self._part_size), round(updates), "parts")

    def part(self, samples: int) -> None:
        """Take in a micro-batch of so many samples: call it after each micro-batch's backward.

        Raises:
            ValueError: that is no whole number above 0.
        """
        check(AT_LEAST_ONE, whole=True, samples=samples)
        if not self._group:
            for parameter in self._parameters:
                self._keep_gradient(parameter)
        # Of a batch of B samples on R ranks, a part of s_k samples adds (R s_k/B) g_k to its rank's
        # gradient: DDP divides by R later. B is not known before ``update``.
        earlier = self._earlier_gradients
        additions = (g - earlier[p] if p in earlier else g for p, g in self._gradients.items())
        self._moment += squared_norm(additions) / samples
        self._parts += 1
        self._samples += samples
        self._earlier_gradients = dict(self._gradients)
        # After the last part this is ‖ḡ‖², with the loss's scale. It is not left to ``update``: a
        # GradScaler may have unscaled the gradients by then.
        self._square = squared_norm(p.grad for p in self._parameters if p.grad is not None)

    def update(self, scale: float = 1.0) -> None:
        """Add C² and ‖∇f‖² of a whole batch to the averages; call it before ``optimizer.step()``.

        A batch with one part, or with gradients that are not finite, is left out.

        Args:
            scale: of the loss at ``part``: ``scaler.get_scale()`` if a GradScaler scales it, also
                after ``unscale_``.

        Raises:
            ValueError: there was no ``part``.
        """
        refuse(
            not self._parts,
            "no part of this batch is known: call part(samples) after each backward",
        )
        parts, own_samples, own_moment = self._ranks * self._parts, self._samples, self._moment
        self._begin_batch()
        if parts < 2:
            return
        numbers = torch.stack([own_moment, torch.full_like(own_moment, own_samples)])
        if self._group:
            dist.all_reduce(numbers, group=self._group)
        # A GPU is read once.
        moment, samples, mean_square = torch.stack([*numbers, self._square]).tolist()
        # A batch weighs as many as its C² has degrees of freedom: more parts say more.
        weight = parts - 1
        # The moment is Σ ‖(R s_k/B) g_k‖²/s_k, see ``part``: times (B/R)² it is Σ s_k ‖g_k‖². This
        # less B ‖ḡ‖² is Σ s_k ‖g_k - ḡ‖². All are squares of gradients with the loss's scale.
        c2 = (moment * (samples / self._ranks) ** 2 - samples * mean_square) / weight / scale**2
        square = mean_square / scale**2 - c2 / samples
        if not (math.isfinite(c2) and math.isfinite(square)):
            return
        # The averages decay by samples and not by updates, because b grows during the training.
        decay = 0.5 ** (samples / self._half_life)
        terms = {"weight": 1.0, "c2": c2, "c2_square": c2**2, "square": square}
        for name, term in terms.items():
            self._sums[name] = self._sums[name] * decay + weight * term
        # Each weight has decayed, so its square has twice.
        self._sums["weights_square"] = self._sums["weights_square"] * decay**2 + weight**2
        self._part_size = samples / parts

    def state_dict(self) -> dict[str, Any]:
        """The averages, as plain numbers."""
        return {"sums": dict(self._sums), "size": self._part_size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was called."""
        self._sums, self._part_size = dict(state["sums"]), state["size"]
        self._begin_batch()
