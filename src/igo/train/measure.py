"""C² from gradients that are computed as in training: at its start, and of the epoch's own updates.

The gradients that train an epoch have the noise that acts: of whole batches, with BatchNorm and
dropout, on samples that the parameters have not met in this epoch. Two in a row differ by this
noise and by an update, so their difference measures C² (docs/noise.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from igo.config.schema import Config, training_samples
from igo.ground.seeds import derive_seed, generator
from igo.method import batches as equal
from igo.method.stages import Update
from igo.noise import noise
from igo.noise.measure import Spread, untouched
from igo.noise.noise import Noise
from igo.train.engine import Engine
from igo.train.on_device import Batch
from igo.train.record import Training, Twin

MOST_PAIRS = 256  # of an epoch
LEAST_PAIRS = 8  # for an interval
TWINS = 0.03  # of a run's gradients
LEAST_TWINS, MOST_TWINS = 4, 8  # that corrections are a mean of, and in an epoch
EARLY = 10  # epochs, in which the movement changes fast: each has a twin, the first two LEAST_TWINS


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

    At one point C² is the mean of ‖g_{t+1} - g_t‖²/(1/b_t + 1/b_{t+1}), and ‖∇f‖² that of
    g_t·g_{t+1} [derived]. But the update between the two moves the parameters, which makes the
    first too large and the second too small. So some pairs have a twin: g_t with the gradient of
    batch t + 1 at the same point, taken before the update. It says by which factor the movement
    changes ‖g_{t+1} - g_t‖², and how much of it g_t·g_{t+1} lacks. C² of all pairs is multiplied
    by the geometric mean of the factors, and the mean share is added to ‖∇f‖² (docs/noise.md).

    Both are means over the epoch's twins; if these are few, over the newest LEAST_TWINS.

    Two gradients are kept, and three norms for each pair, twin and parameter. They stay on the
    device until ``noise``.

    Args:
        run: whose gradients are read. An optimizer that is not PyTorch's may change them in place.
        batches: k of the epoch. Of more than 2 MOST_PAIRS, evenly spread pairs are taken.
        made: updates before the epoch.
        earlier: twins of earlier epochs, the newest first.
    """

    def __init__(
        self, run: Training, batches: int, made: int = 0, earlier: Sequence[Twin] = ()
    ) -> None:
        self._run, self._earlier = run, earlier
        self._parameters = [p for p in run.network.parameters() if p.requires_grad]
        own = type(run.optimizer).__module__.startswith("torch.optim.")
        self._copies = run.engine.scaler.is_enabled() or not own
        pairs, taken = batches // 2, min(batches // 2, MOST_PAIRS)
        self._firsts = [2 * (i * pairs // taken) + 1 for i in range(taken)]
        due = int(TWINS * (made + batches)) - int(TWINS * made)
        least = int(made < EARLY * batches)
        if made < 2 * batches or not earlier:
            least = LEAST_TWINS
        twins = min(taken, MOST_TWINS, max(due, least))
        self._twinned = {(2 * i + 1) * taken // (2 * twins) for i in range(twins)}
        self._kept: list[Tensor] = []
        self._sizes: list[int] = []  # of the batches of all pairs
        self._pairs: list[Tensor] = []  # norms, see _norms
        self._twins: dict[int, Tensor] = {}  # the same, by the pair's number from 0

    def take(self, update: Update, following: Batch | None) -> None:
        """Take in the gradient of an update of the epoch, before the optimizer makes it.

        ``following`` is this rank's share of the epoch's next batch, None after the last.
        """
        number = len(self._pairs)
        if self._kept:
            self._sizes.append(update.batch_size)
            self._pairs.append(self._norms())
            self._kept = []
        elif number < len(self._firsts) and update.batch == self._firsts[number]:
            self._sizes.append(update.batch_size)
            self._kept = self._gradient()
            if number in self._twinned and following is not None:
                run, size = self._run, self._run.plan.at(update.number + 1).batch_size
                with untouched(run.network):  # so dropout is that of the next update
                    run.engine.backward(run.network, *following, size)
                    self._twins[number] = self._norms()

    def _gradient(self) -> list[Tensor]:
        gradient = [torch.zeros_like(p) if (g := p.grad) is None else g for p in self._parameters]
        if self._copies:
            scale = self._run.engine.scaler.scale(torch.ones((), device=gradient[0].device))
            gradient = list(torch._foreach_div(gradient, scale))
        return gradient

    def _norms(self) -> Tensor:
        """By parameter: norms of the kept gradient, of the present one and of their difference."""
        gradient = self._gradient()
        norms = torch._foreach_norm([*self._kept, *gradient])
        norms += torch._foreach_norm(torch._foreach_sub(gradient, self._kept))
        return torch.stack(norms)

    @np.errstate(all="ignore")  # the loop ends a run whose C² is not finite
    def noise(self) -> tuple[Noise | None, list[Twin]]:
        """C² and ‖∇f‖² with intervals, None without a pair; and the newest twins.

        An update that fp16's scaler skips has a gradient that is not finite: its pair is left out.
        An interval has the error of the pairs, for log C² a jackknife's, and that of the twins.
        """
        if not self._pairs:
            return None, [*self._earlier]
        count, twinned = len(self._pairs), [*self._twins]
        norms = torch.stack([*self._pairs, *self._twins.values()]).cpu().numpy().astype(float)
        squares = np.square(norms).reshape(len(norms), 3, -1).sum(axis=2)
        changes, products = squares[:, 2], squares @ [0.5, 0.5, -0.5]  # g_t·g_{t+1}
        lacking = (products[count:] - products[twinned]) / changes[twinned]
        own = np.stack([np.log(changes[count:] / changes[twinned]), lacking], axis=1)
        own = own[np.isfinite(own).all(axis=1)]
        twins = np.concatenate([own, np.reshape(self._earlier, (-1, 2))])
        twins = twins[: max(len(own), LEAST_TWINS)]
        sizes = np.array(self._sizes, dtype=float).reshape(-1, 2)
        changes, products = changes[:count], products[:count]
        if self._run.engine.scaler.is_enabled():
            finite = np.isfinite(squares[:count]).all(axis=1)
            changes, products, sizes = changes[finite], products[finite], sizes[finite]
        k, of, newest = len(changes), len(twins), [(float(f), float(g)) for f, g in twins]
        if not k:
            return None, newest
        factor, share = twins.mean(axis=0) if of else (0.0, 0.0)
        variances, change = changes / (1 / sizes).sum(axis=1), changes.mean()
        variance = float(variances.mean() * np.exp(factor))
        square = float(products.mean() + share * change)
        interval = square_interval = None
        if k >= LEAST_PAIRS and of >= LEAST_TWINS:
            of_factor, of_share = twins.std(axis=0, ddof=1) / of**0.5
            total = variances.sum()
            of_pairs = noise.jackknife(total - variances, total)
            interval = noise.around(variance, (of_pairs, k), (of_factor, of))
            of_products = products.std(ddof=1) / k**0.5
            half = noise.reach((of_products, k), (of_share * change, of))
            square_interval = square - half, square + half
        size = round(sizes.mean())
        return Noise(variance, interval, square, size, k, "consecutive", square_interval), newest


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
