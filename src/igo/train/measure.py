"""C² from gradients that are computed as in training: at its start, and of the epoch's own updates.

The gradients that train an epoch have the noise that acts: of whole batches, with BatchNorm and
dropout, on samples that the parameters have not met in this epoch. Two in a row are independent
gradients at almost the same parameters, so their difference measures C² (docs/noise.md).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from igo.config.schema import Config, training_samples
from igo.ground.seeds import derive_seed, generator
from igo.method import batches as equal
from igo.noise import noise
from igo.noise.measure import Spread, untouched
from igo.noise.noise import Noise
from igo.train.engine import Engine
from igo.train.record import Training

MOST_PAIRS = 256  # of an epoch
LEAST_PAIRS = 8  # for an interval


def size_at_start(config: Config) -> int:
    """b of the measurement at the start of training: that of the first stage, if K batches fit.

    Under BatchNorm C² depends on the batch size that it is measured with.
    """
    n = training_samples(config)
    return max(1, min(n // equal.count(n, config.batch_size), n // config.noise.batches))


def at_start(run: Training) -> Noise:
    """C² before training, from gradients as in training, with augmentation and BatchNorm."""
    config, engine, ranks = run.config, run.engine, run.engine.ranks
    batch_size, seed = size_at_start(config), derive_seed(config.seed, "noise", 1)
    order = torch.randperm(run.data.n, generator=generator(seed, "pieces"))
    drawn = order[: config.noise.batches * batch_size].split(batch_size)
    own = [index[ranks.rank :: ranks.size] for index in drawn]
    stream = run.data.train_batches(own, derive_seed(seed, "augmentation"))
    with untouched(run.network, derive_seed(seed, "dropout", *ranks.seed_suffix)):
        spread = Spread(run.network.parameters())
        for batch in stream:
            spread.add(training_gradient(engine, run.network, *batch, batch_size))
    return spread.noise(batch_size=batch_size, n=run.data.n, sampling="disjoint")


class Pairs:
    """C² and ‖∇f‖² of an epoch, from disjoint pairs of consecutive gradients g_t, g_{t+1}.

    C² is the mean of ‖g_{t+1} - g_t‖²/(1/b_t + 1/b_{t+1}), and ‖∇f‖² is the mean of g_t·g_{t+1}
    [derived]. The parameters move between the two gradients. That adds
    ‖∇f(x_{t+1}) - ∇f(x_t)‖² and more to the first, and makes the second too small, often below 0
    (docs/noise.md).

    One gradient is kept, and three norms for each pair and parameter. They stay on the device until
    ``noise``.

    Args:
        engine: whose scaler scales the loss in fp16.
        network: whose gradients are read.
        optimizer: makes the updates. One that is not PyTorch's may change gradients in place.
        batches: k of the epoch. Of more than 2 MOST_PAIRS, evenly spread pairs are taken.
    """

    def __init__(
        self, engine: Engine, network: nn.Module, optimizer: torch.optim.Optimizer, batches: int
    ) -> None:
        self._scaler = engine.scaler
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        own = type(optimizer).__module__.startswith("torch.optim.")
        self._copies = self._scaler.is_enabled() or not own
        pairs, taken = batches // 2, min(batches // 2, MOST_PAIRS)
        self._firsts = {2 * (i * pairs // taken) + 1 for i in range(taken)}
        self._kept: list[Tensor] = []
        self._sizes: list[int] = []  # of the batches of all pairs
        self._norms: list[Tensor] = []  # of g_t, g_{t+1} and their difference, by parameter

    def take(self, update: int, size: int) -> None:
        """Take in the gradient of an update of the epoch, before the optimizer makes it.

        Args:
            update: its number in the epoch, from 1.
            size: samples of its batch, over all ranks.
        """
        first = update in self._firsts
        if not first and update - 1 not in self._firsts:
            return
        gradient = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        if self._copies:
            scale = self._scaler.scale(torch.ones((), device=gradient[0].device))
            gradient = list(torch._foreach_div(gradient, scale))
        self._sizes.append(size)
        if first:
            self._kept = gradient
            return
        norms = torch._foreach_norm([*self._kept, *gradient])
        torch._foreach_sub_(self._kept, gradient)
        norms += torch._foreach_norm(self._kept)
        self._norms.append(torch.stack(norms))
        self._kept = []

    def noise(self) -> Noise | None:
        """C² with its interval, and ‖∇f‖²; None without a pair.

        An update that fp16's scaler skips has a gradient that is not finite: its pair is left out.
        The interval is a jackknife of log C² over pairs, with Student's t.
        """
        if not self._norms:
            return None
        norms = torch.stack(self._norms).cpu().numpy().astype(float)
        with np.errstate(over="ignore"):  # the loop ends a run whose C² is not finite
            squares = np.square(norms).reshape(len(norms), 3, -1).sum(axis=2)
        sizes = np.array(self._sizes, dtype=float).reshape(-1, 2)
        if self._scaler.is_enabled():
            finite = np.isfinite(squares).all(axis=1)
            squares, sizes = squares[finite], sizes[finite]
        if not len(squares):
            return None
        variances = squares[:, 2] / (1 / sizes).sum(axis=1)
        variance, pairs, interval = float(variances.mean()), len(variances), None
        if pairs >= LEAST_PAIRS:
            total = variances.sum()
            error = noise.jackknife(total - variances, total)
            interval = noise.around(variance, error, pairs)
        products = squares @ [0.5, 0.5, -0.5]  # g_t·g_{t+1}
        size = round(sizes.mean())
        return Noise(variance, interval, float(products.mean()), size, pairs, "consecutive")


def training_gradient(
    engine: Engine, network: nn.Module, images: Tensor, labels: Tensor, size: int | None = None
) -> list[Tensor | None]:
    """The gradient of a batch's mean loss as in training, by parameter; see ``Engine.backward``.

    If training scales the loss (fp16), it is in fp32, as a scaled gradient may overflow.
    """
    if engine.scaler.is_enabled():
        off = torch.amp.GradScaler(engine.device.type, enabled=False)
        engine = replace(engine, autocast=None, scaler=off)
    engine.backward(network, images, labels, size)
    return [parameter.grad for parameter in network.parameters()]
