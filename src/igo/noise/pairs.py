"""C² and ‖∇f‖² from the gradients that train an epoch, of consecutive whole batches.

They have the noise that acts: with BatchNorm and dropout, on samples that the parameters have not
met in this epoch. Two in a row differ by this noise and by an update, so their difference measures
C² (docs/noise.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from igo.ground.ranks import ALONE, Ranks
from igo.noise import noise
from igo.noise.measure import untouched
from igo.noise.noise import Noise, StandardError

LONG = 128  # updates; an epoch of fewer measures all of its pairs
PAIRS = 32  # A long epoch measures so many pairs.
LEAST_PAIRS = 8  # An interval needs so many pairs.
ENOUGH = 4  # twins; a correction is the mean of so many
TWINS = 0.015  # the share of a run's gradients that are twins
MOST_TWINS = 2  # An epoch has at most so many twins after the first two, which have ENOUGH.
EARLY = 10  # epochs of fast movement, each of which has one twin at least
Values = np.ndarray  # one number for each pair or twin
# The three numbers that a twin says of its pair, see _compared. They are in a plain tuple, since
# checkpoints hold no classes.
Twin = tuple[float, ...]


class Products(NamedTuple):
    """What is known of k pairs of gradients g_t, g_{t+1}: (k,) float64 each."""

    change: Values  # ‖g_{t+1} - g_t‖²
    total: Values  # ‖g_t‖² + ‖g_{t+1}‖²
    product: Values  # g_t·g_{t+1}

    def of(self, rows: Any) -> Products:
        """The products of some of the pairs, by indices or by a mask."""
        return Products(*(values[rows] for values in self))


class Pairs:
    """C² and ‖∇f‖² of an epoch, from disjoint pairs of consecutive gradients g_t, g_{t+1}.

    At one point C² is the mean of ‖g_{t+1} - g_t‖²/(1/b_t + 1/b_{t+1}), and ‖∇f‖² the mean of
    g_t·g_{t+1} [derived]. But the update between the two moves the parameters, which makes the
    squares too large and the products too small. So some pairs have a twin: g_t with g', the
    gradient of batch t + 1 at the same point, computed before the update. The twin says what the
    movement changes, see ``_compared`` and ``_corrected`` (docs/noise.md).

    A long epoch measures few of its pairs. The slope of a batch is the squared norm of its loss's
    gradient by the model's outputs: it says how noisy the batch is, and each update computes it
    anyway. So slopes carry C² from the measured pairs to all.

    At most two gradients are kept, and three norms for each pair, twin and parameter. The norms
    stay on the device until ``noise``.

    Args:
        network: whose gradients are read.
        batches: k of the epoch. If there are LONG or more, PAIRS evenly spread pairs are measured.
        updates: how many the run has made before this epoch.
        earlier_twins: the twins of earlier epochs, the newest first.
    """

    def __init__(
        self,
        network: nn.Module,
        batches: int,
        updates: int = 0,
        earlier_twins: Sequence[Twin] = (),
    ) -> None:
        self._network = network
        self._earlier = earlier_twins
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        # Pair p, counted from 0, is of the batches 2p and 2p + 1, counted from 0. The measured
        # pairs are the first of ``count`` equal stretches of all pairs that the epoch has.
        possible = batches // 2
        count = possible if batches < LONG else PAIRS
        self._measured = [stretch * possible // count for stretch in range(count)]
        # The measured pairs are cut into equal stretches in turn, and the pair in the middle of
        # each, at (stretch + 1/2)/twins of them all, has a twin. An epoch without earlier twins, as
        # the first, makes all that a correction needs.
        twins = min(_twins_due(batches, updates) if earlier_twins else ENOUGH, count)
        middles = [(2 * stretch + 1) * count // (2 * twins) for stretch in range(twins)]
        self._twinned = {self._measured[middle] for middle in middles}
        # Every batch of the epoch has its size, and its slope without the loss's scale.
        self._sizes: list[int] = []
        self._slopes: list[Tensor] = []
        self._first: list[Tensor] = []  # g_t between the two updates of a measured pair, else empty
        # The norms of measured pairs, and of twins, see _norms_overwriting_first. The key of a twin
        # is the place of its pair in _pairs.
        self._pairs: list[Tensor] = []
        self._twins: dict[int, Tensor] = {}

    def take(
        self,
        size: int,
        slope: Tensor,
        next_gradient: Callable[[], object],
        scale: Tensor | None = None,
    ) -> None:
        """Take in ``.grad`` of the epoch's next update, before the optimizer makes the update.

        Args:
            size: samples of the batch.
            slope: the squared norm of the gradient by the outputs, with the loss's scale.
            next_gradient: sets ``.grad`` to the next batch's gradient at the present point, with
                the random numbers that its update will have.
            scale: of the loss, in fp16; None in other precisions.
        """
        pair, place_in_pair = divmod(len(self._sizes), 2)
        self._sizes.append(size)
        # A slope is a square, so the loss's scale is in it twice.
        self._slopes.append(slope if scale is None else slope / scale.square())
        if pair not in self._measured:
            return
        if place_in_pair == 1:  # The present gradient is g_{t+1}.
            # g_t is overwritten. The optimizer still needs g_{t+1}, which is ``.grad``.
            self._pairs.append(_norms_overwriting_first(self._first, self._gradient(scale)))
            self._first = []
            return
        # The present gradient is g_t. It is copied: an optimizer may change ``.grad`` in place, and
        # GradScaler does.
        self._first = [g.clone() for g in self._gradient(scale)]
        if pair in self._twinned:
            with untouched(self._network):
                next_gradient()
                # g' is overwritten: g_t waits for the second gradient of its pair.
                norms = _norms_overwriting_first(self._gradient(scale), self._first)
                self._twins[len(self._pairs)] = norms

    def _gradient(self, scale: Tensor | None) -> list[Tensor]:
        """``.grad`` by parameter, without the loss's scale; zeros where no gradient came."""
        gradient = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        return gradient if scale is None else list(torch._foreach_div(gradient, scale))

    @np.errstate(all="ignore")  # A gradient may not be finite.
    def noise(self, ranks: Ranks = ALONE) -> tuple[Noise | None, Sequence[Twin]]:
        """C² and ‖∇f‖² with intervals, None without a pair; and the ENOUGH newest twins of the run.

        A pair whose gradients are not finite is left out: fp16's scaler skips such an update.
        ``ranks`` are the processes that share each batch.
        """
        if not self._pairs:
            return None, self._earlier
        slopes, norms = self._read(ranks)
        k = len(self._pairs)
        # Norms of the pairs come first, then norms of the twins, each g_t and g'.
        pairs, at_one_point = _products(norms[:k]), _products(norms[k:])
        new_twins = _compared(pairs.of([*self._twins]), at_one_point)
        twins = [*new_twins, *self._earlier][:ENOUGH]
        # A loop that ended early has fewer pairs than were to be measured.
        finite = np.isfinite(pairs).all(axis=0)
        if not finite.any():
            return None, twins
        measured = np.array(self._measured[:k])[finite]
        sizes = np.array(self._sizes[: 2 * len(slopes)], dtype=float).reshape(-1, 2)
        return _corrected(pairs.of(finite), sizes, measured, slopes, twins), twins

    def _read(self, ranks: Ranks) -> tuple[Values, Values]:
        """The slopes of all pairs (p,), and the norms of the measured pairs, then of the twins.

        The slope of a pair is the sum of its batches' slopes. Norms are (pairs + twins, 3,
        parameters), see ``_norms_overwriting_first``. One copy from the device reads them all.
        """
        batches = len(self._slopes)
        # A row has the three norms of all parameters, of a pair or a twin.
        rows = torch.stack([*self._pairs, *self._twins.values()])
        numbers = torch.cat([torch.stack(self._slopes), rows.flatten()]).double().cpu()
        # A rank has the slope of its own samples; its gradients are those of all ranks already.
        slopes = ranks.sum_(numbers[:batches])
        in_pairs = slopes[: batches // 2 * 2].view(-1, 2)  # A last odd batch is in no pair.
        norms = numbers[batches:].view(len(rows), 3, -1)
        return in_pairs.sum(dim=1).numpy(), norms.numpy()


def _twins_due(batches: int, updates: int) -> int:
    """How many twins an epoch of so many batches has, after so many updates of the run.

    After u updates int(TWINS · u) twins are due in all. An epoch has the twins that become due in
    it, MOST_TWINS at most; so short epochs have their share. The first two epochs have ENOUGH, and
    the others of the first EARLY one at least. Epochs are counted as if all had ``batches``.
    """
    if updates < 2 * batches:
        return ENOUGH
    least = 1 if updates < EARLY * batches else 0
    due = int(TWINS * (updates + batches)) - int(TWINS * updates)
    return max(min(due, MOST_TWINS), least)


def _norms_overwriting_first(gradient: list[Tensor], other: list[Tensor]) -> Tensor:
    """The norms of two gradients and of their difference, (3 · parameters,).

    They are the norms of the first gradient by parameter, then those of the second, then those of
    the difference. The first gradient becomes the difference: new memory would take longer than
    the subtraction.
    """
    norms = torch._foreach_norm([*gradient, *other])
    torch._foreach_sub_(gradient, other)
    return torch.stack([*norms, *torch._foreach_norm(gradient)])


def _products(norms: Values) -> Products:
    """The products of k pairs, from norms (k, 3, parameters) as of ``_norms_overwriting_first``.

    g·h follows from ‖h - g‖² = ‖g‖² + ‖h‖² - 2 g·h.
    """
    # The squared norm of all parameters is the sum of those by parameter.
    first_squares, second_squares, change = np.square(norms).sum(axis=2).T
    total = first_squares + second_squares
    return Products(change, total, (total - change) / 2)


def _compared(pairs: Products, at_one_point: Products) -> list[Twin]:
    """What each twin says of its pair g_t, g_{t+1}: three numbers, see below.

    g' is the gradient of batch t + 1 at x_t, where nothing has moved since g_t.

    - log(‖g' - g_t‖²/‖g_{t+1} - g_t‖²), by which the pair's difference is too large,
    - log(‖g' - g_t‖²/(‖g_t‖² + ‖g_{t+1}‖²)), the same for the sum of both squares,
    - (g_t·g' - g_t·g_{t+1})/‖g_{t+1} - g_t‖², what the product lacks, in units of the difference.

    Twins whose gradients are not finite are left out.

    Args:
        pairs: g_t and g_{t+1} of the pairs that have a twin.
        at_one_point: g_t and g' of the same pairs.
    """
    lacking = (at_one_point.product - pairs.product) / pairs.change
    still = at_one_point.change
    columns = np.log(still / pairs.change), np.log(still / pairs.total), lacking
    return [tuple(row) for row in np.stack(columns, axis=1).tolist() if np.isfinite(row).all()]


def _corrected(
    pairs: Products, sizes: Values, measured: Values, slopes: Values, twins: Sequence[Twin]
) -> Noise:
    """C² and ‖∇f‖² of an epoch, with intervals if there are enough pairs and twins.

    A twin's ‖g' - g_t‖², in which nothing moves, is a multiple of its pair's ‖g_{t+1} - g_t‖², and
    another multiple of ‖g_t‖² + ‖g_{t+1}‖². The multiple that varies less between the twins
    corrects all pairs: with a momentum mostly the first; without one mostly the second, in which
    chance has a smaller share. The mean of the multiples is geometric. What g_t·g_{t+1} lacks
    is added to the mean of the products.

    Args:
        pairs: the k measured ones.
        sizes: (p, 2), of both batches of all p pairs of the epoch.
        measured: (k,) int64, which of all p pairs were measured.
        slopes: (p,), of all pairs.
        twins: the newest, see ``_compared``.
    """
    has_all_twins = len(twins) == ENOUGH
    # Without a twin nothing is corrected: the factor is 1, whose logarithm is 0.
    log_changes, log_totals, lacking = np.array(twins or [(0, 0, 0)]).T
    log_factors, spreads = log_changes, pairs.change
    # The spread of too few twins does not tell which multiple varies less.
    if has_all_twins and log_totals.std() < log_changes.std():
        log_factors, spreads = log_totals, pairs.total
    # A difference of two gradients has the noise C²/b_t + C²/b_{t+1}.
    inverse_sizes = (1 / sizes).sum(axis=1)
    variances = spreads / inverse_sizes[measured]
    mean, error_of_log = _mean_of_all(variances, measured, slopes / inverse_sizes)
    variance = float(mean * np.exp(log_factors.mean()))
    missing_products = lacking * pairs.change.mean()
    square = float(pairs.product.mean() + missing_products.mean())
    interval = square_interval = None
    if len(measured) >= LEAST_PAIRS and has_all_twins:
        # An interval has the error of the pairs and the error of the twins.
        interval = noise.around(variance, error_of_log, _error_of_mean(log_factors))
        half = noise.half_width(_error_of_mean(pairs.product), _error_of_mean(missing_products))
        square_interval = square - half, square + half
    size = round(sizes[measured].mean())
    return Noise(variance, interval, square, size, len(measured), "consecutive", square_interval)


def _mean_of_all(
    variances: Values, measured: Values, slopes: Values
) -> tuple[float, StandardError]:
    """The mean variance of all p pairs, from k measured ones; and the error of its logarithm.

    It is a ratio estimator of two phases (Cochran 1977, chapter 12): the mean of the measured pairs
    over the mean of their slopes, times the mean slope of all pairs. Where slopes would add more
    variance than they take away, all slopes are taken as 1, which leaves the mean of the measured
    pairs alone. The jackknife leaves out one of all p pairs after the other (Rao and Sitter 1995).

    Args:
        variances: (k,), of the measured pairs.
        measured: (k,) int64, which of all p pairs these are.
        slopes: (p,), of all pairs, each divided by 1/b_t + 1/b_{t+1} as the variances are.
    """
    p, k = len(slopes), len(variances)
    known_slopes = slopes[measured]
    # If all pairs are measured, slopes have no effect on the mean. Slopes of 0 say nothing: the
    # model then fits every sample to rounding.
    if not known_slopes.any() or (k < p and not _helps(known_slopes, variances)):
        slopes = np.ones_like(slopes)
    ratio, mean_slope = variances.sum() / slopes[measured].sum(), slopes.mean()
    # The ratio and the mean slope without each pair in turn. The ratio changes only where a
    # measured pair is left out; a row of ``others`` has 0 for that pair and 1 for the others.
    others = 1 - np.eye(k)
    ratios = np.full(p, ratio)
    ratios[measured] = (others @ variances) / (others @ slopes[measured])
    mean_slopes = (slopes.sum() - slopes) / (p - 1)
    error = noise.jackknife(ratios * mean_slopes, ratio * mean_slope)
    return ratio * mean_slope, StandardError(error, k)


def _helps(slopes: Values, variances: Values) -> bool:
    """Whether the ratio of variances to slopes gives a better mean than the variances alone.

    To first order it does if the regression of variances on slopes, cov(s, v)/var(s), is steeper
    than half the ratio r = mean(v)/mean(s) (Cochran 1977, section 6.6). That is cov(s, v - s r/2)
    > 0, since var(s) = cov(s, s).
    """
    half_ratio = variances.sum() / slopes.sum() / 2
    return bool((slopes - slopes.mean()) @ (variances - half_ratio * slopes) > 0)


def _error_of_mean(values: Values) -> StandardError:
    """The standard error s/√n of the mean of n values."""
    return StandardError(values.std(ddof=1) / len(values) ** 0.5, len(values))
