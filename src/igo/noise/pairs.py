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
PAIRS = 32  # A long epoch measures so many.
LEAST_PAIRS = 8  # An interval needs so many.
TWINS = 0.015  # the share of a run's gradients that are twins
MOST_TWINS = 2  # An epoch has at most so many after the first two, which have ENOUGH.
ENOUGH = 4  # twins; a correction is the mean of so many
EARLY = 10  # epochs of fast movement, each of which has one twin at least
Values = np.ndarray  # one for each pair or twin


class Products(NamedTuple):
    """What is known of k pairs of gradients g_t, g_{t+1}: (k,) float64 each."""

    change: Values  # ‖g_{t+1} - g_t‖²
    total: Values  # ‖g_t‖² + ‖g_{t+1}‖²
    product: Values  # g_t·g_{t+1}

    def of(self, rows: Any) -> Products:
        """Those of some pairs, by indices or by a mask."""
        return Products(*(values[rows] for values in self))


class Twin(NamedTuple):
    """What g', batch t + 1's gradient at x_t, says of a pair g_t, g_{t+1}."""

    log_change: float  # log(‖g' - g_t‖²/‖g_{t+1} - g_t‖²)
    log_total: float  # log(‖g' - g_t‖²/(‖g_t‖² + ‖g_{t+1}‖²))
    lacking: float  # (g_t·g' - g_t·g_{t+1})/‖g_{t+1} - g_t‖²


class Pairs:
    """C² and ‖∇f‖² of an epoch, from disjoint pairs of consecutive gradients g_t, g_{t+1}.

    At one point C² is the mean of ‖g_{t+1} - g_t‖²/(1/b_t + 1/b_{t+1}), and ‖∇f‖² that of
    g_t·g_{t+1} [derived]. But the update between the two moves the parameters, which makes the
    first too large and the second too small. So some pairs have a twin: g_t with the gradient of
    batch t + 1 at the same point, taken before the update. It says what the movement changes, see
    ``Twin`` and ``_corrected`` (docs/noise.md).

    A long epoch measures few pairs. The slope of a batch, which is the squared norm of its loss's
    gradient by the model's outputs, says how noisy it is. Each update computes it anyway. So slopes
    carry C² from the measured pairs to all.

    Two gradients are kept, and three norms for each pair, twin and parameter. They stay on the
    device until ``noise``.

    Args:
        network: whose gradients are read.
        batches: k of the epoch. Of LONG or more, PAIRS evenly spread pairs are measured.
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
        # Pair p, counted from 0, is of the batches 2p and 2p + 1, counted from 0. Those that are
        # measured are spread evenly over all that the epoch could have.
        possible = batches // 2
        count = possible if batches < LONG else PAIRS
        self._measured = [place * possible // count for place in range(count)]
        # They are cut into equal parts, and the pair in the middle of each has a twin. Without
        # earlier twins, as in a first epoch, the epoch has all that a correction needs.
        twins = min(_twins_due(batches, updates) if self._earlier else ENOUGH, count)
        middles = [(2 * part + 1) * count // (2 * twins) for part in range(twins)]
        self._twinned = {self._measured[middle] for middle in middles}
        # Every batch of the epoch has its size, and its slope without the loss's scale.
        self._sizes: list[int] = []
        self._slopes: list[Tensor] = []
        self._first: list[Tensor] = []  # It is g_t, between the updates of a measured pair.
        # These are norms, see _norms_overwriting_first. Those of a twin have the place of its pair
        # in _pairs as their key.
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
        pair, place_in_pair = divmod(len(self._sizes), 2)
        self._sizes.append(size)
        self._slopes.append(slope if scale is None else slope / scale.square())
        if pair not in self._measured:
            return
        if place_in_pair == 1:
            # The first argument is overwritten, and the optimizer still needs ``.grad``.
            self._pairs.append(_norms_overwriting_first(self._first, self._gradient(scale)))
            self._first = []
            return
        # An optimizer may change gradients in place, and GradScaler does.
        self._first = [g.clone() for g in self._gradient(scale)]
        if pair in self._twinned:
            with untouched(self._network):
                next_gradient()
                # Here g' is overwritten: g_t waits for the second gradient of its pair.
                norms = _norms_overwriting_first(self._gradient(scale), self._first)
                self._twins[len(self._pairs)] = norms

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
        k = len(self._pairs)
        pairs, at_one_point = _products(norms[:k]), _products(norms[k:])
        new_twins = _compared(pairs.of([*self._twins]), at_one_point)
        twins = [*new_twins, *self._earlier][:ENOUGH]
        finite = np.isfinite(pairs).all(axis=0)
        if not finite.any():
            return None, twins
        measured = np.array(self._measured[:k])[finite]
        sizes = np.array(self._sizes[: 2 * len(slopes)], dtype=float).reshape(-1, 2)
        return _corrected(pairs.of(finite), sizes, measured, slopes, twins), twins

    def _read(self, ranks: Ranks) -> tuple[Values, Values]:
        """The slopes of all pairs (p,), and the norms of the measured ones, then of their twins.

        Norms are (pairs + twins, 3, parameters), see ``_norms_overwriting_first``. All are read by
        one copy from the device.
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


def _norms_overwriting_first(gradient: list[Tensor], other: list[Tensor]) -> Tensor:
    """The norms of two gradients and of their difference by parameter, (3 · parameters,).

    The first gradient becomes the difference: new memory would take longer than the subtraction.
    """
    norms = torch._foreach_norm([*gradient, *other])
    torch._foreach_sub_(gradient, other)
    return torch.stack([*norms, *torch._foreach_norm(gradient)])


def _products(norms: Values) -> Products:
    """What norms (k, 3, parameters) of k pairs say, see ``_norms_overwriting_first``."""
    first_squares, second_squares, change = np.square(norms).sum(axis=2).T
    total = first_squares + second_squares
    return Products(change, total, (total - change) / 2)


def _compared(pairs: Products, at_one_point: Products) -> list[Twin]:
    """What twins say of their pairs, without those whose gradients are not finite.

    Args:
        pairs: those that have a twin, g_t and g_{t+1}.
        at_one_point: g_t and g' of each of these.
    """
    lacking = (at_one_point.product - pairs.product) / pairs.change
    still = at_one_point.change
    columns = np.log(still / pairs.change), np.log(still / pairs.total), lacking
    return [Twin(*row) for row in np.stack(columns, axis=1).tolist() if np.isfinite(row).all()]


def _corrected(
    pairs: Products, sizes: Values, measured: Values, slopes: Values, twins: Sequence[Twin]
) -> Noise:
    """C² and ‖∇f‖² of an epoch, with intervals if there are enough pairs and twins.

    A twin's ‖g' - g_t‖², in which nothing moves, is a multiple of its pair's ‖g_{t+1} - g_t‖², and
    another one of ‖g_t‖² + ‖g_{t+1}‖². The multiple that varies less between the twins corrects all
    pairs: with a momentum mostly the first; without one mostly the second, which has less chance of
    its own. Its mean is geometric. What g_t·g_{t+1} lacks is added to its mean.

    Args:
        pairs: the k measured ones.
        sizes: (p, 2), of both batches of all pairs that the epoch could have.
        measured: (k,) int64, which of all p pairs were measured.
        slopes: (p,), of all pairs.
        twins: the newest.
    """
    has_all_twins = len(twins) == ENOUGH
    log_changes, log_totals, lacking = np.array(twins or [Twin(0, 0, 0)]).T
    log_factors, spreads = log_changes, pairs.change
    if has_all_twins and log_totals.std() < log_changes.std():
        log_factors, spreads = log_totals, pairs.total
    inverse_sizes = (1 / sizes).sum(axis=1)
    variances = spreads / inverse_sizes[measured]
    mean, error_of_log = _mean_of_all(variances, measured, slopes / inverse_sizes)
    variance = float(mean * np.exp(log_factors.mean()))
    missing_products = lacking * pairs.change.mean()
    square = float(pairs.product.mean() + missing_products.mean())
    interval = square_interval = None
    if len(measured) >= LEAST_PAIRS and has_all_twins:
        # An interval has the error of the pairs and that of the twins.
        interval = noise.around(variance, error_of_log, _error_of_mean(log_factors))
        errors = _error_of_mean(pairs.product), _error_of_mean(missing_products)
        half = noise.half_width(*errors)
        square_interval = square - half, square + half
    size = round(sizes[measured].mean())
    return Noise(variance, interval, square, size, len(measured), "consecutive", square_interval)


def _mean_of_all(
    variances: Values, measured: Values, slopes: Values
) -> tuple[float, StandardError]:
    """The mean variance of all p pairs, from k measured ones; and the error of its logarithm.

    It is a ratio estimator of two phases (Cochran 1977, chapter 12): the mean of the measured pairs
    over the mean of their slopes, times the mean slope of all pairs. The jackknife leaves out one
    of all pairs after the other (Rao and Sitter 1995). Where slopes would add more variance than
    they take away, the mean is that of the measured pairs alone.
    """
    p, k = len(slopes), len(variances)
    known_slopes = slopes[measured]
    # If all pairs are measured, slopes have no effect on the mean. Slopes of 0 say nothing: the
    # model then fits every sample to rounding.
    if not known_slopes.any() or (k < p and not _helps(known_slopes, variances)):
        slopes = np.ones_like(slopes)
    ratio, mean_slope = variances.sum() / slopes[measured].sum(), slopes.mean()
    others = 1 - np.eye(k)  # Each row leaves out one of the measured pairs.
    ratios = np.full(p, ratio)
    ratios[measured] = (others @ variances) / (others @ slopes[measured])
    mean_slopes = (slopes.sum() - slopes) / (p - 1)
    error = noise.jackknife(ratios * mean_slopes, ratio * mean_slope)
    return ratio * mean_slope, StandardError(error, k)


def _helps(slopes: Values, variances: Values) -> bool:
    """Whether a ratio to the slopes varies less than the variances do.

    To first order it does if their regression on the slopes is steeper than half of their ratio,
    that is if their correlation is above half of the slopes' relative spread over the variances'
    (Cochran 1977, section 6.6).
    """
    half_ratio = variances.sum() / slopes.sum() / 2
    return bool((slopes - slopes.mean()) @ (variances - half_ratio * slopes) > 0)


def _error_of_mean(values: Values) -> StandardError:
    return StandardError(values.std(ddof=1) / len(values) ** 0.5, len(values))
