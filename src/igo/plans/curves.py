"""The curves of a plan: what the noise, or η, and the batch size are in each stage.

η/η_1 = φ √(b/b_1), so two of the three curves make a plan: φ with a split or with b, or η/η_1 with
b, which may be constant.
"""

import math
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, NamedTuple

from igo.plans import batches
from igo.plans.algorithm3 import lengths_of_stages
from igo.plans.arguments import Arguments, PlanError
from igo.plans.plan import Plan
from igo.plans.profiles import Position, function, name_of

LEAST, MOST = 1e-300, 1e300  # η, φ or b_1/b outside these could underflow to 0, or overflow.


class Stage(NamedTuple):
    """A stage as it is asked for; its batches are not whole yet.

    ``start`` is a sample, from 0. ``factor`` is φ, or η/η_1 where the plan is given by its rate.
    ``share`` is b_1/b, which never rises.
    """

    start: int
    factor: float
    share: float


def stages_of_curves(args: Arguments, starts: Sequence[int]) -> list[Stage]:
    """The stages that begin at these samples, and those that a table of b begins."""
    factors = [1.0] * len(starts)
    if args.clock == "samples":
        factors = _values(args, "rate" if args.rate else "profile", starts)
    if callable(args.sizes):
        shares = [args.batch_size / b for b in _values(args, "batch_size", starts)]
    elif args.sizes or args.rate:
        thresholds = args.thresholds
        all_starts = sorted({*starts, *thresholds})
        factors = [factors[bisect_right(starts, start) - 1] for start in all_starts]
        sizes = [max(b for place, b in thresholds.items() if place <= s) for s in all_starts]
        starts, shares = all_starts, [args.batch_size / b for b in sizes]
    else:  # b = b_1 φ^(-2(1-s)) is the split rule [derived from δ = η √(C²/b)]
        power = 2 * (1 - args.split)
        shares = [max(math.pow(factor, power), LEAST) for factor in accumulate(factors, min)]
    # b never shrinks: a smaller batch would bring back noise that is gone. Where the curve rises
    # again, η alone follows it.
    shares = [_on_grid(args, share) for share in accumulate(shares, min)]
    if args.h is not None:
        starts = _lengthened(args, args.h, factors, shares)
    return list(map(Stage, starts, factors, shares))


def _on_grid(args: Arguments, share: float) -> float:
    """b_1/b where b is b_1 times the nearest power of ``batch_ratio``, at most what is allowed."""
    ratio = args.batch_ratio
    if ratio == 1:
        return share
    power, most = math.log(1 / share, ratio), math.log(args.largest / args.batch_size, ratio)
    # A half is rounded up on every machine.
    return math.pow(ratio, -math.floor(min(power + 0.5, most) + batches.CLOSE))


def _lengthened(
    args: Arguments, h: float, factors: Sequence[float], shares: Sequence[float]
) -> list[int]:
    """The samples at which stages begin whose updates are ∝ 1/(φ_m² - h η_m/η_1)."""
    if args.profile == "exponential":
        raise PlanError("h", h, "it needs a profile other than exponential, which counts epochs")
    sizes = [min(args.batch_size / share, args.largest) for share in shares]
    lengths = lengths_of_stages(factors, sizes, args.total - args.warmup_samples, h)
    ends = accumulate(lengths[:-1])
    return [0, *(args.warmup_samples + round(end) for end in ends)]


# The argument of ``plan`` for a curve: its symbol, and its range in words and as two numbers.
CURVES = {
    "profile": ("φ", "(0, 1]", LEAST, 1),
    "rate": ("η/η_1", "(0, ∞)", LEAST, MOST),
    "batch_size": ("b", "[1, ∞)", 1, MOST),
}


def _values(args: Arguments, argument: str, starts: Sequence[int]) -> list[float]:
    """A curve's value at the start of each stage; ``argument`` is its name in ``plan``."""
    curve, parameters = function(args.profile), args.own
    if argument == "batch_size" and callable(args.sizes):
        curve, parameters = args.sizes, {}
    name = name_of(curve)
    n, warmup, values = args.per_epoch, args.warmup_samples, list[float]()
    by_epochs = not any(start % n for start in (*starts, args.total))
    for m, start in enumerate(starts, 1):
        # The epochs of the warm-up are not counted.
        epochs_before = start // n - warmup // n if by_epochs else (start - warmup) / n
        position = Position(m, len(starts), max(epochs_before, 0))
        values.append(_checked(argument, name, position, curve(position, **parameters)))
        if argument == "batch_size" and values[-1] < max(values) * (1 - batches.CLOSE):
            problem = f"b is {values[-1]:g} in stage {m} of {len(starts)}, after {max(values):g}"
            raise PlanError(argument, name, f"{problem}; it never shrinks")
    return values


def rates_of_updates(args: Arguments, plan: Plan) -> Sequence[float]:
    """η/η_1 of each update, by the share of the updates before it; the warm-up has its own."""
    curve, name, warmup = function(args.profile), name_of(args.profile), args.warmup_samples
    warm_updates = plan.after(warmup - 1) + 1 if warmup else 0  # They begin before its end.
    total = max(plan.updates - warm_updates, 1)
    rates = array("d")
    for number, samples_before in enumerate(plan.starts()):
        epochs_before = max(samples_before - warmup, 0) / plan.n
        position = Position(max(number - warm_updates, 0) + 1, total, epochs_before)
        rates.append(_checked("rate", name, position, curve(position, **args.own), number + 1))
    return rates


def _checked(
    argument: str, name: str, position: Position, result: Any, update: int | None = None
) -> float:
    """What a curve returned for a stage, or for an update, as a number in the curve's range."""
    symbol, interval, lowest, highest = CURVES[argument]
    if position.m > 1 and type(result) is float and lowest <= result <= highest:
        return result  # A plan may have millions of updates, and what follows takes its time.
    value = math.nan
    with suppress(TypeError, ValueError):
        value = float(result)
    stage_text = f"in update {update:,}" if update else f"in stage {position.m} of {position.M}"
    if math.isnan(value):
        fault = f"at t = {position:g} it returned {result!r}; {symbol} is a number in {interval}"
    # φ is relative to stage 1: with another number there, η_1 and b_1 would not be those given.
    elif position.m == 1 and argument != "batch_size" and not math.isclose(value, 1, rel_tol=1e-9):
        cure = f"divide {symbol} by its value at t = 0"
        fault = f"{symbol} is {value:g} {stage_text} and must be 1; {cure}"
    # Schedulers of PyTorch's may end at 0.
    elif lowest <= value <= highest or (update and value == 0 and position.m == position.M):
        return value
    else:
        fault = f"{symbol} is {value:g} {stage_text} and must be in {interval}"
        if update:
            fault += "; it may be 0 in the last update alone"
        elif value < lowest < 1:
            fault += "; use fewer stages or a slower decay"
        elif argument == "profile":
            fault += "; it may not rise above its start"
    raise PlanError(argument, name, fault)
