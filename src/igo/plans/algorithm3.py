"""The stages of Algorithm 3: their number M from the accuracy ε, and their lengths."""

import math
from collections.abc import Sequence
from contextlib import suppress

from igo.ground.numbers import POSITIVE, check
from igo.plans import batches
from igo.plans.arguments import Arguments, PlanError
from igo.plans.profiles import CONSTANT

RESOLVED = 100  # A curve of t has as many stages where it would have one.


def alpha_0(
    *,
    learning_rate: float,
    batch_size: float,
    variance: float,
    lipschitz: float,
    width: float,
    sigma: float,
) -> float:
    """α_0 = min{√b_1/(4 L_f η_1 C (1 + d̄)), √b_1/(√(2σ) η_1 C)}. Source: Algorithm 3.

    >>> from igo.plans.algorithm3 import alpha_0
    >>> alpha_0(learning_rate=0.1, batch_size=16, variance=100, lipschitz=1, width=1, sigma=0.5)
    0.5

    Args:
        learning_rate: η_1.
        batch_size: b_1.
        variance: C², as ``igo.measure_noise`` returns it.
        lipschitz: L_f, a bound of ‖∇f‖, such as the largest measured value.
        width: d̄, a bound of every d_m.
        sigma: σ of the new σ-nice function.

    Raises:
        ValueError: an argument is not a finite number above 0.
    """
    check(POSITIVE, **locals())
    delta_1 = learning_rate * math.sqrt(variance / batch_size)
    return min(1 / (4 * lipschitz * (1 + width)), 1 / math.sqrt(2 * sigma)) / delta_1


def stages_for(epsilon: float, alpha_0: float, p: float) -> int:
    """M = ⌈(1/(α_0 ε))^(1/p)⌉, at least 1: the published M^p = 1/(α_0 ε), as a whole number.

    Raises:
        OverflowError: M is too large for a float.
    """
    exact = math.pow(alpha_0 * epsilon, -1 / p)
    return max(1, math.ceil(exact * (1 - 1e-12)))  # Rounding must not add a stage.


def stages_of(args: Arguments) -> int:
    """M: ``stages``, or as ``epsilon`` and ``alpha_0`` choose it, or one for each epoch.

    The epochs of the warm-up do not count. A curve that depends on t would stay where it begins in
    a single stage, so it has RESOLVED ones there, but no more than batches.

    Raises:
        PlanError: ``epsilon`` has no meaning here, or chooses another M than ``stages``.
    """
    if args.epsilon is not None or args.alpha_0 is not None:
        return _stages_by_epsilon(args)
    if args.stages:
        return args.stages
    warm_epochs = args.warmup_samples // args.per_epoch
    epochs = batches.count(args.total, args.per_epoch) - warm_epochs
    if epochs > 1:
        return epochs
    # The stages of Algorithm 3 are the user's: their lengths, and full batches after them.
    is_algorithm3 = args.h is not None or args.final_updates
    depends_on_t = callable(args.sizes) or args.profile not in CONSTANT
    if is_algorithm3 or not depends_on_t:
        return 1
    return max(min(RESOLVED, args.total // args.batch_size), 1)


def _stages_by_epsilon(args: Arguments) -> int:
    """M by ``epsilon`` and ``alpha_0``, where the plan has room for so many stages."""
    epsilon, alpha_0 = args.epsilon, args.alpha_0
    if epsilon is None or alpha_0 is None:
        advice = "it is needed with the other one; igo.plans.algorithm3.alpha_0 gives alpha_0"
        raise PlanError("epsilon" if epsilon is None else "alpha_0", None, advice)
    if args.profile != "graduated":
        advice = "M^p = 1/(α_0 ε) belongs to profile graduated, Algorithm 3; leave it out"
        raise PlanError("epsilon", epsilon, advice)
    stages: float = math.inf
    # M may be beyond the largest float; α_0 ε may be 0 to floats, and so may p.
    with suppress(ArithmeticError, ValueError):
        stages = stages_for(epsilon, alpha_0, args.own["p"])
    limit = args.total // args.batch_size  # Each stage has a batch.
    if stages > limit:
        advice = (
            f"Algorithm 3 needs M = (1/(α_0 ε))^(1/p) = {stages:,} stages for it, and the plan has"
            f" room for {limit:,}; use a larger ε or p, or train longer"
        )
        raise PlanError("epsilon", epsilon, advice)
    if args.stages not in (None, stages):
        advice = f"epsilon chooses {stages}; leave one of them out"
        raise PlanError("stages", args.stages, advice)
    return int(stages)


def lengths_of_stages(
    phis: Sequence[float], sizes: Sequence[float], total: int, h: float
) -> list[float]:
    """The samples of each stage, for updates ∝ 1/(φ_m² - h η_m/η_1): T_F [derived].

    Args:
        phis: φ_m of each stage.
        sizes: b_m of each stage, so that η_m/η_1 = φ_m √(b_m/b_1).
        total: the samples of all stages.
        h: it stands in for H_3 of Algorithm 3, which nobody knows for a network.

    Raises:
        PlanError: φ_m² - h η_m/η_1 is not positive in a stage, so T_F has no meaning; or the
            shortest stage is below one update.
    """
    brackets = []  # ε_m - H_3 η_m but for a factor: the smaller it is, the longer is a stage.
    for m, (phi, size) in enumerate(zip(phis, sizes, strict=True), 1):
        bracket = phi**2 - h * (phi * math.sqrt(size / sizes[0]))
        if bracket <= 0:
            advice = (
                f"φ_{m}² - h η_{m}/η_1 = {bracket:.3g} in stage {m} of {len(phis)}, and Algorithm 3"
                " needs it positive (ε_m > H_3 η_m); use a smaller h or fewer stages"
            )
            raise PlanError("h", h, advice)
        brackets.append(bracket)
    lengths = [size / bracket for size, bracket in zip(sizes, brackets, strict=True)]
    scale = total / math.fsum(lengths)
    fewest_updates = scale / max(brackets)
    if fewest_updates < 1:
        problem = f"the shortest would have {fewest_updates:.2g} updates by h={h:g}"
        raise PlanError("stages", len(phis), f"{problem}; use fewer stages, or train longer")
    return [scale * length for length in lengths]
