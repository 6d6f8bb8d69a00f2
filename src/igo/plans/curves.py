"""The curves of a plan: what the noise, or η, and the batch size are in each stage.

η/η_1 = φ √(b/b_1), so two of the three curves make a plan: φ with a split or with b/b_1, or η/η_1
with or without b/b_1.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, NamedTuple

from igo.plans import batches
from igo.plans.algorithm3 import lengths_of_stages
from igo.plans.arguments import Arguments, PlanError
from igo.plans.profiles import Position, Profile, function, name_of

LEAST, MOST = 1e-300, 1e300  # η, φ or b_1/b outside these could underflow to 0, or overflow.


class Stage(NamedTuple):
    """A stage as it is asked for; its batches are not whole yet.

    ``start`` is a sample, from 0. ``level`` is φ, or η/η_1 where the plan is given by its rate.
    ``share`` is b_1/b, which never rises.
    """

    start: int
    level: float
    share: float


def stages_of_curves(args: Arguments, starts: Sequence[int]) -> list[Stage]:
    """The stages that begin at these samples, and those that a table of b/b_1 begins."""
    levels = _values(args, "rate" if args.rate else "profile", starts)
    growth = args.growth
    if growth is None and args.rate:
        shares = [1.0] * len(starts)
    elif growth is None:  # b = b_1 φ^(-2(1-s)) is the split rule [derived from δ = η √(C²/b)]
        power = 2 * (1 - args.split)
        shares = [max(math.pow(level, power), LEAST) for level in accumulate(levels, min)]
    elif callable(growth):
        shares = [1 / value for value in _values(args, "growth", starts)]
    else:
        later_samples = args.total - args.warmup_samples
        # A step at the very start would leave the first stage without a sample.
        steps = {
            args.warmup_samples + max(round(t * later_samples), 1): b for t, b in growth.items()
        }
        all_starts = sorted({*starts, *steps})
        levels = [levels[bisect_right(starts, start) - 1] for start in all_starts]
        growths = [
            max((b for step, b in steps.items() if step <= s), default=1.0) for s in all_starts
        ]
        starts, shares = all_starts, [1 / b for b in growths]
    # b never shrinks: a smaller batch would bring back noise that is gone. Where the curve rises
    # again, η alone follows it.
    shares = [_on_grid(args, share) for share in accumulate(shares, min)]
    if args.h is not None:
        starts = _lengthened(args, args.h, levels, shares)
    return [Stage(*stage) for stage in zip(starts, levels, shares, strict=True)]


def _on_grid(args: Arguments, share: float) -> float:
    """b_1/b where b is at most ``max_batch_size``, and b_1 times a power of ``batch_ratio``."""
    ratio = args.batch_ratio
    if ratio == 1:
        return share
    # The power is rounded down, because one above the wish could pass max_batch_size.
    power = math.log(min(1 / share, args.largest / args.batch_size)) / math.log(ratio)
    return math.pow(ratio, -math.floor(power + batches.CLOSE))


def _lengthened(
    args: Arguments, h: float, levels: Sequence[float], shares: Sequence[float]
) -> list[int]:
    """The samples at which stages begin whose updates are ∝ 1/(φ_m² - h η_m/η_1)."""
    if args.profile == "exponential":
        raise PlanError("h", h, "it needs a profile other than exponential, which counts epochs")
    sizes = [min(args.batch_size / share, args.largest) for share in shares]
    lengths = lengths_of_stages(levels, sizes, args.total - args.warmup_samples, h)
    ends = accumulate(lengths[:-1])
    return [0, *(args.warmup_samples + round(end) for end in ends)]


# The argument of ``plan`` for a curve: its symbol, and its range in words and as two numbers.
CURVES = {
    "profile": ("φ", "(0, 1]", LEAST, 1),
    "rate": ("η/η_1", "(0, ∞)", LEAST, MOST),
    "growth": ("b/b_1", "[1, ∞)", 1, MOST),
}


def _values(args: Arguments, argument: str, starts: Sequence[int]) -> list[float]:
    """A curve's value at the start of each stage; ``argument`` is its name in ``plan``."""
    curve: Profile = function(args.profile)
    name, parameters = name_of(args.profile), args.own
    if argument == "growth" and callable(args.growth):
        curve, name, parameters = args.growth, name_of(args.growth), {}
    n, warmup, values = args.per_epoch, args.warmup_samples, []
    by_epochs = not any(start % n for start in (*starts, args.total))  # stages of whole epochs
    for m, start in enumerate(starts, 1):
        # The epochs of the warm-up are not counted.
        epochs_before = start // n - warmup // n if by_epochs else (start - warmup) / n
        position = Position(m, len(starts), max(epochs_before, 0))
        values.append(_checked(argument, name, position, curve(position, **parameters)))
    return values


def _checked(argument: str, name: str, position: Position, result: Any) -> float:
    """What a curve returned for a stage, as a number in the curve's range."""
    symbol, interval, lowest, highest = CURVES[argument]
    value = math.nan
    with suppress(TypeError, ValueError):
        value = float(result)
    place = f"in stage {position.m} of {position.M}"
    if math.isnan(value):
        fault = f"at t = {position:g} it returned {result!r}; {symbol} is a number in {interval}"
    # φ is relative to stage 1: with another number there, η_1 and b_1 would not be those given.
    elif position.m == 1 and not math.isclose(value, 1, rel_tol=1e-9):
        cure = f"divide {symbol} by its value at t = 0"
        fault = f"{symbol} is {value:g} in stage 1 and must be 1; {cure}"
    elif lowest <= value <= highest:
        return value
    elif argument == "profile":
        cure = "use fewer stages or a slower decay"
        if value > 1:
            cure = "φ may not rise above φ(0) = 1"
        fault = (
            f"its noise level is δ_{position.m} = {value:g} δ_1 {place}, and δ_m/δ_1 must be in"
            f" (0, 1]; {cure}"
        )
    else:
        fault = f"{symbol} is {value:g} {place} and must be in {interval}"
    raise PlanError(argument, name, fault)
