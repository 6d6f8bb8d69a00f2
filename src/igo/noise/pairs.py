"""C² and ‖∇f‖² from the gradients that train an epoch, of consecutive whole batches.

They have the noise that acts: with BatchNorm and dropout, on samples that the parameters have not
met in this epoch. Two in a row differ by this noise and by an update, so their difference measures
C² (docs/noise.md).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from igo.ground.ranks import ALONE, Ranks
from igo.noise import noise
from igo.noise.measure import untouched
from igo.noise.noise import Noise

Rows = np.ndarray  # a row for each pair or twin

LONG = 128  # updates; an epoch of fewer has all of its pairs
PAIRS = 32  # a long epoch has so many
LEAST_PAIRS = 8  # an interval needs so many
TWINS = 0.015  # the share of a run's gradients that are twins
MOST_TWINS = 2  # an epoch has at most so many after the first two, which have ENOUGH
ENOUGH = 4  # twins; a correction is the mean of so many
EARLY = 10  # epochs of fast movement, each of which has one twin at least


class Twin(NamedTuple):
    """What g', batch t + 1's gradient at x_t, says of a pair g_t, g_{t+1}."""

    log_change: float  # log(‖g' - g_t‖²/‖g_{t+1} - g_t‖²)
    log_both: float  # log(‖g' - g_t‖²/(‖g_t‖² + ‖g_{t+1}‖²))
    lacking: float  # (g_t·g' - g_t·g_{t+1})/‖g_{t+1} - g_t‖²


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
        network: whose gradients are read.
        batches: k of the epoch. Of LONG or more, PAIRS evenly spread pairs are taken.
        updates: the run's before this epoch.
        earlier_twins: twins of earlier epochs, the newest first.
    """

    def __init__(
        self,
        network: nn.Module,
        batches: int,
        updates: int = 0,
        earlier_twins: Sequence[tuple[float, ...]] = (),
    ) -> None:
        self._network = network
        self._earlier = [Twin(*twin) for twin in earlier_twins]
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        # Pair p of all that the epoch could have, counted from 0, is of the batches 2p + 1 and
        # 2p + 2. Those that are measured are spread evenly.
        possible = batches // 2
        count = possible if batches < LONG else PAIRS
        self._measured = [place * possible // count for place in range(count)]
        # They are cut into equal parts, and the pair in the middle of each has a twin.
        twins = min(_twins_due(batches, updates) if self._earlier else ENOUGH, count)
        self._twinned = {(2 * part + 1) * count // (2 * twins) for part in range(twins)}
        self._first: list[Tensor] = []  # g_t, between the updates of a pair
        # What every batch of the epoch has: its size, and its slope without the loss's scale.
        self._sizes: list[int] = []
        self._slopes: list[Tensor] = []
        # The norms of measured pairs, and of twins by the place of their pair, as _norms has them.
        self._pairs: list[Tensor] = []
        self._twins: dict[int, Tensor] = {}

    def take(
        self,
        size: int,
        slope: Tensor,
        next_gradient: Callable[[], object],
        scale: Tensor | None = None,
    ) -> None:
        """Take in ``.grad`` of the epoch's next update, before the optimizer makes it.

        Args:
            size: samples of the batch.
            slope: the squared norm of the gradient by the outputs, with the loss's scale.
            next_gradient: sets ``.grad`` to the next batch's gradient at the present point, with
                the random numbers that its update will have.
            scale: of the loss, in fp16.
        """
        place, batch = len(self._pairs), len(self._sizes)
        self._sizes.append(size)
        self._slopes.append(slope if scale is None else slope / scale.square())
        if self._first:
            self._pairs.append(_norms(self._first, self._gradient(scale)))
            self._first = []
        elif place < len(self._measured) and batch == 2 * self._measured[place]:
            # An optimizer may change gradients in place, and GradScaler does.
            self._first = [g.clone() for g in self._gradient(scale)]
            if place in self._twinned:
                with untouched(self._network):
                    next_gradient()
                    self._twins[place] = _norms(self._gradient(scale), self._first)

    def _gradient(self, scale: Tensor | None) -> list[Tensor]:
        gradient = [torch.zeros_like(p) if (g := p.grad) is None else g for p in self._parameters]
        return gradient if scale is None else list(torch._foreach_div(gradient, scale))

    @np.errstate(all="ignore")  # A gradient may not be finite.
    def noise(self, ranks: Ranks = ALONE) -> tuple[Noise | None, list[Twin]]:
        """C² and ‖∇f‖² with intervals, None without a pair; and the newest twins.

        A pair whose gradients are not finite is left out: fp16's scaler skips such an update.
        ``ranks`` are those that share each batch.
        """
        if not self._pairs:
            return None, self._earlier
        slopes, norms = self._read(ranks)
        first_squares, second_squares, change = np.square(norms).sum(axis=2).T
        total = first_squares + second_squares
        rows = np.stack([change, total, (total - change) / 2], axis=1)
        pairs, pairs_at_one_point = np.split(rows, [len(self._pairs)])
        new_twins = _compared(pairs[[*self._twins]], pairs_at_one_point)
        twins = [*new_twins, *self._earlier][:ENOUGH]
        sizes = np.array(self._sizes[: 2 * len(slopes)], dtype=float).reshape(-1, 2)
        finite = np.isfinite(pairs).all(axis=1)
        pairs, measured = pairs[finite], np.array(self._measured[: len(pairs)])[finite]
        return (_corrected(pairs, sizes, measured, slopes, twins) if len(pairs) else None), twins

    def _read(self, ranks: Ranks) -> tuple[Rows, Rows]:
        """The slopes of all pairs (p,), and the three norms of each that is measured and each twin.

        They are read from the device by one copy.
        """
        batches = len(self._slopes)
        rows = torch.stack([*self._pairs, *self._twins.values()])
        numbers = torch.cat([torch.stack(self._slopes), rows.flatten()]).double().cpu()
        # A rank has the slope of its own samples; its gradients are those of all ranks already.
        slopes = ranks.sum_(numbers[:batches])
        in_pairs = slopes[: batches // 2 * 2].view(-1, 2)  # A last odd batch is in no pair.
        norms = numbers[batches:].view(len(rows), 3, -1)
        return in_pairs.sum(dim=1).numpy(), norms.numpy()


def _twins_due(batches: int, updates: int) -> int:
    """How many twins an epoch of so many batches has, after so many updates of the run.

    One is due at each update at which TWINS of all gradients passes a whole number, so that short
    epochs have their share.
    """
    if updates < 2 * batches:
        return ENOUGH
    least = 1 if updates < EARLY * batches else 0
    due = int(TWINS * (updates + batches)) - int(TWINS * updates)
    return max(min(due, MOST_TWINS), least)


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
    pairs: Rows, sizes: Rows, measured: Rows, slopes: Rows, twins: Sequence[Twin]
) -> Noise:
    """C² and ‖∇f‖² of the pairs, carried over to all batches and corrected by the twins.

    Each pair has ‖g_{t+1} - g_t‖², ‖g_t‖² + ‖g_{t+1}‖² and g_t·g_{t+1}. ``sizes`` and ``slopes``
    are of all pairs that the epoch could have, and ``measured`` say which of them were measured.

    C² is a ratio estimator of two phases (Cochran 1977, chapter 12): the mean of the measured pairs
    over the mean of their slopes, times the mean slope of all pairs. The jackknife of its logarithm
    leaves out one of all pairs after the other (Rao and Sitter 1995). Where slopes would add more
    variance than they take away, C² is the mean of the measured pairs alone.

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
    variances, slopes = spread / inverse_sizes[measured], slopes / inverse_sizes
    known_slopes = slopes[measured]
    # Where all pairs are measured, both are their mean. Slopes of 0 fit every sample to rounding.
    if not known_slopes.any() or (k < len(slopes) and not _helps(known_slopes, variances)):
        slopes = np.ones_like(slopes)
    ratio, level = variances.sum() / slopes[measured].sum(), slopes.mean()
    variance = float(ratio * level * np.exp(log_factor.mean()))
    square = float(product.mean() + missing_products.mean())
    interval = square_interval = None
    if k >= LEAST_PAIRS and has_all_twins:
        without_one, ratios = 1 - np.eye(k), np.full(len(slopes), ratio)
        ratios[measured] = (without_one @ variances) / (without_one @ slopes[measured])
        levels = (slopes.sum() - slopes) / (len(slopes) - 1)
        of_pairs = noise.jackknife(ratios * levels, ratio * level), k
        interval = noise.around(variance, of_pairs, _error(log_factor))
        half = noise.half_width(_error(product), _error(missing_products))
        square_interval = square - half, square + half
    size = round(sizes[measured].mean())
    return Noise(variance, interval, square, size, k, "consecutive", square_interval)


def _helps(slopes: Rows, variances: Rows) -> bool:
    """Whether a ratio to the slopes varies less than the variances do.

    To first order it does if their regression on the slopes is steeper than half of their ratio,
    that is if their correlation is above half of the slopes' relative spread over the variances'
    (Cochran 1977, section 6.6).
    """
    half_ratio = variances.sum() / slopes.sum() / 2
    return bool((slopes - slopes.mean()) @ (variances - half_ratio * slopes) > 0)


def _error(values: Rows) -> tuple[float, int]:
    """The standard error of a mean, and of how many values."""
    return values.std(ddof=1) / len(values) ** 0.5, len(values)
