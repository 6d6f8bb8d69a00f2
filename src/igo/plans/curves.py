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

LEAST, MOST = 1e-300, 1e300  # η, φ and b_1/b outside could underflow to 0, or overflow


class Stage(NamedTuple):
    """A stage as it is asked for; its batches are not whole yet.

    ``start`` is a sample, from 0. ``level`` is φ, or η/η_1 where the plan is given by its rate.
    ``share`` is b_1/b, which never rises.
    """

    start: int
    level: float
    share: float


def stages_of_curves(given: Arguments, starts: Sequence[int]) -> list[Stage]:
    """The stages that begin at these samples, and those that a table of b/b_1 begins."""
    levels = _values(given, "rate" if given.rate else "profile", starts)
    growth = given.growth
    if growth is None and given.rate:
        shares = [1.0] * len(starts)
    elif growth is None:  # b = b_1 φ^(-2(1-s)) is the split rule [derived from δ = η √(C²/b)]
        power = 2 * (1 - given.split)
        shares = [max(math.pow(level, power), LEAST) for level in accumulate(levels, min)]
    elif callable(growth):
        shares = [1 / value for value in _values(given, "growth", starts)]
    else:
        left = given.total - given.warmup_samples
        # A step at the very start would leave the first stage without a sample.
        steps = {given.warmup_samples + max(round(t * left), 1): b for t, b in growth.items()}
        merged = sorted({*starts, *steps})
        levels = [levels[bisect_right(starts, start) - 1] for start in merged]
        reached = [max((b for at, b in steps.items() if at <= s), default=1.0) for s in merged]
        starts, shares = merged, [1 / b for b in reached]
    # b never shrinks: a smaller batch would bring back noise that is gone. Where the curve rises
    # again, η alone follows it.
    shares = [_on_grid(given, share) for share in accumulate(shares, min)]
    if given.h is not None:
        starts = _lengthened(given, given.h, levels, shares)
    return [Stage(*each) for each in zip(starts, levels, shares, strict=True)]


def _on_grid(given: Arguments, share: float) -> float:
    """b_1/b where b is at most ``max_batch_size``, and b_1 times a power of ``batch_ratio``."""
    ratio = given.batch_ratio
    if ratio == 1:
        return share
    # Rounded down, because a power above the wish could pass max_batch_size.
    power = math.log(min(1 / share, given.largest / given.batch_size)) / math.log(ratio)
    return math.pow(ratio, -math.floor(power + batches.CLOSE))


def _lengthened(
    given: Arguments, h: float, levels: Sequence[float], shares: Sequence[float]
) -> list[int]:
    """The samples at which stages begin whose updates are ∝ 1/(φ_m² - h η_m/η_1)."""
    if given.profile == "exponential":
        raise PlanError("h", h, "it needs a profile other than exponential, which counts epochs")
    sizes = [min(given.batch_size / share, given.largest) for share in shares]
    lengths = lengths_of_stages(levels, sizes, given.total - given.warmup_samples, h)
    ends = accumulate(lengths[:-1])
    return [0, *(given.warmup_samples + round(end) for end in ends)]


CURVES = {  # by its argument of ``plan`` a curve's symbol and range: in words, least and most
    "profile": ("φ", "(0, 1]", LEAST, 1),
    "rate": ("η/η_1", "(0, ∞)", LEAST, MOST),
    "growth": ("b/b_1", "[1, ∞)", 1, MOST),
}


def _values(given: Arguments, argument: str, starts: Sequence[int]) -> list[float]:
    """A curve's value at the start of each stage; ``argument`` is its name in ``plan``."""
    curve: Profile = function(given.profile)
    name, own = name_of(given.profile), given.own
    if argument == "growth" and callable(given.growth):
        curve, name, own = given.growth, name_of(given.growth), {}
    n, warmup, values = given.per_epoch, given.warmup_samples, []
    whole = not any(start % n for start in (*starts, given.total))  # stages of whole epochs
    for m, start in enumerate(starts, 1):
        # epochs before the stage, without those of the warm-up
        before = start // n - warmup // n if whole else (start - warmup) / n
        at = Position(m, len(starts), max(before, 0))
        values.append(_checked(argument, name, at, curve(at, **own)))
    return values


def _checked(argument: str, name: str, at: Position, returned: Any) -> float:
    """What a curve returned for a stage, as a number in the curve's range."""
    symbol, allowed, least, most = CURVES[argument]
    value = math.nan
    with suppress(TypeError, ValueError):
        value = float(returned)
    place = f"in stage {at.m} of {at.M}"
    if math.isnan(value):
        fault = f"at t = {at:g} it returned {returned!r}; {symbol} is a number in {allowed}"
    # φ is relative to stage 1: with another number there, η_1 and b_1 would not be those given.
    elif at.m == 1 and not math.isclose(value, 1, rel_tol=1e-9):
        cure = f"divide {symbol} by its value at t = 0"
        fault = f"{symbol} is {value:g} in stage 1 and must be 1; {cure}"
    elif least <= value <= most:
        return value
    elif argument == "profile":
        cure = "use fewer stages or a slower decay"
        if value > 1:
            cure = "φ may not rise above φ(0) = 1"
        fault = (
            f"its noise level is δ_{at.m} = {value:g} δ_1 {place}, and δ_m/δ_1 must be in (0, 1];"
            f" {cure}"
        )
    else:
        fault = f"{symbol} is {value:g} {place} and must be in {allowed}"
    raise PlanError(argument, name, fault)
