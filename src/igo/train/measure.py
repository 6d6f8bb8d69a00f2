"""C² from gradients that are computed as in training: at its start, and of the epoch's own updates.

The gradients that train an epoch have the noise that acts: of whole batches, with BatchNorm and
dropout, on samples that the parameters have not met in this epoch. Two in a row differ by this
noise and by an update, so their difference measures C² (docs/noise.md).
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from igo.config.schema import Config, training_samples
from igo.ground.seeds import derive_seed, generator
from igo.noise import noise
from igo.noise.measure import Spread, untouched
from igo.noise.noise import Noise
from igo.plans import batches as equal
from igo.plans.rows import Update
from igo.train.engine import Engine
from igo.train.on_device import Batch
from igo.train.training import Training, Twin

Rows = np.ndarray  # a row for each pair or twin

LONG = 128  # updates; an epoch of fewer has all of its pairs
PAIRS = 32  # a long epoch has so many
LEAST_PAIRS = 8  # an interval needs so many
TWINS = 0.015  # the share of a run's gradients that are twins
MOST_TWINS = 2  # an epoch has at most so many after the first two, which have ENOUGH
ENOUGH = 4  # twins; a correction is the mean of so many
EARLY = 10  # epochs of fast movement, each of which has one twin at least


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
    pieces = order[: config.noise.batches * batch_size].split(batch_size)
    count = run.batches.parts_of(batch_size)
    shares = [p for piece in pieces for p in piece[ranks.rank :: ranks.size].tensor_split(count)]
    stream = run.data.train_batches(shares, derive_seed(seed, "augmentation"))
    with untouched(run.network, derive_seed(seed, "dropout", *ranks.seed_suffix)):
        spread = Spread(run.network.parameters())
        for _ in pieces:
            parts = islice(stream, count)
            spread.add(training_gradient(engine, run.network, parts, batch_size))
    return spread.noise(batch_size=batch_size, n=run.data.n, sampling="disjoint")


class Stream(Iterator[Batch]):
    """The parts of an epoch's batches, of which a twin sees those of the next batch ahead.

    ``samples`` are those of the parts that were taken.
    """

    def __init__(self, parts: Iterator[Batch]) -> None:
        self._parts, self._ahead = parts, deque[Batch]()
        self.samples = 0

    def __next__(self) -> Batch:
        images, labels = self._ahead.popleft() if self._ahead else next(self._parts)
        self.samples += len(labels)
        return images, labels

    def ahead(self, count: int) -> list[Batch]:
        """The next so many parts, which are still to come."""
        self._ahead.extend(islice(self._parts, count - len(self._ahead)))
        return [*self._ahead]


class Pairs:
    """C² and ‖∇f‖² of an epoch, from disjoint pairs of consecutive gradients g_t, g_{t+1}.

    At one point C² is the mean of ‖g_{t+1} - g_t‖²/(1/b_t + 1/b_{t+1}), and ‖∇f‖² that of
    g_t·g_{t+1} [derived]. But the update between the two moves the parameters, which makes the
    first too large and the second too small. So some pairs have a twin: g_t with the gradient of
    batch t + 1 at the same point, taken before the update. It says what the movement changes, see
    ``Twin`` and ``_corrected`` (docs/noise.md).

    A long epoch has few pairs. The gradient of the loss by the model's outputs, which each update
    computes anyway, says how noisy every batch is, and so carries C² from these pairs to all.

    Two gradients are kept, and three norms for each pair, twin and parameter. They stay on the
    device until ``noise``.

    Args:
        run: whose gradients are read. An optimizer that is not PyTorch's may change them in place.
        batches: k of the epoch. Of LONG or more, PAIRS evenly spread pairs are taken.
        updates: the run's before this epoch.
        earlier_twins: twins of earlier epochs, the newest first.
    """

    def __init__(
        self,
        run: Training,
        batches: int,
        updates: int = 0,
        earlier_twins: Sequence[tuple[float, ...]] = (),
    ) -> None:
        self._run = run
        # A checkpoint of 1.0.0 has twins of two numbers: this epoch then measures more of its own.
        self._earlier = [Twin(*twin) for twin in earlier_twins if len(twin) == 3]
        self._parameters = [p for p in run.network.parameters() if p.requires_grad]
        from_torch = type(run.optimizer).__module__.startswith("torch.optim.")
        self._copies = run.engine.scaler.is_enabled() or not from_torch
        # Pair p of all that the epoch could have, counted from 0, is of the batches 2p + 1 and
        # 2p + 2. The pairs that are measured are spread evenly.
        possible = batches // 2
        count = possible if batches < LONG else PAIRS
        self._numbers = [place * possible // count for place in range(count)]
        # A twin is due at each update at which TWINS of all gradients passes a whole number, so
        # that short epochs have their share.
        twins = int(TWINS * (updates + batches)) - int(TWINS * updates)
        twins = min(twins, MOST_TWINS)
        if updates < 2 * batches or not self._earlier:
            twins = ENOUGH
        elif updates < EARLY * batches:
            twins = max(twins, 1)
        # The pairs are cut into as many equal parts, and the one in the middle of each has it.
        twins = min(twins, count)
        self._twinned = {(2 * part + 1) * count // (2 * twins) for part in range(twins)}
        self._first: list[Tensor] = []  # g_t, between the updates of a pair
        # What every batch of the epoch has: its size, and its slope as Engine.backward has it.
        self._sizes: list[int] = []
        self._slopes: list[Tensor] = []
        # The norms of measured pairs, and of twins by the place of their pair, as _norms has them.
        self._pairs: list[Tensor] = []
        self._twins: dict[int, Tensor] = {}

    def take(self, update: Update, slope: Tensor, stream: Stream) -> None:
        """Take in the gradient of an update of the epoch, before the optimizer makes it.

        ``slope`` is the squared norm of the gradient by the outputs, as ``Engine.backward`` has it.
        ``stream`` has what comes next: a twin holds all parts of the next batch.
        """
        place = len(self._pairs)
        self._sizes.append(update.batch_size)
        if self._run.engine.scaler.is_enabled():
            slope = slope / self._scale(slope.device).square()
        self._slopes.append(slope)
        if self._first:
            second = self._gradient()
            assert second[0] is not self._first[0], "each update has new memory for its gradient"
            self._pairs.append(_norms(self._first, second))
            self._first = []
        elif place < len(self._numbers) and update.batch == 2 * self._numbers[place] + 1:
            self._first = self._gradient()
            if place in self._twinned and update.batch < update.batches:
                run, size = self._run, self._run.plan.at(update.number + 1).batch_size
                parts = stream.ahead(run.batches.parts_of(size))
                with untouched(run.network):  # Dropout is then that of the next update.
                    run.engine.backward(run.network, parts, size)
                    self._twins[place] = _norms(self._gradient(), self._first)

    def _gradient(self) -> list[Tensor]:
        gradient = [torch.zeros_like(p) if (g := p.grad) is None else g for p in self._parameters]
        if self._copies:
            gradient = list(torch._foreach_div(gradient, self._scale(gradient[0].device)))
        return gradient

    def _scale(self, device: torch.device) -> Tensor:
        """The scale of the loss, 1 without fp16."""
        return self._run.engine.scaler.scale(torch.ones((), device=device))

    @np.errstate(all="ignore")  # the loop ends a run whose C² is not finite
    def noise(self) -> tuple[Noise | None, list[Twin]]:
        """C² and ‖∇f‖² with intervals, None without a pair; and the newest twins.

        An update that fp16's scaler skips has a gradient that is not finite: its pair is left out.
        """
        if not self._pairs:
            return None, self._earlier
        slopes, norms = self._read()
        first_squares, second_squares, change = np.square(norms).sum(axis=2).T
        total = first_squares + second_squares
        rows = np.stack([change, total, (total - change) / 2], axis=1)
        pairs, pairs_at_one_point = np.split(rows, [len(self._pairs)])
        new_twins = _compared(pairs[[*self._twins]], pairs_at_one_point)
        twins = [*new_twins, *self._earlier][:ENOUGH]
        sizes = np.array(self._sizes[: 2 * len(slopes)], dtype=float).reshape(-1, 2)
        numbers = np.array(self._numbers[: len(pairs)])
        if self._run.engine.scaler.is_enabled():
            finite = np.isfinite(pairs).all(axis=1)
            pairs, numbers = pairs[finite], numbers[finite]
        return (_corrected(pairs, sizes, numbers, slopes, twins) if len(pairs) else None), twins

    def _read(self) -> tuple[Rows, Rows]:
        """The slopes of all pairs (p,), and the three norms of each that is measured and each twin.

        They are read from the device by one copy.
        """
        rows, batches = torch.stack([*self._pairs, *self._twins.values()]), len(self._slopes)
        numbers = torch.cat([torch.stack(self._slopes), rows.flatten()]).double().cpu()
        slopes = self._run.engine.ranks.sum_(numbers[:batches])[: batches // 2 * 2]
        norms = numbers[batches:].view(len(rows), 3, -1)
        return slopes.view(-1, 2).sum(dim=1).numpy(), norms.numpy()


def _norms(gradient: list[Tensor], next_gradient: list[Tensor]) -> Tensor:
    """By parameter: the norms of two gradients, and of their difference, which replaces the first.

    New memory for all parameters would take longer than the subtraction.
    """
    norms = torch._foreach_norm([*gradient, *next_gradient])
    torch._foreach_sub_(gradient, next_gradient)
    return torch.stack([*norms, *torch._foreach_norm(gradient)])


def _compared(pairs: Rows, pairs_at_one_point: Rows) -> list[Twin]:
    """What twins say of their pairs, without those whose gradients are not finite."""
    change, total, product = pairs.T
    still, _, still_product = pairs_at_one_point.T
    rows = np.log(still / change), np.log(still / total), (still_product - product) / change
    return [Twin(*row) for row in np.stack(rows, axis=1).tolist() if np.isfinite(row).all()]


def _corrected(
    pairs: Rows, sizes: Rows, numbers: Rows, slopes: Rows, twins: Sequence[Twin]
) -> Noise:
    """C² and ‖∇f‖² of the pairs, carried over to all batches and corrected by the twins.

    Each pair has ‖g_{t+1} - g_t‖², ‖g_t‖² + ‖g_{t+1}‖² and g_t·g_{t+1}. ``sizes`` and ``slopes``
    are of all pairs that the epoch could have, and ``numbers`` say which of them were measured.

    C² is a ratio estimator of two phases (Cochran 1977, chapter 12): the mean of the measured pairs
    over the mean of their slopes, times the mean slope of all pairs. The jackknife of its logarithm
    leaves out one of all pairs after the other (Rao and Sitter 1995).

    A twin's ‖g' - g_t‖², in which nothing moves, is a multiple of its pair's ‖g_{t+1} - g_t‖², and
    another one of ‖g_t‖² + ‖g_{t+1}‖². The multiple that varies less between the twins corrects all
    pairs: with a momentum mostly the first; without one mostly the second, which has less chance of
    its own. Its mean is geometric. What g_t·g_{t+1} lacks is added to its mean.

    An interval has the error of the pairs and that of the twins.
    """
    k, has_all_twins = len(pairs), len(twins) == ENOUGH
    change, total, product = pairs.T
    factors = np.array(twins or [Twin(0, 0, 0)])
    log_factor, spread = factors[:, 0], change
    if has_all_twins and factors[:, 1].std() < log_factor.std():
        log_factor, spread = factors[:, 1], total
    missing_products = factors[:, 2] * change.mean()
    inverse_sizes = (1 / sizes).sum(axis=1)
    variances, slopes = spread / inverse_sizes[numbers], slopes / inverse_sizes
    if not slopes[numbers].sum() > 0:  # Every sample fits to rounding: no batch says anything.
        slopes = np.ones_like(slopes)
    ratio, level = variances.sum() / slopes[numbers].sum(), slopes.mean()
    variance = float(ratio * level * np.exp(log_factor.mean()))
    square = float(product.mean() + missing_products.mean())
    interval = square_interval = None
    if k >= LEAST_PAIRS and has_all_twins:
        without_one, ratios = 1 - np.eye(k), np.full(len(slopes), ratio)
        ratios[numbers] = (without_one @ variances) / (without_one @ slopes[numbers])
        levels = (slopes.sum() - slopes) / (len(slopes) - 1)
        of_pairs = noise.jackknife(ratios * levels, ratio * level), k
        interval = noise.around(variance, of_pairs, _error(log_factor))
        half = noise.reach(_error(product), _error(missing_products))
        square_interval = square - half, square + half
    size = round(sizes[numbers].mean())
    return Noise(variance, interval, square, size, k, "consecutive", square_interval)


def _error(values: Rows) -> tuple[float, int]:
    """The standard error of a mean, and of how many values."""
    return values.std(ddof=1) / len(values) ** 0.5, len(values)


def training_gradient(
    engine: Engine, network: nn.Module, parts: Iterable[Batch], size: int
) -> list[Tensor | None]:
    """The gradient of a batch's mean loss as in training, by parameter; see ``Engine.backward``.

    If training scales the loss (fp16), it is in fp32, as a scaled gradient may overflow.
    """
    if engine.scaler.is_enabled():
        no_scaler = torch.amp.GradScaler(engine.device.type, enabled=False)
        engine = replace(engine, autocast=None, scaler=no_scaler)
    engine.backward(network, parts, size)
    return [parameter.grad for parameter in network.parameters()]
