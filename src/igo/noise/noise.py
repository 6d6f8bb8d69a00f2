"""C², the variance of a one-sample stochastic gradient, and the noise level δ that follows.

δ = η √(C²/b) is how strongly SGD smooths the loss (slides, "SGD's smoothing property"). The
formulas here take numbers; igo.noise.measure takes gradients.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # The import of scipy.stats would take half a second.

from igo.ground.numbers import BELOW_ONE, NOT_NEGATIVE, POSITIVE, check

SAMPLINGS = ("with_replacement", "independent", "disjoint")
MOST_TOO_LARGE = 1.05  # C² of independent batches may be so many times too large.
ROUNDING = 1e-12  # A sum that is so small a share of another counts as 0.
LEAST_FOR_INTERVAL = 3  # The jackknife leaves one batch out, and a variance needs two.
Interval = tuple[float, float]  # its lower and its upper end


class StandardError(NamedTuple):
    """The standard error of an estimate, and the number of terms from which it is estimated.

    Terms that weigh unequally count as fewer, so their number need not be whole.
    """

    value: float
    terms: float


@dataclass(frozen=True)
class Noise:
    """A measurement of C² and ‖∇f‖².

    >>> igo.Noise(1280.0, None, 0.5, batch_size=32, batches=8, sampling="disjoint").noise_scale
    2560.0

    ``variance`` is C², (loss per parameter)². ``gradient_square`` is the estimate of ‖∇f‖², which
    chance can make negative. Intervals are of 95 %. That of C² is None for too few batches; that of
    ‖∇f‖² is None but for an epoch's mean. They were measured with K = ``batches`` of
    b = ``batch_size`` samples, drawn as ``sampling`` says.
    """

    variance: float
    variance_interval: Interval | None
    gradient_square: float
    batch_size: int
    batches: int
    sampling: str
    square_interval: Interval | None = None

    @property
    def gradient_norm(self) -> float:
        """‖∇f‖, loss per parameter; 0 if the estimate of its square is negative."""
        return math.sqrt(max(self.gradient_square, 0.0))

    @property
    def norm_interval(self) -> Interval | None:
        """The 95 % interval of ‖∇f‖."""
        if self.square_interval is None:
            return None
        low, high = self.square_interval  # Chance can make them negative.
        return math.sqrt(max(low, 0.0)), math.sqrt(max(high, 0.0))

    @property
    def noise_scale(self) -> float | None:
        """B_simple = tr Σ/‖∇f‖² in samples (McCandlish et al. 2018); None without a ‖∇f‖."""
        return self.variance / self.gradient_square if self.gradient_square > 0 else None

    @property
    def scale_interval(self) -> Interval | None:
        """An interval of B_simple, from the 95 % intervals of C² and of ‖∇f‖²."""
        variance, square = self.variance_interval, self.square_interval
        if not (variance and square and square[1] > 0):
            return None
        # Opposite ends are divided. Where the errors of both logarithms are normal, this interval
        # has 95 % or more, however the errors are correlated.
        high = variance[1] / square[0] if square[0] > 0 else math.inf
        return variance[0] / square[1], high


def noise_level(
    learning_rate: float,
    batch_size: float,
    variance: float,
    *,
    optimizer: str = "sgd",
    momentum: float = 0.0,
    gradient_norm: float | None = None,
) -> float:
    """δ, how strongly SGD smooths the loss: in units of the parameter norm, as published.

    >>> round(igo.noise_level(0.1, 32, 1280), 3)  # η = 0.1, b = 32, the paper's C² = 1280
    0.632

    SGD: η √(C²/b) (slides). Heavy ball: η √((1 + β̂) C²/b + β̂ K²), β̂ = β(β² - β + 1)/(1 - β)².
    Normalised heavy ball: η √(C²/b + 4β²(C²/b + K²)) (arXiv 2402.02325, 2412.11501). None has a
    finite-sample factor.

    Args:
        learning_rate: η.
        batch_size: b, in samples; of a stage its mean b_m, which need not be whole.
        variance: C², as ``igo.measure_noise(…).variance``.
        optimizer: ``sgd``, ``shb`` (torch.optim.SGD with momentum) or ``nshb`` (the same with
            dampening = momentum).
        momentum: β in [0, 1).
        gradient_norm: K = ‖∇f‖, needed with a momentum: ``igo.measure_noise(…).gradient_norm``.

    Raises:
        ValueError: an unknown optimizer, a momentum with optimizer="sgd" or outside [0, 1), a
            momentum without ``gradient_norm``, a batch size that is not above 0, or another number
            that is below 0 or not finite.
    """
    check(POSITIVE, batch_size=batch_size)
    check(NOT_NEGATIVE, learning_rate=learning_rate, variance=variance, gradient_norm=gradient_norm)
    check(BELOW_ONE, momentum=momentum)
    if optimizer not in ("sgd", "shb", "nshb"):
        raise ValueError(f"optimizer={optimizer!r}: it must be sgd, shb or nshb")
    refuse(
        optimizer == "sgd" and momentum,
        f'momentum={momentum} has no effect with optimizer="sgd": use optimizer="shb", which is'
        ' torch.optim.SGD with momentum, or "nshb"',
    )
    refuse(
        momentum and gradient_norm is None,
        "gradient_norm is missing: δ with a momentum depends on ‖∇f‖",
    )
    batch_variance = variance / batch_size
    k_squared = (gradient_norm or 0.0) ** 2
    if optimizer == "shb":
        beta_hat = momentum * (momentum**2 - momentum + 1) / (1 - momentum) ** 2
        square = (1 + beta_hat) * batch_variance + beta_hat * k_squared
    else:  # nshb, and sgd, which has β = 0 and so C²/b alone.
        square = batch_variance + 4 * momentum**2 * (batch_variance + k_squared)
    return learning_rate * math.sqrt(square)


def refuse(is_wrong: object, words: str) -> None:
    """Raise a ValueError with these words if ``is_wrong`` is true, or not 0, None or empty."""
    if is_wrong:
        raise ValueError(words)


def from_spreads(
    spreads: Sequence[float],
    mean_square: float,
    *,
    batch_size: int,
    n: int,
    sampling: str = "disjoint",
    own_noise: bool = True,
) -> Noise:
    """Unbiased C² and ‖∇f‖² from ‖g_k - ḡ‖² of each of K mini-batches, and ‖ḡ‖².

    C² = b · Σ‖g_k - ḡ‖²/(K - 1) · F, and ‖∇f‖² = ‖ḡ‖² - C²/(bK) · G. Batches drawn without
    replacement vary less, and disjoint ones are not independent. F undoes this in C², and G in the
    part of ‖ḡ‖² that is noise (Cochran 1977, Sampling Techniques, chapter 2). F and G are

    - ``with_replacement``: 1 and 1,
    - ``independent``, each batch drawn from all n: (n - 1)/(n - b) and (n - b)/(n - 1),
    - ``disjoint``, all batches pieces of one epoch: (n - 1)/n and (n - bK)/(n - 1).

    These values are right for the noise by which samples differ. For the noise that each sample has
    of its own, both F and G are 1. K batches do not tell one noise from the other. So with
    ``own_noise``

    - ``with_replacement`` is exact,
    - ``independent`` makes C² too large by F at most; an F above MOST_TOO_LARGE is refused,
    - ``disjoint`` keeps F = (n - 1)/n and takes G = 1: C² and ‖∇f‖² are each too small by C²/n at
      most.

    The interval is a jackknife of log C² over batches, with Student's t of K - 1 degrees. It is
    wider than needed if disjoint batches are a large part of all n samples.

    Args:
        spreads: ‖g_k - ḡ‖² of each batch.
        mean_square: ‖ḡ‖².
        batch_size: b, samples of each batch.
        n: samples that the batches were drawn from.
        sampling: how, one of SAMPLINGS.
        own_noise: whether a sample's gradient varies at the same parameters, as by augmentation,
            dropout, or BatchNorm's other samples.

    Raises:
        ValueError: fewer than two batches, an unknown sampling, disjoint batches of more than n
            samples, or independent batches of all n samples, which are equal, or of many of them
            with ``own_noise``.
    """
    k, b = len(spreads), batch_size
    refuse(k < 2, f"batches={k}: a variance needs 2 or more")
    choices = f"it must be one of {', '.join(SAMPLINGS)}"
    refuse(sampling not in SAMPLINGS, f"sampling={sampling!r}: {choices}")
    factor = factor_of_mean = 1.0  # F and G, of batches drawn with replacement
    if sampling == "disjoint":
        refuse(k * b > n, f"batches={k} of {b} samples: disjoint pieces need at most n={n} samples")
        factor = (n - 1) / n
        if not own_noise:
            factor_of_mean = (n - b * k) / (n - 1)
    elif sampling == "independent":
        refuse(b >= n, f"batch_size={b}: it must be below n={n}, or batches are equal")
        factor, factor_of_mean = (n - 1) / (n - b), (n - b) / (n - 1)
        refuse(
            own_noise and factor > MOST_TOO_LARGE,
            f"own_noise=True: C² of independent batches of {b} of {n} samples could be"
            f" {factor:.3g} times too large; measure disjoint batches, or set own_noise=False if a"
            " sample's gradient is fixed",
        )
    total = math.fsum(spreads)
    variance = b * total / (k - 1) * factor
    square = mean_square - variance / (b * k) * factor_of_mean
    interval = None
    if k >= LEAST_FOR_INTERVAL:
        # Σ‖g - ḡ‖² of all batches but one, about their own mean: without batch k this mean is
        # ḡ - (g_k - ḡ)/(K - 1). So the sum lacks ‖g_k - ḡ‖² and ‖g_k - ḡ‖²/(K - 1), together
        # ‖g_k - ḡ‖² K/(K - 1).
        sums_without_one = [total - spread * (k / (k - 1)) for spread in spreads]
        error = jackknife(sums_without_one, total)
        interval = around(variance, StandardError(error, k))
    return Noise(variance, interval, square, b, k, sampling)


def jackknife(estimates: Sequence[float] | NDArray[np.float64], estimate: float) -> float:
    """The standard error of log ``estimate``; infinite if one term is nearly all of the estimate.

    For K = 8 the interval from it covers the true value in 92 to 96 % without heavy tails, and
    less with them: about 73 % for a gradient norm of tail index 3.

    Args:
        estimates: K, each without one of the K terms.
        estimate: from all of them, 0 or above.
    """
    k = len(estimates)
    # Without a term that is nearly all of it, the estimate is 0 up to rounding, and has no
    # logarithm. Gradients that are not finite give NaN, of which each comparison is false.
    if not (np.min(estimates) > ROUNDING * estimate and np.max(estimates) < math.inf):
        return math.inf
    # The error of a sum of squares is a factor, so it is computed for the logarithm. Then no
    # interval reaches below 0.
    logs = np.log(estimates)
    return math.sqrt((k - 1) / k * float(np.square(logs - logs.mean()).sum()))


def half_width(*errors: StandardError) -> float:
    """Half the 95 % interval of a sum of independent estimates with these errors.

    Half the interval of one is t · error, with Student's t of (terms - 1) degrees. Independent
    halves add like their variances: the root of the sum of their squares.
    """
    return math.hypot(*(float(stdtrit(terms - 1, 0.975)) * error for error, terms in errors))


def around(value: float, *errors: StandardError) -> Interval:
    """The 95 % interval of a value above 0, from independent errors of its logarithm."""
    half = half_width(*errors)
    if half > 700:  # Beyond it exp overflows.
        return (0.0, math.inf)
    return value * math.exp(-half), value * math.exp(half)
