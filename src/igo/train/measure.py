"""C² from gradients that are computed as in training: at its start, and of the epoch's own updates.

The gradients that train an epoch have the noise that acts: of whole batches, with BatchNorm and
dropout, on samples that the parameters have not met in this epoch. Two in a row differ by this
noise and by an update, so their difference measures C² (docs/noise.md).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from igo.config.schema import Config, training_samples
from igo.ground.seeds import derive_seed, generator
from igo.noise import noise
from igo.noise.measure import Spread, untouched
from igo.noise.noise import Noise
from igo.plans import batches as equal
from igo.plans.stages import Update
from igo.train.engine import Engine
from igo.train.on_device import Batch
from igo.train.record import Training, Twin

Rows = np.ndarray  # a row for each pair or twin

MOST_PAIRS = 64  # of an epoch
LEAST_PAIRS = 8  # an interval needs so many
TWINS = 0.015  # of a run's gradients
ENOUGH = 4  # twins: an epoch has at most so many, and a correction is the mean of so many
EARLY = 10  # epochs, in which the movement changes fast: each has a twin, the first two ENOUGH


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
    batch t + 1 at the same point, taken before the update. It says what the movement changes, see
    ``Twin`` and ``_corrected`` (docs/noise.md).

    Two gradients are kept, and three norms for each pair, twin and parameter. They stay on the
    device until ``noise``.

    Args:
        run: whose gradients are read. An optimizer that is not PyTorch's may change them in place.
        batches: k of the epoch. Of more than 2 MOST_PAIRS, evenly spread pairs are taken.
        made: updates before the epoch.
        earlier: twins of earlier epochs, the newest first.
    """

    def __init__(
        self, run: Training, batches: int, made: int = 0, earlier: Sequence[tuple[float, ...]] = ()
    ) -> None:
        self._run = run
        # A checkpoint of 1.0.0 has twins of two numbers: this epoch then measures more of its own.
        self._earlier = [Twin(*old) for old in earlier if len(old) == 3]
        self._parameters = [p for p in run.network.parameters() if p.requires_grad]
        own = type(run.optimizer).__module__.startswith("torch.optim.")
        self._copies = run.engine.scaler.is_enabled() or not own
        # The epoch has so many pairs. They are spread evenly; pair p of all that it could have,
        # counted from 0, is of the batches 2p + 1 and 2p + 2.
        possible = batches // 2
        count = min(possible, MOST_PAIRS)
        self._firsts = [2 * (i * possible // count) + 1 for i in range(count)]
        # A twin is due at each update at which TWINS of all gradients passes a whole number, so
        # that short epochs have their share.
        due = int(TWINS * (made + batches)) - int(TWINS * made)
        if made < 2 * batches or not self._earlier:
            due = ENOUGH
        elif made < EARLY * batches:
            due = max(due, 1)
        # The pairs are cut into as many equal parts, and the one in the middle of each has it.
        twins = min(due, ENOUGH, count)
        self._twinned = {(2 * part + 1) * count // (2 * twins) for part in range(twins)}
        self._kept: list[Tensor] = []  # g_t, between the updates of a pair
        self._sizes: list[int] = []  # of the batches of all pairs
        self._pairs: list[Tensor] = []  # see _norms
        self._twins: dict[int, Tensor] = {}  # the same, by the pair's number from 0

    def take(self, update: Update, following: Batch | None) -> None:
        """Take in the gradient of an update of the epoch, before the optimizer makes it.

        ``following`` is this rank's share of the epoch's next batch, None after the last.
        """
        number = len(self._pairs)
        if self._kept:
            self._sizes.append(update.batch_size)
            self._pairs.append(_norms(self._kept, self._gradient()))
            self._kept = []
        elif number < len(self._firsts) and update.batch == self._firsts[number]:
            self._sizes.append(update.batch_size)
            self._kept = self._gradient()
            if number in self._twinned and following is not None:
                run, size = self._run, self._run.plan.at(update.number + 1).batch_size
                with untouched(run.network):  # so dropout is that of the next update
                    run.engine.backward(run.network, *following, size)
                    self._twins[number] = _norms(self._gradient(), self._kept)

    def _gradient(self) -> list[Tensor]:
        gradient = [torch.zeros_like(p) if (g := p.grad) is None else g for p in self._parameters]
        if self._copies:
            scale = self._run.engine.scaler.scale(torch.ones((), device=gradient[0].device))
            gradient = list(torch._foreach_div(gradient, scale))
        return gradient

    @np.errstate(all="ignore")  # the loop ends a run whose C² is not finite
    def noise(self) -> tuple[Noise | None, list[Twin]]:
        """C² and ‖∇f‖² with intervals, None without a pair; and the newest twins.

        An update that fp16's scaler skips has a gradient that is not finite: its pair is left out.
        """
        if not self._pairs:
            return None, self._earlier
        norms = torch.stack([*self._pairs, *self._twins.values()]).cpu().numpy().astype(float)
        one, other, change = np.square(norms).reshape(len(norms), 3, -1).sum(axis=2).T
        both = one + other
        parts = np.stack([change, both, (both - change) / 2], axis=1)
        pairs, at_one_point = np.split(parts, [len(self._pairs)])
        own = _compared(pairs[[*self._twins]], at_one_point)
        twins = [*own, *self._earlier][:ENOUGH]
        sizes = np.array(self._sizes, dtype=float).reshape(-1, 2)
        if self._run.engine.scaler.is_enabled():
            finite = np.isfinite(pairs).all(axis=1)
            pairs, sizes = pairs[finite], sizes[finite]
        return (_corrected(pairs, sizes, twins) if len(pairs) else None), twins


def _norms(spent: list[Tensor], other: list[Tensor]) -> Tensor:
    """By parameter: the norms of two gradients, and of their difference, which replaces ``spent``.

    New memory for all parameters would take longer than the subtraction.
    """
    norms = torch._foreach_norm([*spent, *other])
    torch._foreach_sub_(spent, other)
    return torch.stack([*norms, *torch._foreach_norm(spent)])


def _compared(pairs: Rows, at_one_point: Rows) -> list[Twin]:
    """What twins say of their pairs, without those whose gradients are not finite."""
    change, both, product = pairs.T
    still, _, still_product = at_one_point.T
    rows = np.log(still / change), np.log(still / both), (still_product - product) / change
    return [Twin(*row) for row in np.stack(rows, axis=1).tolist() if np.isfinite(row).all()]


def _corrected(pairs: Rows, sizes: Rows, twins: Sequence[Twin]) -> Noise:
    """C² and ‖∇f‖² of the pairs, corrected by the twins.

    Each pair has ‖g_{t+1} - g_t‖², ‖g_t‖² + ‖g_{t+1}‖² and g_t·g_{t+1}, and its sizes b.

    A twin's ‖g' - g_t‖², in which nothing moves, is a multiple of its pair's ‖g_{t+1} - g_t‖², and
    another one of ‖g_t‖² + ‖g_{t+1}‖². The multiple that varies less between the twins corrects all
    pairs: with a momentum mostly the first; without one mostly the second, which has less chance of
    its own. Its mean is geometric. What g_t·g_{t+1} lacks is added to its mean.

    An interval has the error of the pairs, for log C² a jackknife's, and that of the twins.
    """
    k, enough = len(pairs), len(twins) == ENOUGH
    change, both, product = pairs.T
    told = np.array(twins or [Twin(0, 0, 0)])
    best = int(enough and told[:, 1].std() < told[:, 0].std())
    log_factor, lacking = told[:, best], told[:, 2] * change.mean()
    variances = (change, both)[best] / (1 / sizes).sum(axis=1)
    variance = float(variances.mean() * np.exp(log_factor.mean()))
    square = float(product.mean() + lacking.mean())
    interval = square_interval = None
    if k >= LEAST_PAIRS and enough:
        total = variances.sum()
        of_pairs = noise.jackknife(total - variances, total), k
        interval = noise.around(variance, of_pairs, _error(log_factor))
        half = noise.reach(_error(product), _error(lacking))
        square_interval = square - half, square + half
    size = round(sizes.mean())
    return Noise(variance, interval, square, size, k, "consecutive", square_interval)


def _error(values: Rows) -> tuple[float, int]:
    """The standard error of a mean, and of how many values."""
    return values.std(ddof=1) / len(values) ** 0.5, len(values)


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
